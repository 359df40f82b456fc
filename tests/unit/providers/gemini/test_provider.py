"""The Gemini API over a real socket."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from antiphon.domain.events import Batch, Finished, TextDelta
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.net.http import Transport
from antiphon.providers.gemini import ending
from antiphon.providers.gemini.provider import GeminiProvider
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Step, answer, chunk, head, sse
from tests.unit.providers.gemini.test_response import HELLO


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[GeminiProvider]:
    made = build(upstream.base_url)
    yield made
    await made.close()


def build(base_url: str, **fields: Any) -> GeminiProvider:
    config = ProviderConfig(base_url=base_url, timeouts=TimeoutsConfig(stall=5), **fields)
    return GeminiProvider("acme", config, SecretStr("sesame"), Transport("acme", config))


async def ask(
    provider: GeminiProvider, upstream: OddUpstream, *steps: Step, stream: bool = True, model: str = "m", **fields: Any
) -> list[Batch]:
    upstream.default = list(steps)
    request = ChatRequest(model, (Message(Role.USER, (Text("hello"),)),), stream=stream, **fields)
    return [batch async for batch in provider.stream(request)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_stream(upstream: OddUpstream, provider: GeminiProvider, stream: bool) -> None:
    """The model is in the path, and the key in a header of its own."""
    batches = await ask(provider, upstream, head(), chunk(sse(*HELLO)), LAST, stream=stream)
    events = [event for batch in batches for event in batch]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finished)
    (sent,) = upstream.requests
    path = "/v1/v1beta/models/m:streamGenerateContent?alt=sse" if stream else "/v1/v1beta/models/m:generateContent"
    assert (sent.path, sent.headers["x-goog-api-key"]) == (path, "sesame")
    assert "authorization" not in sent.headers
    assert sent.json == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_host_that_does_not_end(
    upstream: OddUpstream, provider: GeminiProvider, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence behind the finish reason ends the reply."""
    monkeypatch.setattr(ending, "WAIT", 0.05)
    batches = await ask(provider, upstream, head(), chunk(sse(*HELLO)), HANG, stream=stream)
    assert isinstance(batches[-1][-1], Finished)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-x", "/v1/m/v1beta/models/gemini-x:streamGenerateContent?a=1&alt=sse"),
        ("tunedModels/x", "/v1/m/v1beta/tunedModels/x:streamGenerateContent?a=1&alt=sse"),
        ("../x", "/v1/m/v1beta/models/..%2Fx:streamGenerateContent?a=1&alt=sse"),
    ],
)
async def test_names_of_models(upstream: OddUpstream, model: str, path: str) -> None:
    """A name may be that of a resource, but leads nowhere else."""
    provider = build(f"{upstream.base_url}/m?a=1", auth_header="authorization")
    await ask(provider, upstream, head(), chunk(sse(*HELLO)), LAST, model=model, api_key=SecretStr("mine"))
    await provider.close()
    (sent,) = upstream.requests
    assert (sent.path, sent.headers["authorization"]) == (path, "Bearer mine")


def refusal(code: int, status: str, message: str = "oops", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, **more}}


REASON = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([answer(refusal(400, "INVALID_ARGUMENT", "API key not valid.", details=REASON), "400 Bad Request")], ProviderCredentials),
        ([answer(refusal(403, "PERMISSION_DENIED"), "403 Forbidden")], ProviderCredentials),
        ([answer(refusal(404, "NOT_FOUND"), "404 Not Found")], ProviderCredentials),
        ([answer(refusal(400, "INVALID_ARGUMENT", "no such field"), "400 Bad Request")], ProviderRejected),
        ([answer(json.dumps([refusal(400, "INVALID_ARGUMENT", "no such field")]).encode(), "400 Bad Request")], ProviderRejected),
        ([answer(refusal(429, "RESOURCE_EXHAUSTED"), "429 Too Many Requests")], ProviderRateLimited),
        ([answer(refusal(503, "UNAVAILABLE"), "503 Service Unavailable")], ProviderUnavailable),
        ([head(), chunk(sse(*HELLO[:-1])), LAST], ProviderProtocolError),
        ([head(), chunk(sse(*HELLO[:-1])), CUT], ProviderProtocolError),
        ([head(), chunk(sse(HELLO[0], refusal(500, "INTERNAL"))), LAST], ProviderUnavailable),
    ],
)
async def test_failures(upstream: OddUpstream, provider: GeminiProvider, steps: list[Step], error: type[ProviderError]) -> None:
    """Statuses mean what they mean elsewhere, and a reply without its end is a failure."""
    with pytest.raises(error) as caught:
        await ask(provider, upstream, *steps)
    if isinstance(caught.value, ProviderRejected):
        assert caught.value.explanation == "no such field"


async def test_fewer_choices_than_requested(upstream: OddUpstream, provider: GeminiProvider) -> None:
    """They are the reply if the end of the body is marked. If only the connection ends it, it may have been cut before the next."""
    sampling = Sampling(choices=2)
    data = sse(*HELLO)
    batches = await ask(provider, upstream, head(), chunk(data), LAST, sampling=sampling)
    assert isinstance(batches[-1][-1], Finished)
    unmarked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + data
    with pytest.raises(ProviderProtocolError):
        await ask(provider, upstream, unmarked, CUT, sampling=sampling)
    batches = await ask(provider, upstream, unmarked, CUT)
    assert isinstance(batches[-1][-1], Finished)


async def test_probe(upstream: OddUpstream, provider: GeminiProvider) -> None:
    """The list of models is free."""
    upstream.default = [answer({"models": []})]
    assert await provider.probe() == 200
    assert upstream.requests[0].path == "/v1/v1beta/models"
