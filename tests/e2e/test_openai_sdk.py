"""The real OpenAI SDK, configured with only another base URL and key, against llmock."""

from collections.abc import Iterable
from typing import Any

import openai
import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.e2e.conftest import Gateway
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse

HELLO: Any = [{"role": "user", "content": "Say hello"}]
WEATHER: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


async def test_create(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """A reply has the provider's text, usage and finish reason."""
    llm.state.scenarios.add(Reply(text='Hello, "world" — שלום 🎼\n\u2028data: [DONE]'))
    reply = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert reply.choices[0].message.content == 'Hello, "world" — שלום 🎼\n\u2028data: [DONE]'
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert reply._request_id


async def test_stream_and_create_agree(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """A stream has the same text, in pieces, and usage in a last chunk if asked for."""
    text = "One two three: four, five. \u2028 six\n\nseven"
    llm.state.scenarios.add(Reply(text=text, times=2))
    stream = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    reply = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert reply.choices[0].message.content == text


async def test_tools(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """A tool call arrives, its result goes back, and the provider answers."""
    llm.state.scenarios.add(Reply(tool_calls=(ToolCall("get_weather", {"city": "Paris"}),)))
    reply = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, tools=WEATHER)
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments.replace(" ", "")) == ("get_weather", '{"city":"Paris"}')
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
    after = await sdk.chat.completions.create(model="gpt-4o", messages=[*HELLO, message, result], tools=WEATHER)
    assert after.choices[0].message.content


async def test_tools_streamed(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """The SDK's own accumulator assembles a streamed tool call."""
    llm.state.scenarios.add(Reply(tool_calls=(ToolCall("get_weather", {"city": "Paris, in the rain and in the sun"}),)))
    async with sdk.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=WEATHER) as stream:
        reply = await stream.get_final_completion()
    assert reply.choices[0].message.tool_calls is not None
    (call,) = reply.choices[0].message.tool_calls
    assert "in the rain and in the sun" in call.function.arguments
    assert reply.choices[0].finish_reason == "tool_calls"


def tool_call(index: int, **fields: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, **fields}])


CUSTOM = [
    tool_call(0, id="c1", type="custom", custom={"name": "run", "input": ""}),
    tool_call(0, custom={"input": "print("}),
    tool_call(0, custom={"input": "'\U0001f600')"}),
    delta(finish="tool_calls"),
]
FUNCTION_CALL = [
    delta(role="assistant", function_call={"name": "f", "arguments": ""}),
    delta(function_call={"arguments": '{"a"'}),
    delta(function_call={"arguments": ": 1}"}),
    delta(finish="function_call"),
]
CITATION = {"type": "url_citation", "url_citation": {"url": "https://x.test/", "title": "X", "start_index": 0, "end_index": 1}}
ANNOTATIONS = [
    delta("See", role="assistant"),
    delta(annotations=[CITATION]),
    delta(annotations=[CITATION]),
    {**delta(finish="stop"), "citations": ["https://x.test/"]},
]
SPOKEN = {
    "a custom tool call": (CUSTOM, [{"id": "c1", "type": "custom", "custom": {"name": "run", "input": "print('\U0001f600')"}}]),
    "a function call of 2023": (FUNCTION_CALL, {"name": "f", "arguments": '{"a": 1}'}),
    "annotations": (ANNOTATIONS, [CITATION, CITATION]),
}


def joined(pieces: Iterable[Any]) -> Any:
    """Join pieces of any number, as the gateway may split or combine the provider's."""
    found: Any = None
    for piece in pieces:
        match piece, found:
            case _, None:
                found = piece
            case dict(), dict():
                found = {name: joined((found.get(name), piece.get(name))) for name in {**found, **piece}}
            case str(), str():
                found += piece
            case [{"index": 0}], list():
                found = [joined((found[0], piece[0]))]
            case list(), list():
                found = [*found, *piece]
            case _:
                pass
    return found


@pytest.mark.parametrize(("name", "field"), list(zip(SPOKEN, ("tool_calls", "function_call", "annotations"), strict=True)))
async def test_what_a_provider_streams_reaches_the_sdk_and_comes_back(
    sdk: AsyncOpenAI, upstream: OddUpstream, name: str, field: str
) -> None:
    """Unusual fields reach the SDK, whole and in chunks, and go back to the provider unchanged."""
    events, expected = SPOKEN[name]
    upstream.script("odd-x", [head(), chunk(sse(*events, "[DONE]")), LAST])
    reply = await sdk.chat.completions.create(model="odd-x", messages=HELLO)
    (choice,) = reply.choices
    message = choice.message.model_dump(exclude_unset=True)
    assert message[field] == expected
    assert choice.finish_reason == events[-1]["choices"][0]["finish_reason"]
    assert message["content"] == ("See" if field == "annotations" else None)
    assert (reply.model_extra or {}).get("citations") == events[-1].get("citations")

    stream = await sdk.chat.completions.create(model="odd-x", messages=HELLO, stream=True)
    pieces = [one.model_dump(exclude_unset=True)["choices"][0]["delta"].get(field) async for one in stream]
    assert joined(pieces) == joined(one["choices"][0]["delta"].get(field) for one in events)

    await sdk.chat.completions.create(model="odd-x", messages=[*HELLO, message, *HELLO])
    message.pop("refusal")  # null in every reply; providers do not need it back
    assert upstream.requests[-1].json["messages"][1] == message


@pytest.mark.parametrize("name", SPOKEN)
async def test_a_session_sends_the_provider_its_own_replies(persona_gateway: Gateway, upstream: OddUpstream, name: str) -> None:
    """In a session, the provider gets its own earlier reply back unchanged before the new messages."""
    events, expected = SPOKEN[name]
    upstream.script("odd-x", [head(), chunk(sse(*events, "[DONE]")), LAST])
    async with persona_gateway.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model="odd-x", messages=HELLO)
        first_reply = raw.parse().choices[0].message.model_dump(exclude_none=True)
        session: Any = {"session_id": raw.headers["x-session-id"]}
        new: Any = [{"role": "tool", "tool_call_id": call["id"], "content": "Done"} for call in first_reply.get("tool_calls", ())]
        new.append({"role": "user", "content": "And?"})
        await sdk.chat.completions.create(model="odd-x", messages=new, extra_body=session)
    _, reply, *rest = upstream.requests[-1].json["messages"]
    assert rest == new
    assert {field: value for field, value in reply.items() if value is not None} == first_reply
    assert expected in first_reply.values()


async def test_parse_with_a_schema(sdk: AsyncOpenAI) -> None:
    """A schema reaches the provider, and its reply is parsed as an object of it."""

    class Invoice(BaseModel):
        number: str
        total: float

    reply = await sdk.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Invoice)
    assert isinstance(reply.choices[0].message.parsed, Invoice)


async def test_models(sdk: AsyncOpenAI) -> None:
    """The configured models are listed, one can be retrieved, and an unknown one is not found."""
    assert [model.id async for model in sdk.models.list()] == ["echo", "gpt-4o", "gpt-4o-mini", "lost"]
    assert (await sdk.models.retrieve("gpt-4o")).owned_by == "llmock"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("vendor/unknown")


async def test_no_model_means_the_default(sdk: AsyncOpenAI) -> None:
    """A null model means the default model, as documented."""
    reply = await sdk.chat.completions.create(model=None, messages=HELLO)  # type: ignore[call-overload]  # documented
    assert reply.model.startswith("gpt-4o-mini")


async def test_422(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """An invalid request raises the SDK's own class with the list of details, and the provider is not asked."""
    before = len(llm.state.journal.records())
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await sdk.chat.completions.create(model="gpt-4o", messages="Hello", temperature="hot")  # type: ignore[call-overload]
    body: Any = caught.value.response.json()
    assert [entry["loc"] for entry in body["detail"]] == [["body", "messages"], ["body", "temperature"]]
    assert all(set(entry) == {"loc", "msg", "type"} for entry in body["detail"])
    error: Any = caught.value.body
    assert error["message"].startswith("messages: ")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "messages", "invalid_request")
    assert len(llm.state.journal.records()) == before


async def test_401(sdk: AsyncOpenAI) -> None:
    """A bad key raises the SDK's own class with its header, before the body is looked at."""
    with pytest.raises(openai.AuthenticationError) as caught:
        await sdk.with_options(api_key="sk-wrong").chat.completions.create(model="gpt-4o", messages="wrong")  # type: ignore[call-overload]
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    error: Any = caught.value.body
    assert (error["message"], error["type"]) == (caught.value.response.json()["detail"], "authentication_error")
    assert error["message"] in caught.value.message


async def test_a_base_url_that_ends_in_v1(gateway: Gateway, llm: LLMockServer) -> None:
    """A base URL that ends in /v1, which most clients expect, works too."""
    async with gateway.sdk(base_url=f"http://{gateway.rest}/v1") as sdk:
        llm.state.scenarios.add(Reply(text="Hello you", times=2))
        reply = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert reply.choices[0].message.content == "Hello you"
        stream = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        assert "".join([one.choices[0].delta.content or "" async for one in stream if one.choices]) == "Hello you"
        assert "gpt-4o" in [model.id async for model in sdk.models.list()]
        assert (await sdk.models.retrieve("gpt-4o")).owned_by == "llmock"
        with pytest.raises(openai.AuthenticationError, match="key"):
            await sdk.with_options(api_key="sk-wrong").models.list()
        with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
            await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, temperature=7)


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_what_is_not_served_is_not_found(gateway: Gateway, base: str) -> None:
    """Paths that are not served raise the SDK's NotFoundError with a message."""
    async with gateway.sdk(base_url=f"http://{gateway.rest}{base}") as sdk:
        for call in (
            sdk.embeddings.create(model="x", input="y"),
            sdk.responses.create(model="x", input="y"),
            sdk.files.list(),
            sdk.models.retrieve("nothing"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                await call
            error: Any = caught.value.body
            assert error["message"]
            assert (error["type"], set(error)) == ("invalid_request_error", {"message", "type", "param", "code"})


TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens, says http://gpu.internal:8000 to sk-provider-secret.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", ["400 Bad Request", "413 Content Too Large", "422 Unprocessable Content", "200 OK"])
async def test_what_a_provider_refuses_of_a_request_is_the_callers_400(
    gateway: Gateway, upstream: OddUpstream, status: str, stream: bool
) -> None:
    """If the provider refuses a request as invalid, the caller gets its code and message as 400, without secrets or retries."""
    upstream.script("odd-long", [answer({"error": TOO_LONG}, status)])
    before = len(upstream.requests)
    async with gateway.sdk(max_retries=2) as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.chat.completions.create(model="odd-long", messages=HELLO, stream=stream)
    redacted = "This model's maximum context length is 8192 tokens, says [redacted] to [redacted]."
    assert caught.value.body == {**TOO_LONG, "message": redacted}
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == before + 1


async def test_a_refusal_in_the_middle_of_a_stream_is_the_same_object(sdk: AsyncOpenAI, upstream: OddUpstream) -> None:
    """In mid-stream the same error object comes as an event, because the status is already sent."""
    upstream.script("odd-late", [head(), chunk(sse(delta("Hel"), {"error": TOO_LONG})), LAST])
    stream = await sdk.chat.completions.create(model="odd-late", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert isinstance(caught.value.body, dict)
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "context_length_exceeded",
        "messages",
        "invalid_request_error",
    )


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fail(429, retry_after=7), 429, "rate_limit_error"),
        (Fail(400), 400, "invalid_request_error"),
        (Fail(401), 502, "server_error"),
        (Fail(403), 502, "server_error"),
        (Fail(500), 502, "server_error"),
        (Fail(503), 502, "server_error"),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_refuses_is_a_status(
    sdk: AsyncOpenAI, llm: LLMockServer, fault: Fail, status: int, kind: str, stream: bool
) -> None:
    """The provider's 429 and 400 are the caller's. Its other errors are 502, never a 401 for the caller."""
    llm.state.scenarios.add(fault)
    with pytest.raises(openai.APIStatusError) as caught:
        await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    error: Any = caught.value.body
    assert (error["type"], set(error)) == (kind, {"message", "type", "param", "code"})
    headers = caught.value.response.headers
    if status == 429:
        assert headers["retry-after"] == "7"
    assert headers.get("x-should-retry") == ("false" if fault.status in (400, 401, 403) else None)


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_raises_in_the_sdk(sdk: AsyncOpenAI, llm: LLMockServer, kind: Any) -> None:
    """A stream that breaks in any way raises in the SDK after the text so far."""
    llm.state.scenarios.add(Reply(text="one two three four five six"))
    llm.state.scenarios.add(StreamFault(kind, after_chunks=4))
    stream = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    pieces = []
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            pieces.append(chunk.choices[0].delta.content or "")  # noqa: PERF401  # the text before the error
    assert "".join(pieces).startswith("one")
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == "provider_protocol"


async def test_a_provider_that_is_not_there(sdk: AsyncOpenAI) -> None:
    """An unreachable provider gives 502, without its address in the message."""
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.chat.completions.create(model="lost", messages=HELLO)
    assert caught.value.status_code == 502
    assert "127.0.0.1" not in caught.value.message


async def test_unknown_fields_reach_the_provider(sdk: AsyncOpenAI, llm: LLMockServer) -> None:
    """Unknown fields of the body and of messages reach the provider; the gateway's own fields do not."""
    messages: Any = [{"role": "user", "content": "x", "prefix": True}]
    extra = {"top_k": 4, "session_id": None}
    await sdk.chat.completions.create(model="gpt-4o", messages=messages, extra_body=extra, max_tokens=5, seed=7)
    body = llm.state.journal.records()[-1].body
    assert body is not None
    assert (body["top_k"], body["max_tokens"], body["seed"], body["messages"][0]["prefix"]) == (4, 5, 7, True)
    assert "session_id" not in body
