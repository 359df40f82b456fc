"""Twenty turns of tool calls with thinking between them, by each way to call, against upstreams that refuse what providers refuse.

What a provider signed comes back to it byte for byte, in its order, and to nobody else: also where the provider changes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import permutations

import grpc
import httpx2
import pytest
import pytest_asyncio

from tests.e2e.conftest import READY, Gateway
from tests.e2e.tool_loops import Caller, ChatCaller, GrpcCaller
from tests.strict.upstream import PROTOCOLS, StrictUpstream

TURNS = 20
LEG = 2
"""Turns of one provider, before another goes on."""

WAYS = ("grpc", "chat", "grpc stored", "chat stored")

Start = Callable[[str], Caller]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict() -> AsyncIterator[StrictUpstream]:
    upstream = StrictUpstream()
    async with upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def start(strict: StrictUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Start]:
    """Yield a function that begins a conversation in one of the ways."""
    config = {
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        "models": {"default": f"anthropic/{strict.apis['anthropic'].model}"},
        "providers": strict.providers(),
        "sessions": {"automatic": True},
    }
    gateway = Gateway(tmp_path_factory.mktemp("strict"), config)
    await asyncio.to_thread(gateway.wait_for, READY)
    async with grpc.aio.insecure_channel(gateway.grpc) as channel, gateway.client() as http:
        yield lambda way: begin(way, channel, http)
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "call_failed" not in gateway.output_text, "the server had an unexpected exception"


def begin(way: str, channel: grpc.aio.Channel, http: httpx2.AsyncClient) -> Caller:
    stored = way.endswith("stored")
    return GrpcCaller(channel, stored=stored) if way.startswith("grpc") else ChatCaller(http, stored=stored)


@pytest.fixture(autouse=True)
def none_refused(strict: StrictUpstream) -> AsyncIterator[None]:
    """Assert that no request was refused. The message is what the upstream found."""
    strict.refused.clear()
    yield
    assert strict.refused == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_turns(strict: StrictUpstream, start: Start, protocol: str, way: str, stream: bool) -> None:
    """Each turn is accepted, with all turns before it as they were."""
    strict.by_chat(way == "chat")
    caller = start(way)
    before = strict.turns
    for number in range(TURNS):
        await caller.turn(f"{protocol}/{strict.apis[protocol].model}", number, stream=stream)
    assert strict.turns - before == TURNS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("first", "second"), list(permutations(PROTOCOLS, 2)))
async def test_the_provider_changes(strict: StrictUpstream, start: Start, first: str, second: str, way: str) -> None:
    """Another provider goes on, and then the first one again, with what is its own."""
    strict.by_chat(way == "chat")
    caller = start(way)
    legs = [first] * LEG + [second] * LEG + [first] * LEG
    before = strict.turns
    for number, protocol in enumerate(legs):
        await caller.turn(f"{protocol}/{strict.apis[protocol].model}", number, stream=bool(number % 2))
    assert strict.turns - before == len(legs)
