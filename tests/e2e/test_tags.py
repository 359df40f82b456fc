"""Tags of keys and calls, over REST, gRPC and the proxies: they are in usage and in the log, and nowhere else."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import grpc
import httpx2
import pytest
import pytest_asyncio
from llmock.testing import LLMockServer

from antiphon.v1 import admin_pb2, admin_pb2_grpc, chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.odd_upstream import OddUpstream, answer
from tests.ports import free_port
from tests.waiting import until

ADMIN = (("authorization", f"Bearer {KEY}"),)
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with a tagged key, an admin key, targets for the proxies, and metrics."""
    more = {
        "auth": {
            "keys": [
                {"name": "boss", "key_env": "TEST_KEY", "admin": True},
                {"name": "tagged", "key_env": "TAGGED_KEY", "tags": {"team": "search"}},
            ]
        },
        "proxy": {"allow": [upstream.base_url]},
        "metrics": {"listen": f"127.0.0.1:{free_port()}"},
    }
    started = Gateway(tmp_path_factory.mktemp("tags"), {**configuration(upstream, llm), **more}, TAGGED_KEY="sk-tagged")
    started.metrics = more["metrics"]["listen"]  # type: ignore[attr-defined]
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text


async def antiphon(gateway: Gateway, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": gateway.grpc, "ANTIPHON_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def used(gateway: Gateway, owner: str) -> dict[str, int]:
    """Return an owner's requests by tag."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        request = admin_pb2.GetUsageRequest(owner=owner, group_by=["USAGE_DIMENSION_TAG"])
        page = await stub.GetUsage(request, metadata=ADMIN)
        return {entry.tag: entry.requests for entry in page.days}


def logged(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """Return the log line of a call."""
    lines = [json.loads(line) for line in gateway.output_text.splitlines() if request_id in line]
    found: dict[str, Any] = next(line for line in lines if line["event"] == "call")
    return found


async def test_usage_is_counted_by_tags(gateway: Gateway, upstream: OddUpstream) -> None:
    """Tags of keys and calls are counted for every API. The provider and the metrics do not get them."""
    made = json.loads(await antiphon(gateway, "keys", "create", "ann", "--owner", "ann", "--tag", "team=ads", "--json"))
    assert made["key"]["tags"] == {"team": "ads"}
    headers = {"authorization": f"Bearer {made['secret']}", "x-antiphon-tags": "feature=x, team=search"}
    upstream.script("odd-tagged", [answer(b"{}")])
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False, timeout=20) as http:
        answered = await http.post("/chat/completions", json={**CHAT, "metadata": {"feature": "of the provider's"}})
        assert answered.status_code == 200, answered.text
        passed = f"/proxy/{quote(upstream.base_url, safe='')}/sk-own/chat/completions"
        assert (await http.post(passed, json={**CHAT, "model": "odd-tagged"})).status_code == 200
    assert not [name for name in upstream.requests[-1].headers if "tags" in name]
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        messages = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
        request = chat_pb2.GenerateRequest(model="echo", messages=messages, tags={"feature": "y", "env": "prod"})
        key = ("authorization", f"Bearer {made['secret']}")
        await stub.Generate(request, metadata=(key, ("x-antiphon-tags", "feature=x,run=1")))
        async for _ in stub.StreamGenerate(request, metadata=(key,)):
            pass
    wanted = {"team=ads": 4, "feature=x": 2, "feature=y": 2, "env=prod": 2, "run=1": 1}

    async def written() -> bool:
        return await used(gateway, "ann") == wanted

    await until(written)
    table = await antiphon(gateway, "usage", "--by", "owner,tag", "--owner", "ann")
    assert all(tag in table for tag in wanted)
    assert logged(gateway, answered.headers["x-request-id"])["tags"] == {"team": "ads", "feature": "x"}
    async with httpx2.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"http://{gateway.metrics}/metrics")).text  # type: ignore[attr-defined]
    assert "antiphon_" in metrics
    assert "team" not in metrics
    assert "search" not in metrics
    await antiphon(gateway, "owners", "erase", "ann", "--yes")
    assert await used(gateway, "ann") == {}
    assert "tag" not in await antiphon(gateway, "owners", "export", "ann")


async def test_a_key_of_the_configuration_has_tags(gateway: Gateway) -> None:
    """A call without tags of its own has those of its configured key."""
    async with gateway.client(headers={"authorization": "Bearer sk-tagged"}) as http:
        answered = await http.post("/chat/completions", json=CHAT)
    assert answered.status_code == 200
    assert logged(gateway, answered.headers["x-request-id"])["tags"] == {"team": "search"}

    async def written() -> bool:
        return await used(gateway, "tagged") == {"team=search": 1}

    await until(written)


async def test_a_call_without_tags_has_none(gateway: Gateway) -> None:
    """A call without tags has no such field in the log."""
    async with gateway.client() as http:
        answered = await http.post("/chat/completions", json=CHAT)
    assert "tags" not in logged(gateway, answered.headers["x-request-id"])


@pytest.mark.parametrize("tags", ["Team=search", ",".join(f"t{number}=v" for number in range(9)), f"a={'v' * 65}"])
async def test_invalid_tags_are_refused(gateway: Gateway, tags: str) -> None:
    """Invalid tags are refused in each dialect's format and over gRPC."""
    async with gateway.client(headers={"x-antiphon-tags": tags}) as http:
        openai = await http.post(f"http://{gateway.rest}/v1/chat/completions", json=CHAT)
        assert openai.status_code in {400, 422}
        assert "x-antiphon-tags" in openai.json()["error"]["message"]
        engine = await http.post(f"http://{gateway.rest}/api/v1/chat/generate", json={"message": "Hi"})
        assert engine.status_code in {400, 404, 422}
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        messages = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
        pairs = dict(pair.split("=") for pair in tags.split(","))
        for request, metadata in (
            (chat_pb2.GenerateRequest(model="echo", messages=messages), (("x-antiphon-tags", tags),)),
            (chat_pb2.GenerateRequest(model="echo", messages=messages, tags=pairs), ()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(request, metadata=(*ADMIN, *metadata))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.CreateKey(admin_pb2.CreateKeyRequest(key=admin_pb2.Key(name="bad", tags=pairs)), metadata=ADMIN)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
