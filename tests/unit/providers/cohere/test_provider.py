"""Cohere's chat API over a real socket."""

from collections.abc import AsyncIterator

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
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.cohere.provider import CohereProvider
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Step, answer, chunk, head, sse
from tests.unit.providers.cohere.test_response import HELLO


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[CohereProvider]:
    config = ProviderConfig(base_url=f"{upstream.base_url}?a={{model}}", timeouts=TimeoutsConfig(stall=5))
    made = CohereProvider("acme", config, SecretStr("sesame"), Transport("acme", config))
    yield made
    await made.close()


async def ask(provider: CohereProvider, upstream: OddUpstream, *steps: Step, stream: bool = True) -> list[Batch]:
    upstream.script("m", steps)
    return [batch async for batch in provider.stream(ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=stream))]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("last", [LAST, HANG, CUT], ids=["end", "held", "cut after the end"])
async def test_stream(upstream: OddUpstream, provider: CohereProvider, stream: bool, last: Step) -> None:
    """The end of the message is the end of the call, whatever the host does then."""
    batches = await ask(provider, upstream, head(), chunk(sse(*HELLO)), last, stream=stream)
    events = [event for batch in batches for event in batch]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finished)
    (sent,) = upstream.requests
    assert (sent.path, sent.headers["authorization"]) == ("/v1/v2/chat?a=m", "Bearer sesame")
    assert sent.json == {"model": "m", "messages": [{"role": "user", "content": "hello"}], **({"stream": True} if stream else {})}


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([answer({"message": "invalid api token"}, "401 Unauthorized")], ProviderCredentials),
        ([answer({"message": "model not found"}, "404 Not Found")], ProviderCredentials),
        ([answer({"id": "x", "message": "invalid request: no messages"}, "400 Bad Request")], ProviderRejected),
        ([answer({"message": "trial limit"}, "429 Too Many Requests", "application/json", "retry-after: 3")], ProviderRateLimited),
        ([answer({"message": "internal"}, "500 Internal Server Error")], ProviderUnavailable),
        ([head(), chunk(sse(*HELLO[:-1])), LAST], ProviderProtocolError),
    ],
)
async def test_failures(upstream: OddUpstream, provider: CohereProvider, steps: list[Step], error: type[ProviderError]) -> None:
    """Statuses mean what they mean elsewhere, and a reply without its end is a failure."""
    with pytest.raises(error) as caught:
        await ask(provider, upstream, *steps)
    if isinstance(caught.value, ProviderRejected):
        assert caught.value.explanation == "invalid request: no messages"


async def test_probe(upstream: OddUpstream, provider: CohereProvider) -> None:
    """The list of models is of the first version of the API."""
    upstream.default = [answer({"models": []})]
    assert await provider.probe() == 200
    assert upstream.requests[0].path == "/v1/v1/models?a=model"
