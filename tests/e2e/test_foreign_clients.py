"""Clients of the OpenAI API, answered by providers of other protocols that refuse what the real ones would refuse."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from antiphon.providers.registry import PROTOCOLS
from tests.e2e.conftest import KEY, READY, Gateway
from tests.e2e.openai_requests import ANSWER, CONVERSATIONS, HELLO, OPTIONS, PDF, TOOLS, Answer, Counts, Node, Pet, result, tool
from tests.odd_upstream import CUT, HANG
from tests.strict.reply import Called, Failure, Reply, Said, Thought
from tests.strict.upstream import StrictUpstream

MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "us.anthropic.claude-sonnet-4-5-v1:0",
    "cohere": "command-a-03-2025",
    "gemini": "gemini-3-pro",
    "openai-responses": "gpt-4.1",
}
"""By protocol: a model. What the five accept differs most between these."""

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"
SIGNATURE = "c2ln+/8="
HELLO_THERE = Reply((Said("Hello there, friend."),))


class Provider:
    """One of the providers behind the gateway."""

    def __init__(self, protocol: str, upstream: StrictUpstream) -> None:
        self.protocol = protocol
        self.upstream = upstream
        self.api = upstream.apis[protocol]
        self.model = f"{protocol}/{MODELS[protocol]}"
        self.refused: list[str] = []

    def script(self, *answers: Any) -> None:
        """Set the next answers, and keep why earlier requests were refused."""
        self.refused += self.upstream.refused
        self.upstream.answer_next(*answers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def providers() -> AsyncGenerator[dict[str, Provider], None]:
    async with AsyncExitStack() as stack:
        yield {protocol: Provider(protocol, await stack.enter_async_context(StrictUpstream(in_loop=False))) for protocol in MODELS}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(providers: dict[str, Provider], tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gateway, None]:
    configured = {protocol: one.upstream.providers()[protocol] for protocol, one in providers.items()}
    keys = [{"name": "test", "key_env": "TEST_KEY"}]
    routing = {"attempts": 1, "breaker": {"consecutive": 1_000_000, "of": 1_000_000}}  # each answer is for one call
    config = {"auth": {"keys": keys}, "models": {"default": "anthropic/x"}, "providers": configured, "routing": routing}
    started = Gateway(tmp_path_factory.mktemp("foreign"), config)
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sdk(gateway: Gateway) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    async with gateway.sdk() as made:
        yield made


@pytest.fixture(params=MODELS)
def provider(request: pytest.FixtureRequest, providers: dict[str, Provider]) -> Iterator[Provider]:
    """Yield a provider, all requests to which must be such that the real one would take them."""
    found = providers[request.param]
    found.refused.clear()
    found.script()
    yield found
    assert found.refused + found.upstream.refused == []


def test_every_protocol_is_here() -> None:
    """A new protocol has to be added. Vertex speaks two of these, and `openai` is that of the clients themselves."""
    assert MODELS.keys() == PROTOCOLS.keys() - {"echo", "openai", "openai-by-model", "vertex"}


async def test_texts(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """Whole, raw and streamed replies are the same, with usage."""
    chat = sdk.chat.completions
    provider.script(*[HELLO_THERE] * 3)
    reply = await chat.create(model=provider.model, messages=HELLO)
    assert reply.choices[0].message.content == "Hello there, friend."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    raw = await chat.with_raw_response.create(model=provider.model, messages=HELLO, stream=False)
    assert raw.parse().usage == reply.usage
    assert raw.headers["x-request-id"]
    stream = await chat.create(model=provider.model, messages=HELLO, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there, friend."
    assert (chunks[-1].choices, chunks[-1].usage) == ([], reply.usage)
    provider.script(Reply((Said("Hel"),), is_cut=True))
    assert (await chat.create(model=provider.model, messages=HELLO)).choices[0].finish_reason == "length"


async def each(provider: Provider, requests: dict[str, dict[str, Any]], sdk: openai.AsyncOpenAI) -> None:
    """Send requests, and fail with the names of those that were refused."""
    refused = {}
    for name, request in requests.items():
        try:
            await sdk.chat.completions.create(**{"model": provider.model, "messages": HELLO, **request})
        except openai.APIError as error:
            refused[name] = error.message
    assert refused == {}


async def test_conversations(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """Whatever the OpenAI API accepts is brought into the provider's form."""
    requests = {}
    for name, messages in CONVERSATIONS.items():
        requests[name] = {"messages": messages} | ({"tools": [tool()]} if "tool_calls" in json.dumps(messages) else {})
    await each(provider, requests, sdk)


async def test_documents(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """A PDF is sent, or refused with a reason where there is no place for it."""
    file = {"type": "file", "file": {"filename": "my_file.v2.pdf", "file_data": PDF}}
    call = sdk.chat.completions.create(model=provider.model, messages=[{"role": "user", "content": [file]}])  # type: ignore[list-item,misc]
    if provider.protocol == "cohere":
        with pytest.raises(openai.BadRequestError, match="Document"):
            await call
        return
    await call
    assert "JVBERi0xLjQ=" in json.dumps(provider.upstream.bodies)


async def test_options(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """What a provider lacks is mapped or left out."""
    await each(provider, {" ".join(options): options for options in OPTIONS}, sdk)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_turn_with_tools(sdk: openai.AsyncOpenAI, provider: Provider, stream: bool) -> None:
    """Thoughts, two calls and their results go both ways; signatures come back byte for byte."""
    thinks = provider.protocol != "openai-responses"
    thought = (Thought("I look.", SIGNATURE),) if thinks else ()
    calls = (Called("call_1", "get_weather", {"city": "Oslo"}), Called("call_2", "now", {}))
    provider.script(Reply((*thought, Said("Let me look."), *calls)), Reply((Said("Done."),)))
    more: Any = {"tools": [tool(), tool("now", {"type": "object", "properties": {}})]}
    if thinks:
        more["reasoning_effort"] = "low"
    if stream:
        async with sdk.chat.completions.stream(model=provider.model, messages=HELLO, **more) as events:
            choice: Any = (await events.get_final_completion()).choices[0]
    else:
        choice = (await sdk.chat.completions.create(model=provider.model, messages=HELLO, **more)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("now", {}),
    ]
    back = [result(call.id) for call in choice.message.tool_calls]
    again = [*HELLO, choice.message.model_dump(exclude_none=True), *back]
    reply = await sdk.chat.completions.create(model=provider.model, messages=again, **more)
    assert reply.choices[0].message.content == "Done."
    if provider.protocol in ("anthropic", "bedrock", "gemini"):
        assert SIGNATURE in json.dumps(provider.upstream.bodies[-1])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_parsed_answers(sdk: openai.AsyncOpenAI, provider: Provider, stream: bool) -> None:
    """The SDK's `parse` and its stream helper return objects."""
    provider.script(Reply((Said(ANSWER),)))
    if stream:
        async with sdk.chat.completions.stream(model=provider.model, messages=HELLO, response_format=Answer) as events:
            parsed = (await events.get_final_completion()).choices[0].message.parsed
    else:
        reply = await sdk.chat.completions.parse(model=provider.model, messages=HELLO, response_format=Answer)
        parsed = reply.choices[0].message.parsed
    assert parsed == Answer.model_validate_json(ANSWER)


async def test_schemas(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """A schema that a provider cannot enforce is told to the model instead, so that it is in the request anyhow."""
    for kind in (Node, Pet, Counts, Answer):
        form = {"type": "json_schema", "json_schema": {"name": "my form", "schema": kind.model_json_schema()}}
        for more in ({}, {"tools": [tool()]}):
            await each(provider, {kind.__name__: {"response_format": form, **more}}, sdk)
            sent = json.dumps(provider.upstream.bodies[-1])
            assert all(name in sent for name in kind.model_fields)


async def test_schemas_of_tools(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """Tools of other frameworks are offered in the form that the provider accepts."""
    await each(provider, {name: {"tools": [tool(parameters=schema)]} for name, schema in TOOLS.items()}, sdk)


async def test_names_of_tools(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """A name that a provider refuses is replaced, and put back in the reply."""
    for name in ("files.read", "1st tool", "-x", "grüße", "x" * 100):
        choice: Any = {"type": "function", "function": {"name": name}}
        provider.script()
        await sdk.chat.completions.create(model=provider.model, messages=HELLO, tools=[tool(name)], tool_choice=choice)
        (request,) = provider.upstream.bodies
        (sent,) = set(names_in(request.get("tools") or request["toolConfig"]["tools"]))
        provider.script(Reply((Called("c1", sent, {"city": "Oslo"}),)))
        reply: Any = await sdk.chat.completions.create(model=provider.model, messages=HELLO, tools=[tool(name)])
        assert [call.function.name for call in reply.choices[0].message.tool_calls] == [name]


def names_in(value: Any) -> Any:
    """Yield the values of all fields that are called `name`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "name" and isinstance(inner, str):
                yield inner
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


async def test_failures(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """Errors have the SDK's classes, whole and streamed; one within a stream is never a clean end."""
    chat = sdk.chat.completions
    for stream in (False, True):
        provider.script(Failure(429, headers=("retry-after: 3",)), Failure(400, "bad thing"), Failure(529), Failure(500))
        with pytest.raises(openai.RateLimitError) as limited:
            await chat.create(model=provider.model, messages=HELLO, stream=stream)
        assert limited.value.response.headers["retry-after"] == "3"
        with pytest.raises(openai.BadRequestError, match="bad thing"):
            await chat.create(model=provider.model, messages=HELLO, stream=stream)
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                await chat.create(model=provider.model, messages=HELLO, stream=stream)
    reply = Reply((Said("Hello."), Called("c1", "get_weather", {"city": "Oslo"})))
    count = len(provider.api.pieces(reply))
    for answer in (*(Failure(500, after=number) for number in (1, 4)), *((reply, number, CUT) for number in range(1, count, 3))):
        provider.script(answer)
        with pytest.raises(openai.APIError):
            async for _ in await chat.create(model=provider.model, messages=HELLO, stream=True, tools=[tool()]):
                pass


async def test_leaving(sdk: openai.AsyncOpenAI, provider: Provider) -> None:
    """A client that leaves a stream ends the provider's call at once."""
    reply = Reply((Said("one two three four five six"),))
    provider.script((reply, len(provider.api.pieces(reply)) - 5, HANG))
    stream = await sdk.chat.completions.create(model=provider.model, messages=HELLO, stream=True)
    await anext(aiter(stream))
    left = provider.upstream.left
    while not left.empty():
        left.get_nowait()
    await stream.close()
    async with asyncio.timeout(0.5):  # 10 ms where nothing else runs
        await left.get()


class Place(BaseModel):
    """A place."""

    city: str
    degrees: int | None = None


@pytest.fixture
def langchain(gateway: Gateway, provider: Provider) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=gateway.url, api_key=SecretStr(KEY), model=provider.model, max_retries=0, temperature=0.7, timeout=20
    )


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
async def test_structured_output_of_langchain(langchain: ChatOpenAI, provider: Provider, method: Any) -> None:
    """Each of its methods returns the object."""
    said = Said('{"city": "Oslo", "degrees": null}')
    provider.script(Reply((Called("c1", "Place", {"city": "Oslo"}) if method == "function_calling" else said,)))
    chain = langchain.with_structured_output(Place, method=method)
    assert await chain.ainvoke("Where? In json.") == Place(city="Oslo")


async def test_tools_of_langchain(langchain: ChatOpenAI, provider: Provider) -> None:
    """An agent's turn: a streamed call, a failed result, and the answer, with and without the tools."""
    provider.script(Reply((Said("Let me look."), Called("c1", "get_weather", {"city": "Oslo"}))), HELLO_THERE, HELLO_THERE)
    bound = langchain.bind_tools([tool()], tool_choice="any", parallel_tool_calls=False)
    asked = [SystemMessage("Be brief."), HumanMessage("Weather?")]
    together: Any = None
    async for piece in bound.astream(asked):
        together = piece if together is None else together + piece
    assert [(call["name"], call["args"]) for call in together.tool_calls] == [("get_weather", {"city": "Oslo"})]
    failed = ToolMessage("It failed.", tool_call_id=together.tool_calls[0]["id"], status="error")
    for model in (langchain.bind_tools([tool()]), langchain):
        reply = await model.ainvoke([*asked, AIMessage(together.content, tool_calls=together.tool_calls), failed])
        assert reply.content == "Hello there, friend."
        assert reply.usage_metadata is not None  # type: ignore[attr-defined]


AI = """
import { generateObject, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const { URL: baseURL, KEY: apiKey, MODEL } = process.env;
const model = createOpenAICompatible({ name: "antiphon", baseURL, apiKey, supportsStructuredOutputs: true })(MODEL);
const properties = { city: { type: "string" } };
const schema = jsonSchema({ type: "object", properties, required: ["city"], additionalProperties: false });
const execute = async ({ city }) => { if (city === "Oslo") throw new Error("no answer"); return { weather: "sunny" }; };
const tools = { get_weather: tool({ description: "The weather", inputSchema: schema, execute }) };
const errors = [];
const onError = ({ error }) => errors.push(String(error));
const stream = streamText({ model, prompt: "Weather?", tools, stopWhen: stepCountIs(3), maxRetries: 0, onError });
const text = await stream.text;
const steps = (await stream.steps).length;
if (errors.length) throw new Error(errors.join());
const { object } = await generateObject({ model, schema, prompt: "Where? In json.", maxRetries: 0 });
console.log("\\n" + JSON.stringify([text, steps, object]));
"""


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_ai(gateway: Gateway, provider: Provider) -> None:
    """Vercel's `ai` runs its tools, of which one fails, streams the answer, and generates an object."""
    if not (CLIENTS / "ai").exists():
        pytest.skip("there is no Node")
    calls = (Called("c1", "get_weather", {"city": "Oslo"}), Called("c2", "get_weather", {"city": "Rome"}))
    provider.script(Reply((Said("Let me look."), *calls)), Reply((Said("It is sunny."),)), Reply((Said('{"city": "Rome"}'),)))
    environment = {"PATH": os.environ["PATH"], "URL": gateway.url, "KEY": KEY, "MODEL": provider.model}
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "--eval", AI),
        cwd=CLIENTS / "ai",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert json.loads(output.splitlines()[-1]) == ["It is sunny.", 2, {"city": "Rome"}]
