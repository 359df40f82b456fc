"""Tests of the list of models of the OpenAI protocol: the fields of many hosts, and reading it over a real socket."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from antiphon.config import ProviderConfig
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.domain.models import Modality, ModelInfo, TokenPrices
from antiphon.net.http import Transport
from antiphon.providers import hosts
from antiphon.providers.openai.provider import OpenAIProvider
from antiphon.providers.openai_model_list import read_page
from tests.odd_upstream import CUT, OddUpstream, answer
from tests.ports import free_port

T, I, A, V, D = Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO, Modality.DOCUMENT  # noqa: E741

OPENROUTER = {
    "id": "anthropic/claude-sonnet-4.5",
    "canonical_slug": "anthropic/claude-4.5-sonnet-20250929",
    "name": "Anthropic: Claude Sonnet 4.5",
    "created": 1759161676,
    "context_length": 1000000,
    "architecture": {"modality": "text+image->text", "input_modalities": ["image", "text", "file"], "output_modalities": ["text"]},
    "pricing": {
        "prompt": "0.000003",
        "completion": "0.000015",
        "request": "0",
        "image": "0.0048",
        "input_cache_read": "0.0000003",
        "input_cache_write": "0.00000375",
    },
    "top_provider": {"context_length": 1000000, "max_completion_tokens": 64000, "is_moderated": False},
}
GROQ = {
    "id": "llama-3.3-70b-versatile",
    "object": "model",
    "created": 1733447754,
    "owned_by": "Meta",
    "active": True,
    "context_window": 131072,
    "public_apps": None,
    "max_completion_tokens": 32768,
}
MISTRAL = {
    "id": "mistral-small-latest",
    "object": "model",
    "created": 1764230687,
    "owned_by": "mistralai",
    "capabilities": {"completion_chat": True, "completion_fim": False, "function_calling": True, "vision": True, "audio": False},
    "name": "mistral-small-2506",
    "max_context_length": 131072,
    "aliases": ["mistral-small-2506"],
    "deprecation": None,
    "type": "base",
}
TOGETHER = {
    "id": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "object": "model",
    "created": 1733466629,
    "type": "chat",
    "running": False,
    "display_name": "Meta Llama 3.3 70B Instruct Turbo",
    "organization": "Meta",
    "context_length": 131072,
    "pricing": {"hourly": 0, "input": 0.88, "output": 0.88, "base": 0, "finetune": 0},
}
FIREWORKS = {
    "id": "accounts/fireworks/models/kimi-k2p5",
    "created": 1769390000,
    "context_length": 262144,
    "supports_chat": True,
    "supports_image_input": False,
    "supports_tools": True,
}
MOONSHOT = {"id": "kimi-k2.5", "created": 1769390000, "context_length": 262144, "supports_image_in": True}
MOONSHOT |= {"supports_video_in": True}
VLLM = {"id": "Qwen/Qwen3-8B", "object": "model", "created": 1700000000, "owned_by": "vllm", "root": "q", "max_model_len": 40960}
GEMINI = {"id": "models/gemini-2.5-flash", "object": "model", "owned_by": "google", "display_name": "Gemini 2.5 Flash"}


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        (
            OPENROUTER,
            ModelInfo(
                name="anthropic/claude-sonnet-4.5",
                title="Anthropic: Claude Sonnet 4.5",
                created=1759161676,
                context_tokens=1_000_000,
                max_output_tokens=64_000,
                input_modalities=(T, I, D),
                output_modalities=(T,),
                prices=TokenPrices(input=3.0, output=15.0, cached_input=0.3, cache_write=3.75),
            ),
        ),
        (
            GROQ,
            ModelInfo(name="llama-3.3-70b-versatile", created=1733447754, context_tokens=131_072, max_output_tokens=32_768),
        ),
        (
            MISTRAL,
            ModelInfo(
                name="mistral-small-latest",
                title="mistral-small-2506",
                created=1764230687,
                context_tokens=131_072,
                input_modalities=(T, I),
            ),
        ),
        (
            TOGETHER,
            ModelInfo(
                name="meta-llama/Llama-3.3-70B-Instruct-Turbo",
                title="Meta Llama 3.3 70B Instruct Turbo",
                created=1733466629,
                context_tokens=131_072,
                prices=TokenPrices(input=0.88, output=0.88),
            ),
        ),
        (
            FIREWORKS,
            ModelInfo(
                name="accounts/fireworks/models/kimi-k2p5", created=1769390000, context_tokens=262_144, input_modalities=(T,)
            ),
        ),
        (
            MOONSHOT,
            ModelInfo(name="kimi-k2.5", created=1769390000, context_tokens=262_144, input_modalities=(T, I, V)),
        ),
        (VLLM, ModelInfo(name="Qwen/Qwen3-8B", created=1700000000, context_tokens=40_960)),
        (GEMINI, ModelInfo(name="gemini-2.5-flash", title="Gemini 2.5 Flash")),
        ({"id": "gpt-4o", "object": "model", "created": 0, "owned_by": "system"}, ModelInfo(name="gpt-4o")),
    ],
    ids=["openrouter", "groq", "mistral", "together", "fireworks", "moonshot", "vllm", "gemini", "openai"],
)
def test_hosts_own_fields_are_read(entry: dict[str, Any], model: ModelInfo) -> None:
    """Sizes, modalities and prices are read under the names that each host gives them."""
    page = read_page(json.dumps({"object": "list", "data": [entry]}).encode())
    assert page.models == (model,)
    assert not page.next_query


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "embed", "type": "embedding"},
        {"id": "mistral-embed", "capabilities": {"completion_chat": False}},
        {"id": "flux", "supports_chat": False},
        {"id": "old", "active": False},
        {"name": "no id"},
        {"id": ["x"]},
        {"id": ""},
        {"id": "white space "},
        {"id": "x" * 257},
        "text",
        None,
    ],
)
def test_what_cannot_be_requested_is_left_out(entry: Any) -> None:
    """Models that do not chat, and entries that are no models, are left out; the others are kept, each name once."""
    page = read_page(json.dumps({"data": [entry, VLLM, VLLM]}).encode())
    assert [model.name for model in page.models] == ["Qwen/Qwen3-8B"]


@pytest.mark.parametrize(
    "odd",
    [
        {"created": "yesterday", "context_length": -1, "pricing": {"prompt": "-1", "completion": "-1"}},
        {"created": True, "context_length": "8k", "pricing": {"prompt": "free", "completion": "1"}, "architecture": []},
        {"created": 1e300, "context_length": 10**12, "pricing": {"input": 0, "output": 0}, "top_provider": None},
        {"name": "a\nb", "pricing": [], "architecture": {"input_modalities": "text"}, "capabilities": 7},
        {"pricing": {"prompt": "nan", "completion": "inf"}, "architecture": {"input_modalities": [["text"], 1]}},
    ],
)
def test_odd_values_are_unknown_ones(odd: dict[str, Any]) -> None:
    """A value of another kind than expected is not known, and does not spoil the model."""
    page = read_page(json.dumps({"data": [{"id": "m", **odd}]}).encode())
    assert page.models == (ModelInfo(name="m"),)


def test_a_bare_list_is_read() -> None:
    """A host may send the list without an object around it, as Together does."""
    assert [model.name for model in read_page(json.dumps([TOGETHER]).encode()).models] == [TOGETHER["id"]]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": {}}', b"7", b"[" * 100_000, b'{"error": {"message": "x"}}'])
def test_anything_else_is_no_list(body: bytes) -> None:
    """A body that is not a list of models is refused, also one that is nested without end."""
    with pytest.raises(ValueError):  # noqa: PT011  # any reason will do
        read_page(body)


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


def provider(base_url: str, name: str = "acme", **config: Any) -> OpenAIProvider:
    made = ProviderConfig(base_url=base_url, **config)
    return OpenAIProvider(name, made, SecretStr("sk-upstream"), Transport(name, made))


def page(*names: str, **fields: Any) -> bytes:
    return answer({"object": "list", "data": [{"id": name} for name in names], **fields})


async def test_all_pages_are_read(upstream: OddUpstream) -> None:
    """A list in pages is read to its end, with the gateway's key and the query of the configuration."""
    upstream.paths = {
        "/v1/models?v=1": [page("a", "b", has_more=True, last_id="b")],
        "/v1/models?v=1&after=b": [page("b", "c", has_more=False, last_id="c")],
    }
    host = provider(upstream.base_url, query={"v": "1"})
    found = await host.list_models()
    assert [model.name for model in found or ()] == ["a", "b", "c"]
    assert [request.headers["authorization"] for request in upstream.requests] == ["Bearer sk-upstream"] * 2
    assert {request.connection for request in upstream.requests} == {1}
    await host.close()


async def test_a_list_without_end_is_cut(upstream: OddUpstream) -> None:
    """A host that repeats a page is asked once more at most; one that always has another page, a limited number of times."""
    upstream.default = [page("a", has_more=True, last_id="a")]
    host = provider(upstream.base_url)
    assert [model.name for model in await host.list_models() or ()] == ["a"]
    assert len(upstream.requests) == 2
    upstream.paths = {
        f"/v1/models{query}": [page(f"m{number}", has_more=True, last_id=f"m{number}")]
        for number, query in enumerate(["", *(f"?after=m{number}" for number in range(100))])
    }
    assert len(await host.list_models() or ()) == 50
    await host.close()


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([answer({"error": {"message": "bad key sk-upstream"}}, "401 Unauthorized")], ProviderCredentials),
        ([answer(b"<html>", "502 Bad Gateway", "text/html")], ProviderUnavailable),
        ([answer(b"<html>", "200 OK", "text/html")], ProviderProtocolError),
        ([answer({"error": {"message": "x"}})], ProviderProtocolError),
        ([page("a")[:-5], CUT], ProviderProtocolError),
        ([CUT], ProviderUnavailable),
    ],
    ids=["key", "502", "page", "error", "cut", "gone"],
)
async def test_failures_are_errors_of_the_provider(upstream: OddUpstream, steps: Any, error: type[ProviderError]) -> None:
    """A list that cannot be read raises an error in our own words, and nothing is logged here: the caller does that."""
    upstream.default = steps
    host = provider(upstream.base_url)
    with structlog.testing.capture_logs() as logs, pytest.raises(error) as caught:
        await host.list_models()
    assert "sk-upstream" not in str(caught.value)
    assert not logs
    await host.close()


async def test_a_host_that_is_not_there_is_unavailable() -> None:
    """A host that refuses the connection is unavailable, and the reason is the cause of the error."""
    host = provider(f"http://127.0.0.1:{free_port()}/v1")
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderUnavailable) as caught:
        await host.list_models()
    assert caught.value.__cause__ is not None
    assert not logs
    await host.close()


@pytest.mark.parametrize(
    ("name", "base_url"),
    [
        ("azure", "https://us.example.com/openai/v1"),
        ("mine", "https://mine.openai.azure.com/openai/v1"),
        ("mine", "https://mine.services.ai.azure.com/openai/v1"),
        ("mine", "https://mine.example.com/deployments/{model}"),
    ],
)
async def test_deployments_are_not_listed(name: str, base_url: str) -> None:
    """Azure lists what could be deployed, and a URL for each model no list at all: neither is asked."""
    host = provider(base_url, name)
    assert await host.list_models() is None
    await host.close()


def test_rows_list_models() -> None:
    """Every known host lists its models, except Azure."""
    rows = {host.name: hosts.lists_models(host.name, host.base_url) for host in hosts.HOSTS}
    assert [name for name, lists in rows.items() if not lists] == ["azure"]
