"""The OpenAI SDK, answered by providers of other protocols: `llmock` speaks theirs, written by others."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer
from openai import AsyncOpenAI

from tests.e2e.conftest import READY, Gateway
from tests.e2e.test_openai_sdk import HELLO, WEATHER
from tests.vertex_paths import VertexPaths

PROTOCOLS = ("anthropic", "cohere", "gemini", "openai-responses", "vertex")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLMockServer]:
    server = LLMockServer()
    server.app.add_middleware(VertexPaths)
    with server:
        yield server


@pytest.fixture(scope="module")
def gateway(llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    providers = {
        protocol: {
            "protocol": protocol,
            "base_url": f"{llm.url}/vertex" if protocol == "vertex" else llm.base_url(protocol.removesuffix("-responses")),
            "api_key_env": "TEST_PROVIDER_KEY",
        }
        for protocol in PROTOCOLS
    }
    folder: Path = tmp_path_factory.mktemp("protocols")
    keys = [{"name": "test", "key_env": "TEST_KEY"}]
    models = {"default": f"{PROTOCOLS[0]}/some-model"}
    routing = {"attempts": 1, "breaker": {"consecutive": 1_000_000, "of": 1_000_000}}  # each test is about one failure
    gateway = Gateway(folder, {"auth": {"keys": keys}, "models": models, "providers": providers, "routing": routing})
    gateway.wait_for(READY)
    yield gateway
    assert gateway.stop() == 0


@pytest.fixture
async def sdk(gateway: Gateway, llm: LLMockServer) -> AsyncIterator[AsyncOpenAI]:
    llm.state.scenarios.clear()
    async with gateway.sdk() as client:
        yield client


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_stream_and_create_agree(sdk: AsyncOpenAI, llm: LLMockServer, protocol: str) -> None:
    """A stream has the same text as a whole reply, in pieces, and usage at the end."""
    text = 'One "two" three: four, שלום 🎼 five. \u2028 six\n\nseven'
    llm.state.scenarios.add(Reply(text=text, times=2))
    model = f"{protocol}/some-model"
    stream = await sdk.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert [chunk.usage is not None for chunk in chunks].count(True) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens > 0
    reply = await sdk.chat.completions.create(model=model, messages=HELLO)
    assert reply.choices[0].message.content == text
    assert reply.usage is not None
    assert reply.usage.total_tokens > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_turn_with_tools(sdk: AsyncOpenAI, llm: LLMockServer, protocol: str, stream: bool) -> None:
    """Two calls arrive, their results go back in the provider's form, and it answers."""
    model = f"{protocol}/some-model"
    calls = (ToolCall("get_weather", {"city": "Paris"}), ToolCall("get_weather", {"city": "Oslo"}))
    llm.state.scenarios.add(Reply(tool_calls=calls))
    if stream:
        async with sdk.chat.completions.stream(model=model, messages=HELLO, tools=WEATHER) as events:
            choice = (await events.get_final_completion()).choices[0]
    else:
        choice = (await sdk.chat.completions.create(model=model, messages=HELLO, tools=WEATHER)).choices[0]
    assert choice.finish_reason == "tool_calls"
    made = choice.message.tool_calls or []
    assert [call.function.name for call in made if call.type == "function"] == ["get_weather"] * 2
    assert ["Paris" in made[0].function.arguments, "Oslo" in made[1].function.arguments] == [True, True]  # type: ignore[union-attr]
    assert len({call.id for call in made}) == 2
    llm.state.scenarios.add(Reply(text="Both are sunny."))
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in made]
    again = [*HELLO, choice.message.model_dump(exclude_none=True), *results]
    reply = await sdk.chat.completions.create(model=model, messages=again, tools=WEATHER)
    assert reply.choices[0].message.content == "Both are sunny."


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_failures(sdk: AsyncOpenAI, llm: LLMockServer, protocol: str) -> None:
    """A refusal has the status that it has elsewhere, with the time to wait."""
    model = f"{protocol}/some-model"
    llm.state.scenarios.add(Fail(status=429, retry_after=7))
    with pytest.raises(openai.RateLimitError) as limited:
        await sdk.chat.completions.create(model=model, messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", ["disconnect", "truncate", "malformed"])
async def test_a_broken_stream(sdk: AsyncOpenAI, llm: LLMockServer, protocol: str, fault: str) -> None:
    """A stream that breaks never ends cleanly."""
    model = f"{protocol}/some-model"
    llm.state.scenarios.add(Reply(text="One two three four five six seven eight nine ten"))
    llm.state.scenarios.add(StreamFault(fault, after_chunks=3))  # type: ignore[arg-type]
    with pytest.raises(openai.APIError):
        async for _ in await sdk.chat.completions.create(model=model, messages=HELLO, stream=True):
            pass
