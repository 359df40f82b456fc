"""The contract of every provider: one suite for every protocol, with an upstream for those that need one.

That is `llmock`, which others wrote. It does not speak Bedrock's protocol, whose upstream checks requests by AWS's description.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from llmock.scenarios import Reply, StreamFault, ToolCall
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer
from msgspec.structs import replace

from antiphon import domain
from antiphon.chat.prices import Prices
from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    Started,
    TextDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.domain.warnings import Treatment, Warnings
from antiphon.providers.anthropic.provider import AnthropicProvider
from antiphon.providers.base import Provider
from antiphon.providers.bedrock.provider import BedrockProvider
from antiphon.providers.cohere.provider import CohereProvider
from antiphon.providers.echo import EchoProvider
from antiphon.providers.gemini.provider import GeminiProvider
from antiphon.providers.registry import PROTOCOLS, build
from antiphon.providers.responses.provider import ResponsesProvider
from antiphon.providers.vertex.provider import VertexProvider
from tests.converse import ConverseUpstream, in_thread
from tests.odd_upstream import OddUpstream, answer
from tests.unit.framing import check, without_early_usage, without_frames
from tests.vertex_paths import VertexPaths

STOPPED = {"anthropic": "end_turn", "bedrock": "end_turn", "cohere": "COMPLETE", "gemini": "STOP", "responses": "completed"}
"""By protocol: the word for a reply that ended by itself, if it is not "stop"."""

TOOL = Tool("find", "finds", {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})


@pytest.fixture(scope="module")
def llmock() -> Iterator[LLMockServer]:
    server = LLMockServer(responses=MockResponseSettings(response_style="echo"))
    server.app.add_middleware(VertexPaths)
    with server:
        yield server


@pytest.fixture
def converse() -> Iterator[ConverseUpstream]:
    with in_thread(ConverseUpstream()) as server:
        yield server
    assert server.refused == []


def config(protocol: str, llmock: LLMockServer, converse: ConverseUpstream) -> ProviderConfig:
    if protocol == "bedrock":
        return ProviderConfig(protocol=protocol, base_url=converse.url, api_key_env="KEY")
    if protocol == "echo":
        return ProviderConfig(protocol="echo", token_delay=0.001)
    if protocol == "vertex":
        return ProviderConfig(protocol=protocol, base_url=f"{llmock.url}/vertex", api_key_env="KEY")
    return ProviderConfig(protocol=protocol, base_url=llmock.base_url(protocol.removesuffix("-responses")), api_key_env="KEY")


def test_every_protocol_is_here(llmock: LLMockServer) -> None:
    """The suite covers every protocol that can be configured."""
    assert set(PROTOCOLS) == {
        "anthropic",
        "bedrock",
        "cohere",
        "echo",
        "gemini",
        "openai",
        "openai-by-model",
        "openai-responses",
        "vertex",
    }


@pytest.fixture(params=["anthropic", "bedrock", "cohere", "echo", "gemini", "openai", "openai-responses", "vertex"])
async def provider(request: pytest.FixtureRequest, llmock: LLMockServer, converse: ConverseUpstream) -> AsyncIterator[Provider]:
    llmock.state.scenarios.clear()
    made = build("acme", config(request.param, llmock, converse), {"KEY": "sk-test"})
    yield made
    await made.close()


@pytest.fixture
async def endless(provider: Provider, llmock: LLMockServer, converse: ConverseUpstream) -> Provider:
    """Return the provider; its next stream sends something and then nothing for a long time."""
    if isinstance(provider, BedrockProvider):
        converse.stalls = True
        return provider
    if not isinstance(provider, EchoProvider):
        llmock.state.scenarios.add(StreamFault("stall", after_chunks=2, stall_seconds=20))
        return provider
    return build("acme", ProviderConfig(protocol="echo", token_delay=20), {})


def ask(*, stream: bool = True, text: str = "How are you  today?", **fields: object) -> ChatRequest:
    return ChatRequest("gpt-4o-mini", (Message(Role.USER, (Text(text),)),), stream=stream, **fields)  # type: ignore[arg-type]


async def read(provider: Provider, request: ChatRequest) -> list[Batch]:
    batches = [batch async for batch in provider.stream(request)]
    assert all(batches), "no batch is empty"
    return batches


def text(batches: list[Batch], choice: int = 0) -> str:
    events = [event for batch in batches for event in batch]
    blocks = {event.block for event in events if isinstance(event, BlockStarted) and event.choice == choice}
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.block in blocks)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_order_of_events(provider: Provider, stream: bool) -> None:
    """Events start once, have text, report usage last, and end each choice last."""
    batches = await read(provider, ask(stream=stream))
    events = [event for batch in batches for event in batch]
    check(events)
    started, *content, usage, finished = without_early_usage(without_frames(events))
    assert isinstance(started, Started)
    assert started.origin.provider == "acme"
    assert started.id
    assert started.model
    assert started.created > 1_600_000_000
    assert content
    assert {type(event) for event in content} - {ExtraFields, BlockFinished} == {TextDelta}
    assert isinstance(usage, Usage)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0
    assert finished == Finished(0, FinishReason.STOP, STOPPED.get(started.origin.protocol, "stop"))
    assert stream or len(batches) == 1  # reads of a stream that come together are one batch, too


async def test_stream_and_whole_agree(provider: Provider) -> None:
    """The pieces of a stream add up to the whole reply."""
    streamed, whole = await read(provider, ask()), await read(provider, ask(stream=False))
    assert text(streamed) == text(whole)
    assert "How are you" in text(whole)


PRICED = {
    "anthropic": "claude-sonnet-4-5",
    "cohere": "command-r-plus-08-2024",
    "gemini": "gemini-2.5-pro",
    "openai": "gpt-4o",
    "openai-responses": "gpt-4o",
}


@pytest.mark.parametrize("protocol", PRICED)
async def test_a_stream_costs_what_a_whole_reply_does(protocol: str, llmock: LLMockServer, converse: ConverseUpstream) -> None:
    """The same reply has the same tokens and the same price, streamed and whole."""
    name = protocol.removesuffix("-responses")
    made = build(name, config(protocol, llmock, converse), {"KEY": "sk-test"})
    request = replace(ask(), model=PRICED[protocol])
    costs = []
    for stream in (True, False):
        events = [event for batch in await read(made, replace(request, stream=stream)) for event in batch]
        used = [event for event in events if isinstance(event, Usage)][-1]
        costs.append(Prices({}, {name: None}).cost(name, request.model, used))
    assert costs[0] == costs[1]
    assert costs[0]
    await made.close()


async def test_choices(provider: Provider) -> None:
    """Every requested choice has text and an end, or there is one: with a warning, or as the API made no more."""
    if isinstance(provider, AnthropicProvider | BedrockProvider | CohereProvider | ResponsesProvider):
        seen: list[Warnings] = []
        batches = [batch async for batch in provider.stream(ask(sampling=Sampling(choices=2)), seen.append)]
        assert text(batches, 0)
        assert not text(batches, 1)
        ((warning,),) = seen
        assert (warning.path, warning.treatment) == (("sampling", "choices"), Treatment.DROPPED)
        return
    if isinstance(provider, GeminiProvider | VertexProvider):  # for which llmock makes one choice alone
        for stream in (True, False):
            batches = await read(provider, ask(stream=stream, sampling=Sampling(choices=2)))
            assert text(batches, 0)
            assert [event.choice for event in batches[-1] if isinstance(event, Finished)] == [0]
        return
    batches = await read(provider, ask(sampling=Sampling(choices=2)))
    assert text(batches, 0)
    assert text(batches, 1)
    assert [event.choice for event in batches[-1] if isinstance(event, Finished)] == [0, 1]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_tool_calls(provider: Provider, llmock: LLMockServer, stream: bool) -> None:
    """A tool call has its id and name once, and JSON arguments."""
    llmock.state.scenarios.add(Reply(tool_calls=(ToolCall("find", {"q": "x"}),)))
    choice = ToolChoice(ToolChoiceMode.TOOL, "find")
    batches = await read(provider, ask(stream=stream, text="x", tools=(TOOL,), tool_choice=choice))
    events = [event for batch in batches for event in batch]
    check(events)
    (call,) = [event.value for event in events if isinstance(event, BlockStarted)]
    assert isinstance(call, domain.ToolCall)
    assert call.id
    assert call.name == "find"
    assert "".join(event.text for event in events if isinstance(event, InputDelta)).replace(" ", "") == '{"q":"x"}'
    last = batches[-1][-1]
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("protocol", ["anthropic", "gemini", "openai", "openai-responses"])
async def test_models_are_listed(protocol: str, llmock: LLMockServer, converse: ConverseUpstream) -> None:
    """The models that the upstream lists are read, by the names that requests use."""
    made = build("acme", config(protocol, llmock, converse), {"KEY": "sk-test"})
    found = await made.list_models()
    assert found
    assert all(model.name and "/" not in model.name for model in found)
    begin = {"anthropic": "claude-", "gemini": "gemini-"}.get(protocol, "gpt-")
    assert any(model.name.startswith(begin) for model in found)
    await made.close()


async def test_cohere_lists_models(llmock: LLMockServer) -> None:
    """Cohere's list, which llmock has at another path, is asked for with its parameters, page by page."""
    async with OddUpstream() as upstream:
        first = "/v1/models?page_size=1000&endpoint=chat"
        upstream.paths = {
            first: [answer({"models": [{"name": "a", "endpoints": ["chat"]}], "next_page_token": "t"})],
            f"{first}&page_token=t": [answer({"models": [{"name": "b", "endpoints": ["chat"]}]})],
        }
        base_url = upstream.base_url.removesuffix("/v1")
        made = build("acme", ProviderConfig(protocol="cohere", base_url=base_url, api_key_env="KEY"), {"KEY": "sk-test"})
        assert [model.name for model in await made.list_models() or ()] == ["a", "b"]
        await made.close()


async def test_echo_has_no_list() -> None:
    """A protocol without an upstream has no list."""
    assert await build("acme", ProviderConfig(protocol="echo"), {}).list_models() is None


async def test_many_at_once(provider: Provider) -> None:
    """Concurrent calls do not mix."""
    texts = [f"number {number}" for number in range(20)]
    replies = await asyncio.gather(*(read(provider, ask(text=one)) for one in texts))
    for one, reply in zip(texts, replies, strict=True):
        assert text(reply).endswith(one)


async def test_closing_in_the_middle(endless: Provider) -> None:
    """Closing the generator ends it at once and leaves no task."""
    tasks = asyncio.all_tasks()
    stream = endless.stream(ask())
    await anext(stream)
    async with asyncio.timeout(5):
        await stream.aclose()
    assert asyncio.all_tasks() <= tasks
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_cancelling_in_the_middle(endless: Provider) -> None:
    """Cancelling the waiting task ends it at once and leaves no task."""
    tasks = asyncio.all_tasks()
    has_begun = asyncio.Event()

    async def call() -> None:
        async for _ in endless.stream(ask()):
            has_begun.set()

    task = asyncio.create_task(call())
    await has_begun.wait()
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() <= tasks


async def test_a_stream_that_is_not_begun(provider: Provider) -> None:
    """A generator that was never started makes no request, and can be closed."""
    await provider.stream(ask()).aclose()


async def test_closing_a_provider_twice(provider: Provider) -> None:
    """A provider may be closed twice, and before its first call."""
    await provider.close()
    await provider.close()
