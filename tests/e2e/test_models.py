"""Lists of models of a real gateway: what its providers list, over REST, gRPC, the engine's paths and the command line."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest_asyncio
from llmock.testing import LLMockServer

from antiphon.v1 import models_pb2, models_pb2_grpc
from tests.e2e.conftest import KEY, PROVIDER_KEY, READY, Gateway
from tests.odd_upstream import HANG, OddUpstream, answer
from tests.ports import free_port

OPENROUTER = {
    "id": "acme/large",
    "name": "Acme: Large",
    "created": 1759161676,
    "context_length": 200000,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "pricing": {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003"},
    "top_provider": {"context_length": 200000, "max_completion_tokens": 64000},
}
METADATA = [("authorization", f"Bearer {KEY}")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def host() -> AsyncGenerator[OddUpstream, None]:
    """Yield a host that lists models as OpenRouter does."""
    async with OddUpstream() as upstream:
        upstream.paths = {"/v1/models": [answer({"data": [OPENROUTER, {"id": "acme/small"}]})]}
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def listing(host: OddUpstream, llm: LLMockServer, tmp_path_factory: Any) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with a provider of each protocol, one that is not there, and one that never answers."""
    key = {"api_key_env": "TEST_PROVIDER_KEY"}
    silent = await OddUpstream().start()
    silent.default = [HANG]
    config = {
        "models": {"default": "gpt-4o"},
        "providers": {
            "openai": {"base_url": llm.base_url("openai"), **key, "models": ["gpt-4o", "gpt-4*"]},
            "claude": {"protocol": "anthropic", "base_url": llm.base_url("anthropic"), **key, "models": ["claude-*"]},
            "google": {"protocol": "gemini", "base_url": llm.base_url("gemini"), **key, "models": ["gemini-*"]},
            "routed": {"base_url": host.base_url, **key},
            "gone": {"base_url": f"http://127.0.0.1:{free_port()}/v1", "models": ["lost"]},
            "silent": {"base_url": silent.base_url, "models": ["quiet"]},
            "echo": {"protocol": "echo", "models": ["echo"]},
        },
        "auth": {
            "keys": [
                {"name": "test", "key_env": "TEST_KEY"},
                {"name": "some", "key_env": "SOME_KEY", "models": ["gpt-4o", "routed/acme/large"]},
            ]
        },
    }
    started = Gateway(tmp_path_factory.mktemp("listing"), config, SOME_KEY="sk-some")
    await asyncio.to_thread(started.wait_for, READY)
    assert host.requests == [], "nothing is asked at the start"
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert PROVIDER_KEY not in started.output_text
    assert "call_failed" not in started.output_text
    await silent.stop()


async def test_the_sdk_lists_what_providers_list(listing: Gateway, host: OddUpstream) -> None:
    """The OpenAI SDK gets the models of all providers; a provider that does not answer costs the first caller a moment."""
    async with listing.sdk() as sdk:
        async with asyncio.timeout(15):
            found = {model.id: model async for model in sdk.models.list()}
        async with asyncio.timeout(2):
            again = [model.id async for model in sdk.models.list()]
    assert {"gpt-4o", "gpt-4o-mini", "claude-opus-4-6", "routed/acme/large", "routed/acme/small", "lost", "quiet", "echo"} <= set(
        found
    )
    assert any(name.startswith("gemini-") for name in found)
    assert "gpt-3.5-turbo" not in found, "the configuration does not allow it"
    assert sorted(found) == again
    large = found["routed/acme/large"].to_dict()
    assert large == {
        "id": "routed/acme/large",
        "object": "model",
        "created": 1759161676,
        "owned_by": "routed",
        "name": "Acme: Large",
        "context_length": 200000,
        "top_provider": {"context_length": 200000, "max_completion_tokens": 64000},
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003"},
    }
    assert found["gpt-4o"].to_dict()["pricing"] == {
        "prompt": "0.0000025",
        "completion": "0.00001",
        "input_cache_read": "0.00000125",
    }
    assert set(found["echo"].to_dict()) == {"id", "object", "created", "owned_by"}
    assert [request.path for request in host.requests] == ["/v1/models"]
    assert host.requests[0].headers["authorization"] == f"Bearer {PROVIDER_KEY}"


async def test_every_listed_name_can_be_requested(listing: Gateway) -> None:
    """A listed name leads to its provider, as one model and in a chat."""
    async with listing.client() as http:
        names = [model["id"] for model in (await http.get("/models")).json()["data"]]
        for name in names:
            one = await http.get(f"/models/{name}")
            assert one.status_code == 200, name
            assert one.json()["id"] == name
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
        assert (await http.post("/chat/completions", json=body)).status_code == 200


async def test_the_log_tells_once_who_does_not_answer(listing: Gateway) -> None:
    """A provider that cannot be reached is logged once, with the reason, however often callers ask."""
    async with listing.client() as http:
        for _ in range(3):
            await http.get("/models")
    lines = [json.loads(line) for line in listing.output_text.splitlines() if '"models_not_listed"' in line]
    gone = [line for line in lines if line["provider"] == "gone"]
    assert len(gone) == 1
    assert "no connection to 127.0.0.1" in gone[0]["error"]
    assert "provider_out_of_reach" not in listing.output_text


async def test_a_key_with_some_models_sees_those(listing: Gateway) -> None:
    """A key for some models lists those alone, and finds no other."""
    headers = {"authorization": "Bearer sk-some"}
    async with httpx2.AsyncClient(base_url=listing.url, headers=headers, timeout=20, trust_env=False) as http:
        found = [model["id"] for model in (await http.get("/models")).json()["data"]]
        assert found == ["gpt-4o", "routed/acme/large"]
        assert (await http.get("/models/routed/acme/small")).status_code == 404


async def test_grpc(listing: Gateway) -> None:
    """The typed list has the sizes, modalities and prices as fields."""
    async with grpc.aio.insecure_channel(listing.grpc) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        page = await stub.ListModels(models_pb2.ListModelsRequest(page_size=1000), metadata=METADATA)
        found = {model.name: model for model in page.models}
        one = await stub.GetModel(models_pb2.GetModelRequest(name="claude-sonnet-4-6"), metadata=METADATA)
    assert list(found) == sorted(found)
    large = found["routed/acme/large"]
    assert (large.provider, large.provider_model, large.title) == ("routed", "acme/large", "Acme: Large")
    assert (large.context_tokens, large.max_output_tokens, large.create_time.seconds) == (200000, 64000, 1759161676)
    assert list(large.input_modalities) == [models_pb2.MODALITY_TEXT, models_pb2.MODALITY_IMAGE]
    assert (large.prices.input, large.prices.output, large.prices.cached_input) == (3.0, 15.0, 0.3)
    assert not large.prices.HasField("cache_write")
    assert not found["echo"].HasField("context_tokens")
    assert not found["echo"].HasField("prices")
    assert found["gpt-4o"].is_default
    assert one.model.title == "Claude Sonnet 4.6"


async def test_the_engines_list(listing: Gateway) -> None:
    """The engine's list has the providers' own names, by provider, in its documented shape."""
    config = json.loads((await _engine(listing, "?provider=routed")).text)
    assert config == {"name": "routed", "models": ["acme/large", "acme/small"]}
    found = (await _engine(listing)).json()
    assert found["echo"] == {"name": "echo", "models": ["echo"]}
    assert found["openai"]["models"][0] == "gpt-4o"
    assert (await _engine(listing, "?provider=nobody")).status_code == 404


async def _engine(listing: Gateway, query: str = "") -> httpx2.Response:
    async with listing.client() as http:
        return await http.get(f"http://{listing.rest}/api/engine/models{query}")


async def _command(listing: Gateway, folder: Path, *options: str, **variables: str) -> str:
    command = [sys.executable, "-m", "antiphon", "models", "--address", listing.grpc, *options]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "ANTIPHON_KEY": KEY, **variables}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_the_command(listing: Gateway, tmp_path: Path) -> None:
    """The command prints a table of what is known, and all of it as JSON."""
    rows = {line.split("│")[1].strip(): line for line in (await _command(listing, tmp_path)).splitlines() if "│" in line}
    cells = [cell.strip() for cell in rows["routed/acme/large"].strip("│").split("│")]
    assert cells == ["routed/acme/large", "routed", "200K", "64K", "text image", "text", "3", "15", ""]
    assert rows["gpt-4o"].rstrip("│ \n").endswith("yes")
    only = json.loads(await _command(listing, tmp_path, "--provider", "routed", "--json"))
    assert [model["name"] for model in only["models"]] == ["routed/acme/large", "routed/acme/small"]
    assert only["models"][0] == {
        "name": "routed/acme/large",
        "provider": "routed",
        "is_default": False,
        "provider_model": "acme/large",
        "title": "Acme: Large",
        "create_time": "2025-09-29T16:01:16Z",
        "context_tokens": 200000,
        "max_output_tokens": 64000,
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "prices": {
            "input": 3.0,
            "cached_input": 0.3,
            "cache_write": None,
            "cache_write_1h": None,
            "audio_input": None,
            "output": 15.0,
            "audio_output": None,
            "tiers": [],
        },
    }
    assert only["models"][1]["prices"] is None
