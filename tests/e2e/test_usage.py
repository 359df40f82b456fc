"""Usage, which only admins may read."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio

from antiphon.v1 import admin_pb2, admin_pb2_grpc
from tests.e2e.conftest import KEY, Gateway
from tests.odd_upstream import OddUpstream, answer
from tests.waiting import until

ADMIN = (("authorization", f"Bearer {KEY}"),)
REPLY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "odd-priced",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}


@pytest_asyncio.fixture(loop_scope="session")
async def spent(admin_gateway: Gateway, upstream: OddUpstream) -> dict[str, str]:
    """Make calls for two owners, and return the secret of each owner's key."""
    upstream.script("odd-priced", [answer(REPLY)])
    secrets = {}

    async def requests(stub: Any, owner: str) -> int:
        page = await stub.GetUsage(admin_pb2.GetUsageRequest(owner=owner, first_day="2026-01-01"), metadata=ADMIN)
        return sum(day.requests for day in page.days)

    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        for owner, calls in (("spender", 3), ("miser", 1)):
            before = await requests(stub, owner)
            key = admin_pb2.Key(name=owner, owner=owner)
            made = await stub.CreateKey(admin_pb2.CreateKeyRequest(key=key), metadata=ADMIN)
            secrets[owner] = made.secret
            async with httpx2.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {made.secret}"}) as http:
                for _ in range(calls):
                    body = {"model": "odd-priced", "messages": [{"role": "user", "content": "Hi"}]}
                    assert (await http.post(f"{admin_gateway.url}/chat/completions", json=body)).status_code == 200

            async def written() -> bool:
                return await requests(stub, owner) >= before + calls  # noqa: B023 - awaited here

            await until(written)  # usage is written at intervals
    return secrets


async def antiphon(gateway: Gateway, *words: str, key: str = KEY, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": gateway.grpc, "ANTIPHON_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == code, output.decode()
    return output.decode()


async def test_only_admins_read_usage(admin_gateway: Gateway, spent: dict[str, str]) -> None:
    """Admins read requests, tokens and USD by day and owner, in pages. Owners may not read even their own."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        page = await stub.GetUsage(admin_pb2.GetUsageRequest(owner="spender"), metadata=ADMIN)
        used = page.days[0]
        assert abs(datetime.fromisoformat(f"{used.day}T12:00+00:00") - datetime.now(UTC)) < timedelta(days=2)
        tokens = (used.prompt_tokens, used.completion_tokens)
        assert (used.owner, *tokens, used.unpriced_requests) == ("spender", 1000 * used.requests, 100 * used.requests, 0)
        assert used.cost_usd == pytest.approx(used.requests * 0.002)
        found: list[str] = []
        request = admin_pb2.GetUsageRequest(page_size=1)
        while True:
            page = await stub.GetUsage(request, metadata=ADMIN)
            found += [day.owner for day in page.days]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert {"spender", "miser"} <= set(found)
        for secret, code in (
            (spent["miser"], "PERMISSION_DENIED"),
            (spent["spender"], "PERMISSION_DENIED"),
            ("", "UNAUTHENTICATED"),
        ):
            metadata = (("authorization", f"Bearer {secret}"),) if secret else ()
            for owner in ("", "spender"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetUsage(admin_pb2.GetUsageRequest(owner=owner), metadata=metadata)
                assert caught.value.code().name == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_day": "2026-13-01"},
        {"first_day": "20261101"},
        {"last_day": "2026-W44-1"},
        {"last_day": "tomorrow"},
        {"last_day": "\u0662\u0660\u0662\u0666-11-01"},
        {"first_day": "2026-11-02", "last_day": "2026-11-01"},
        {"page_size": 1001},
        {"page_size": -1},
        {"page_token": "x"},
        {"group_by": [0]},
        {"group_by": ["USAGE_DIMENSION_MODEL", 77]},
    ],
)
async def test_invalid_requests_are_refused(admin_gateway: Gateway, wrong: dict[str, Any]) -> None:
    """Invalid requests for usage get INVALID_ARGUMENT."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetUsage(admin_pb2.GetUsageRequest(**wrong), metadata=ADMIN)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
async def test_usage_from_the_terminal(admin_gateway: Gateway, spent: dict[str, str]) -> None:
    """`antiphon usage` prints a table with a total, or JSON, and reports errors in one line."""
    table = await antiphon(admin_gateway, "usage", "--owner", "spender")
    row = next(line for line in table.splitlines() if "spender" in line)
    total = next(line for line in table.splitlines() if "total" in line)
    assert row.split("│")[3:] == total.split("│")[3:]
    read = json.loads(await antiphon(admin_gateway, "usage", "--json", "--owner", "spender"))
    assert set(read["days"][0]) == {
        *("day", "owner", "requests", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced_requests")
    }
    assert json.loads(await antiphon(admin_gateway, "usage", "--json", "--from", "2020-01-01", "--to", "2020-01-02")) == {
        "days": []
    }
    assert "INVALID_ARGUMENT" in await antiphon(admin_gateway, "usage", "--from", "soon", code=1)
    assert "first_day: must be a day, as in" in await antiphon(admin_gateway, "usage", "--since", "soon", code=1)
    assert "PERMISSION_DENIED" in await antiphon(admin_gateway, "usage", key=spent["miser"], code=1)


@pytest.mark.slow
async def test_usage_by_model_key_provider_and_day(admin_gateway: Gateway, spent: dict[str, str]) -> None:
    """Usage can be grouped by any dimension, with the same total each time. An unknown dimension is refused."""
    table = await antiphon(admin_gateway, "usage", "--by", "model,provider", "--owner", "spender")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert ["odd-priced", "odd"] in [row[:2] for row in rows]
    requests = {}
    for by in (("model",), ("key",), ("provider",), ("day",), ("day", "model"), ("key", "model", "provider")):
        words = [word for each in by for word in ("--by", each)]
        rows_json = json.loads(await antiphon(admin_gateway, "usage", *words, "--json", "--since", "2026-01-01"))["usage"]
        assert set(rows_json[0]) == {
            *by,
            *(("key_name",) if "key" in by else ()),
            *("requests", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced_requests"),
        }
        requests[by] = sum(row["requests"] for row in rows_json)
    assert len(set(requests.values())) == 1, requests
    named = json.loads(await antiphon(admin_gateway, "usage", "--by", "key", "--json", "--since", "2026-01-01"))["usage"]
    assert {"spender", "miser"} <= {row["key_name"] for row in named}
    assert [row["cost_usd"] for row in named] == sorted((row["cost_usd"] for row in named), reverse=True)
    assert "'colour' is not one of day, owner" in " ".join(
        (await antiphon(admin_gateway, "usage", "--by", "colour", code=2)).replace("│", " ").split()
    )


async def test_the_log_line_of_a_call_has_owner_and_usage(admin_gateway: Gateway, spent: dict[str, str]) -> None:
    """The log line of a call has owner, key, route, provider, model, tokens, cost and the time to the first token."""
    lines = [
        json.loads(line) for line in admin_gateway.output_text.splitlines() if '"event":"call"' in line and line.startswith("{")
    ]
    line = next(line for line in lines if line.get("owner") == "spender")
    assert line["method"] == "OpenAIService/CreateChatCompletion"
    assert (line["key"], line["route"], line["provider"], line["model"]) == ("spender", "odd-priced", "odd", "odd-priced")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (1000, 100)
    assert line["cost_usd"] > 0
    assert 0 < line["first_token_ms"] <= line["duration_ms"]
