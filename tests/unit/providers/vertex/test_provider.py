"""Vertex AI over real sockets, with tokens of an endpoint that checks the grants."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from pydantic import SecretStr

from antiphon.config import ConfigError, ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderCredentials, ProviderError, Unsupported
from antiphon.domain.events import Batch, Finished, TextDelta, Usage
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.domain.warnings import Warnings
from antiphon.providers.base import Provider
from antiphon.providers.registry import build
from tests.odd_upstream import LAST, OddUpstream, Step, answer, chunk, head, sse
from tests.token_endpoint import TokenEndpoint
from tests.unit.providers.gemini.test_response import HELLO

CLAUDE: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
    },
    # Of Vertex alone: https://github.com/vercel/ai/issues/11309
    {"type": "vertex_event", "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": None, "tiers": {}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
    {"type": "vertex_event", "usage": {"input_tokens": 9, "output_tokens": 2}},
]


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as made:
        yield made


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        server.default = [head(), chunk(sse(*HELLO)), LAST]
        yield server


@pytest.fixture
async def vertex(endpoint: TokenEndpoint, upstream: OddUpstream, tmp_path: Path) -> AsyncIterator[Callable[..., Provider]]:
    """Return a function that makes a provider with the tokens of a service account."""
    path = endpoint.service_account(tmp_path / "a.json")
    async with AsyncExitStack() as stack:

        def made(**settings: Any) -> Provider:
            given = {"credentials": {"kind": "google", "file": path}, "project": "acme", "location": "europe-west1"} | settings
            config = ProviderConfig.model_validate({"protocol": "vertex", "base_url": upstream.base_url, **given})
            provider = build("vertex", config, {"KEY": "express-key"})
            stack.push_async_callback(provider.close)
            return provider

        yield made


async def ask(provider: Provider, model: str = "gemini-2.5-flash", *, stream: bool = True, **fields: Any) -> list[Batch]:
    request = ChatRequest(model, (Message(Role.USER, (Text("hello"),)),), stream=stream, **fields)
    return [batch async for batch in provider.stream(request)]


def text(batches: list[Batch]) -> str:
    assert isinstance(batches[-1][-1], Finished)
    return "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_gemini(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint, *, stream: bool) -> None:
    """A call goes to the project and location with a token, and the body is that of the Gemini API."""
    assert text(await ask(vertex(), stream=stream)) == "Hello"
    (sent,) = upstream.requests
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    path = "/v1/v1beta1/projects/acme/locations/europe-west1/publishers/google/models/gemini-2.5-flash:"
    assert sent.path == f"{path}{method}"
    assert endpoint.accepts(sent.headers["authorization"])
    assert "x-goog-api-key" not in sent.headers
    assert sent.json == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "google/gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"])
@pytest.mark.parametrize("express", [True, False])
async def test_requests_are_those_of_google_s_sdk(
    upstream: OddUpstream, vertex: Callable[..., Provider], model: str, *, express: bool
) -> None:
    """Path and body are those that Google's SDK sends for the same call."""
    said = {"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP"}
    upstream.default = [answer({"candidates": [said], "responseId": "r", "modelVersion": "m"})]
    settings = {"credentials": None, "project": None, "location": None, "api_key_env": "KEY"} if express else {}
    request = ChatRequest(model, (Message(Role.USER, (Text("hello"),)),), stream=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_API_KEY"):
            patch.delenv(name, raising=False)
        await _drop(vertex(**settings).stream(request))
        at = types.HttpOptions(base_url=upstream.base_url)
        given: dict[str, Any] = {"project": "acme", "location": "europe-west1", "credentials": Credentials("a-token")}
        client = genai.Client(vertexai=True, http_options=at, **({"api_key": "express-key"} if express else given))
        await asyncio.to_thread(client.models.generate_content, model=model, contents="hello")
        client.close()
    ours, theirs = upstream.requests
    assert (ours.path, ours.json) == (theirs.path, theirs.json)
    assert ours.headers.get("x-goog-api-key") == theirs.headers.get("x-goog-api-key") == ("express-key" if express else None)


async def _drop(batches: AsyncIterator[Batch]) -> None:
    async for _ in batches:
        pass


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_claude(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint, *, stream: bool) -> None:
    """Anthropic's models have its own body, with the version in it and the model in the path."""
    upstream.default = [head(), chunk(sse(*CLAUDE)), LAST]
    provider = vertex(headers={"anthropic-beta": "one"})
    batches = await ask(provider, "claude-sonnet-4-5@20250929", stream=stream, extra={"betas": ["two"]})
    assert text(batches) == "Hello"
    events = [event for batch in batches for event in batch]
    counted = [(one.input_tokens, one.output_tokens) for one in events if isinstance(one, Usage)]
    assert (counted[-1], {tokens for tokens, _ in counted}) == ((3, 2), {3}), "the counts of `vertex_event` are of no use here"
    assert "vertex_event" not in str(events)
    (sent,) = upstream.requests
    path = "/v1/v1beta1/projects/acme/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5@20250929"
    assert sent.path == f"{path}:streamRawPredict"
    assert endpoint.accepts(sent.headers["authorization"])
    assert "anthropic-version" not in sent.headers
    assert sent.headers["anthropic-beta"] == "one,two"
    assert sent.json == {
        "anthropic_version": "vertex-2023-10-16",
        "max_tokens": 64_000,
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }


@pytest.mark.parametrize(
    ("model", "reply", "path"),
    [("gemini-2.5-flash", HELLO, ("sampling", "logit_bias")), ("claude-sonnet-4-5@20250929", CLAUDE, ("sampling", "seed"))],
)
async def test_options_that_are_lacking(
    upstream: OddUpstream, vertex: Callable[..., Provider], model: str, reply: list[Any], path: tuple[str, ...]
) -> None:
    """What the publisher's API lacks is told before the reply; with the policy `refuse`, nothing is sent."""
    upstream.default = [head(), chunk(sse(*reply)), LAST]
    sampling = Sampling(logit_bias={"1": 2}) if path[1] == "logit_bias" else Sampling(seed=4)
    asked = ChatRequest(model, (Message(Role.USER, (Text("hello"),)),), stream=True, sampling=sampling)
    seen: list[Warnings] = []
    assert text([batch async for batch in vertex().stream(asked, seen.append)]) == "Hello"
    assert [warning.path for warnings in seen for warning in warnings] == [path]
    with pytest.raises(Unsupported, match=f"The provider vertex does not support {'.'.join(path)}"):
        await _drop(vertex(unsupported="refuse").stream(asked))
    assert len(upstream.requests) == 1


async def test_models_of_others_are_refused(upstream: OddUpstream, vertex: Callable[..., Provider]) -> None:
    """A model of a publisher whose API is not known here is refused, and nothing is sent."""
    with pytest.raises(Unsupported, match="has models of google and anthropic only"):
        await ask(vertex(), "meta/llama-4")
    assert upstream.requests == []


async def test_a_refused_token_is_fetched_again_once(
    upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint
) -> None:
    """After a 401 the call is sent once more with a new token, and its reply is the caller's."""
    refusal = answer({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "expired"}}, "401 Unauthorized")
    provider = vertex()
    upstream.default = _Once(refusal, [head(), chunk(sse(*HELLO)), LAST])
    assert text(await ask(provider)) == "Hello"
    first, second = (request.headers["authorization"] for request in upstream.requests)
    assert (first, second) == ("Bearer token-1-secret", "Bearer token-2-secret")
    assert upstream.requests[0].body == upstream.requests[1].body
    assert len(endpoint.requests) == 2


async def test_a_token_that_stays_refused(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint) -> None:
    """If the new token is refused as well, the caller gets an error, and calls after it fetch and repeat nothing."""
    said: dict[str, Any] = {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "token-1-secret token-2-secret is bad"}}
    provider = vertex()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            upstream.default = [answer(said, "401 Unauthorized")]
            with pytest.raises(ProviderCredentials) as caught:
                await ask(provider)
            assert "secret" not in str(caught.value)
            said["error"]["message"] = "token-2-secret is bad"
    assert "-secret" not in str(logs)
    assert len(upstream.requests) == 4
    assert len(endpoint.requests) == 2


async def test_an_own_key_is_not_replaced(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint) -> None:
    """A caller's own key is sent in place of the token; if it is refused, no token is fetched for it."""
    upstream.default = [answer({"error": {"message": "no"}}, "401 Unauthorized")]
    with pytest.raises(ProviderCredentials, match="refused the key of the request"):
        await ask(vertex(), api_key=SecretStr("their-own"))
    (sent,) = upstream.requests
    assert sent.headers["x-goog-api-key"] == "their-own"
    assert "authorization" not in sent.headers
    assert endpoint.requests == []


async def test_without_a_token_nothing_is_sent(
    upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """If the grant is refused, the caller gets an error of the gateway's credentials, and the provider is not called."""
    path = endpoint.service_account(tmp_path / "b.json", client_email="other@acme.test")
    with pytest.raises(ProviderCredentials, match="^This gateway's credentials for the provider vertex were refused.$"):
        await ask(vertex(credentials={"kind": "google", "file": path}))
    assert upstream.requests == []


async def test_a_hundred_calls(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint) -> None:
    """A hundred calls at once fetch one token; one that is cancelled meanwhile fails no other."""
    provider = vertex()
    endpoint.gate.clear()
    calls = [asyncio.create_task(ask(provider)) for _ in range(100)]
    while not endpoint.requests:
        await asyncio.sleep(0.001)
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    endpoint.gate.set()
    replies = await asyncio.gather(*calls[1:])
    assert {text(reply) for reply in replies} == {"Hello"}
    assert len(endpoint.requests) == 1
    assert {request.headers["authorization"] for request in upstream.requests} == {"Bearer token-1-secret"}


async def test_the_quota_project_is_sent(
    upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """The project that a user's calls are billed to is sent with each call."""
    await ask(vertex(credentials={"kind": "google", "file": endpoint.user(tmp_path / "b.json")}))
    assert upstream.requests[0].headers["x-goog-user-project"] == "quota"


async def test_the_probe_uses_a_token(upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint) -> None:
    """The probe asks for the list of models with a token, and tells a refused one."""
    upstream.default = [answer({"publisherModels": []})]
    assert await vertex().probe() == 200
    assert upstream.requests[0].path == "/v1/v1beta1/publishers/google/models"
    assert endpoint.accepts(upstream.requests[0].headers["authorization"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"project": None}, "providers.vertex.project: set it, or GOOGLE_CLOUD_PROJECT"),
        (
            {"credentials": None, "base_url": "https://aiplatform.googleapis.com"},
            "providers.vertex.credentials: set it, or GOOGLE_APPLICATION_CREDENTIALS",
        ),
    ],
)
async def test_settings_that_are_missing(vertex: Callable[..., Provider], settings: dict[str, Any], message: str) -> None:
    """A missing project or credential is an error at start."""
    with pytest.raises(ConfigError) as caught:
        vertex(**settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "429 Too Many Requests"])
async def test_other_errors_fetch_nothing(
    upstream: OddUpstream, vertex: Callable[..., Provider], endpoint: TokenEndpoint, status: str
) -> None:
    """Only a 401 is about the token."""
    upstream.default = [answer(json.dumps([{"error": {"code": 1, "message": "no"}}]).encode(), status)]
    with pytest.raises(ProviderError):
        await ask(vertex())
    assert (len(upstream.requests), len(endpoint.requests)) == (1, 1)


class _Once(list[Step]):
    """Steps that are replaced after the first request was answered with `first`."""

    def __init__(self, first: bytes, then: list[Step]) -> None:
        super().__init__(then)
        self._first: bytes | None = first

    def __iter__(self) -> Any:
        if self._first is None:
            return super().__iter__()
        first, self._first = self._first, None
        return iter([first])
