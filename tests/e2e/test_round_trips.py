"""Twenty turns of tool calls with thinking between them, by each way to call, against upstreams that refuse what providers refuse.

What a provider signed comes back to it byte for byte, in its order, and to nobody else: also where the provider changes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import pairwise, permutations
from pathlib import Path

import grpc
import httpx2
import openai
import pytest
import pytest_asyncio

from antiphon.v1 import message_pb2
from tests.e2e.conftest import READY, Gateway
from tests.e2e.tool_loops import Caller, ChatCaller, GrpcCaller, PlainCaller, SdkCaller
from tests.strict.upstream import PROTOCOLS, StrictUpstream

TURNS = 20
LEG = 2
"""Turns of one provider, before another goes on."""

WAYS = ("grpc", "chat", "plain", "sdk", "grpc stored", "chat stored")

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
    async with grpc.aio.insecure_channel(gateway.grpc) as channel, gateway.client() as http, gateway.sdk() as sdk:
        yield lambda way: begin(way, channel, http, sdk)
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "call_failed" not in gateway.output_text, "the server had an unexpected exception"


def begin(way: str, channel: grpc.aio.Channel, http: httpx2.AsyncClient, sdk: openai.AsyncOpenAI) -> Caller:
    match way.split():
        case ["grpc", *stored]:
            return GrpcCaller(channel, stored=bool(stored))
        case ["chat", *stored]:
            return ChatCaller(http, stored=bool(stored))
        case ["plain"]:
            return PlainCaller(http, stored=False)
        case _:
            return SdkCaller(sdk)


@pytest.fixture(autouse=True)
def none_refused(strict: StrictUpstream) -> Iterator[None]:
    """Assert that no request was refused. The message is what the upstream found."""
    strict.refused.clear()
    yield
    assert strict.refused == []


@pytest.mark.parametrize("way", ["grpc", "chat", "grpc stored", "chat stored"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_turns(strict: StrictUpstream, start: Start, protocol: str, way: str) -> None:
    """Each turn is accepted, streamed or whole, with all turns before it as they were."""
    await converse(strict, start(way), way, [protocol] * TURNS, lambda number: number % 3 > 0)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_turns_of_one_kind(strict: StrictUpstream, start: Start, protocol: str, way: str, stream: bool) -> None:
    """So is each turn where all are streamed, or none is."""
    await converse(strict, start(way), way, [protocol] * TURNS, lambda _: stream)


@pytest.mark.parametrize("way", WAYS)
async def test_the_provider_changes(strict: StrictUpstream, start: Start, way: str) -> None:
    """In one conversation, each provider goes on after each other one, with what is its own of all turns before."""
    path = all_pairs(PROTOCOLS)
    assert set(pairwise(path)) == set(permutations(PROTOCOLS, 2))
    await converse(strict, start(way), way, path, lambda number: number % 3 > 0)


@pytest.mark.parametrize("way", WAYS)
async def test_the_model_changes(strict: StrictUpstream, start: Start, way: str) -> None:
    """Of one provider, which signs by model: another model goes on without signatures, and the first one again with its own."""
    caller = start(way)
    strict.expect(by_chat=way in ("chat", "plain", "sdk"), drops=way == "plain")
    path = [*["gemini-3-pro"] * LEG, *["gemini-3-flash"] * LEG, "gemini-3-pro", "gemini-3-flash"]
    before = strict.turns
    for number, model in enumerate(path):
        await caller.turn(f"gemini/{model}", number, stream=number % 2 > 0)
    assert strict.turns - before == len(path)


async def test_the_only_provider(strict: StrictUpstream, tmp_path: Path) -> None:
    """Its signatures come as they are, if it speaks chat completions itself, and go back to it."""
    config = {
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        "models": {"default": f"openrouter/{strict.apis['openrouter'].model}"},
        "providers": {"openrouter": strict.providers()["openrouter"]},
    }
    gateway = Gateway(tmp_path, config)
    await asyncio.to_thread(gateway.wait_for, READY)
    async with gateway.client() as http:
        caller = ChatCaller(http, stored=False)
        await converse(strict, caller, "chat", ["openrouter"] * 6, lambda number: number % 2 > 0)
    assert await asyncio.to_thread(gateway.stop) == 0
    details = [entry for message in caller.messages for entry in message.get("reasoning_details", ())]
    found = [entry.get("signature", entry.get("data")) for entry in details]
    assert len(found) >= 6
    assert set(found) <= strict.apis["openrouter"].issued


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("first", "second"), list(permutations(PROTOCOLS, 2)))
async def test_two_providers(strict: StrictUpstream, start: Start, first: str, second: str, way: str) -> None:
    """Another provider goes on, and then the first one again."""
    await converse(strict, start(way), way, [first] * LEG + [second] * LEG + [first] * LEG, lambda number: number % 2 > 0)


async def converse(
    strict: StrictUpstream, caller: Caller, way: str, path: Sequence[str], is_streamed: Callable[[int], bool]
) -> None:
    """Make a conversation, of which each turn is that of the protocol at its place in `path`."""
    strict.expect(by_chat=way in ("chat", "plain", "sdk"), drops=way == "plain")
    before = strict.turns
    for number, protocol in enumerate(path):
        await caller.turn(f"{protocol}/{strict.apis[protocol].model}", number, stream=is_streamed(number))
    assert strict.turns - before == len(path)


def all_pairs(names: Sequence[str]) -> list[str]:
    """Return a path in which each name follows each other one once: an Euler circuit, by Hierholzer's algorithm."""
    rest = {name: [other for other in names if other != name] for name in names}
    path, open_ = [], [names[0]]
    while open_:
        if rest[open_[-1]]:
            open_.append(rest[open_[-1]].pop())
        else:
            path.append(open_.pop())
    return path[::-1]


def change_signature(message: message_pb2.Message) -> None:
    """Change one character of the first opaque value."""
    block = next(block for block in message.blocks if block.state.opaque)
    block.state.opaque = ("B" if block.state.opaque[0] == "A" else "A") + block.state.opaque[1:]


def drop_signature(message: message_pb2.Message) -> None:
    """Remove the first opaque value."""
    next(block for block in message.blocks if block.state.opaque).state.opaque = ""


def swap(message: message_pb2.Message) -> None:
    """Exchange the first two blocks."""
    first, second, *others = message.blocks
    del message.blocks[:]
    message.blocks.extend([second, first, *others])


def change_arguments(message: message_pb2.Message) -> None:
    """Change what the model asked for."""
    message.blocks[-1].tool_call.arguments = '{"n": 99}'


CHANGES = {
    "anthropic": (change_signature, drop_signature, swap, change_arguments),
    "bedrock": (change_signature, drop_signature, swap, change_arguments),
    "cohere": (swap, change_arguments),
    "deepseek": (change_arguments,),
    "gemini": (change_signature, change_arguments),
    "openai-responses": (change_signature, drop_signature, change_arguments),
    "openrouter": (change_signature, change_arguments),
}
"""By protocol: changes of a turn that its upstream has to notice, as the gateway cannot, or may not, undo them."""


@pytest.mark.parametrize(
    ("protocol", "change"),
    [pytest.param(name, change, id=f"{name}-{change.__name__}") for name, changes in CHANGES.items() for change in changes],
)
async def test_a_changed_turn(
    strict: StrictUpstream, start: Start, protocol: str, change: Callable[[message_pb2.Message], None]
) -> None:
    """The upstreams notice what is wrong with a turn, and the caller gets their refusal."""
    strict.expect()
    caller = start("grpc")
    assert isinstance(caller, GrpcCaller)
    model = f"{protocol}/{strict.apis[protocol].model}"
    await caller.turn(model, 0, stream=True)
    await caller.turn(model, 1, stream=True)
    change(caller.messages[-1])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.turn(model, 2, stream=True)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert strict.refused
    strict.refused.clear()
