"""Tests of the analytics dialect, called without a socket."""

import json
from typing import Any

import pytest
from google.api import httpbody_pb2

from antiphon import domain
from antiphon.chat.client_context import Contexts
from antiphon.chat.service import ChatService
from antiphon.config import ClientConfig
from antiphon.domain.errors import (
    InvalidRequest,
    ProviderProtocolError,
    ProviderUnavailable,
)
from antiphon.domain.principal import Principal
from antiphon.history.recorder import Recorder
from antiphon.rest.analytics import servicer as analytics
from antiphon.rest.analytics.errors import render_error
from antiphon.rest.v1 import analytics_pb2
from antiphon.routing.router import Router
from tests.unit.rest.caller import ADMIN, Context, as_caller
from tests.unit.scripted import NO_PRICES, NO_STORE, START, STOP, USAGE, ScriptedProvider

HELLO = domain.Message(domain.Role.USER, (domain.Text("Hello"),))
CONTEXT = domain.Message(domain.Role.SYSTEM, (domain.Text("Acme sells hats."),))


async def called(
    provider: ScriptedProvider, body: dict[str, Any], written: list[httpbody_pb2.HttpBody] | None = None, caller: Principal = ADMIN
) -> list[httpbody_pb2.HttpBody]:
    """Return what the servicer writes for a body. `written` collects it, even if the call raises."""
    written = [] if written is None else written
    chat = ChatService(Router([(provider, ["one", "two"])]), Recorder(NO_STORE), NO_PRICES, timeout=60)
    servicer = analytics.AnalyticsServicer(chat, Contexts({"acme": ClientConfig(context="Acme sells hats.")}, {}))
    data = {"messages": [{"role": "user", "content": "Hello"}]} | body
    request = analytics_pb2.CreateAnalyticsChatRequest(body=httpbody_pb2.HttpBody(data=json.dumps(data).encode()))
    as_caller(caller)
    context: Any = Context()
    async for piece in servicer.CreateAnalyticsChat(request, context):
        written.append(piece)
    return written


async def test_the_documented_answer() -> None:
    """The answer has exactly the documented fields. Without a model in the body the default is used."""
    provider = ScriptedProvider()
    (piece,) = await called(provider, {})
    assert piece.content_type == "application/json"
    assert json.loads(piece.data) == {
        "success": True,
        "data": {
            "message": {"role": "assistant", "content": "Hello"},
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        },
    }
    assert provider.requests[0].model == "one"
    assert not provider.requests[0].stream


async def test_tokens_that_were_estimated_are_marked() -> None:
    """Estimated usage is marked as `estimated`."""
    (piece,) = await called(ScriptedProvider([START, domain.TextDelta(0, "Hello")], [STOP]), {})
    usage = json.loads(piece.data)["data"]["usage"]
    assert usage.pop("estimated") is True
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_a_stream_is_chunks_and_done() -> None:
    """A stream has the chunks of the OpenAI dialect and ends with [DONE]."""
    pieces = await called(ScriptedProvider(), {"stream": True})
    assert [piece.content_type for piece in pieces] == ["text/event-stream", "", ""]
    events = b"".join(piece.data for piece in pieces).decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"


@pytest.mark.parametrize(
    ("client", "expected"), [("acme", (CONTEXT, HELLO)), ("other", (HELLO,)), ("", (HELLO,)), (None, (HELLO,))]
)
async def test_a_clients_context_stands_before_the_conversation(client: str | None, expected: tuple[domain.Message, ...]) -> None:
    """A client's context comes before the messages. An unknown client has none."""
    provider = ScriptedProvider()
    await called(provider, {"client_id": client})
    assert provider.requests[0].messages == expected
    assert provider.requests[0].trusted == len(expected) - 1, "the operator's words are not guarded, and the caller's are"


async def test_openai_parameters_are_used_and_unknown_ones_dropped() -> None:
    """Sampling and tools reach the provider, `n` is ignored, and unknown fields are dropped."""
    provider = ScriptedProvider()
    tool = {"type": "function", "function": {"name": "f"}}
    await called(provider, {"model": "two", "temperature": 0, "max_tokens": 9, "n": 3, "tools": [tool], "wishes": "many"})
    assert provider.requests == [
        domain.ChatRequest(
            "two",
            (HELLO,),
            stream=False,
            sampling=domain.Sampling(temperature=0, max_tokens=9),
            tools=(domain.Tool("f"),),
            known_fields=True,
        )
    ]


async def test_a_tool_call_stands_beside_the_content() -> None:
    """Tool calls are in the message, with null as the content."""
    finished = domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls")
    (piece,) = await called(
        ScriptedProvider(
            [START, domain.BlockStarted(0, 0, domain.ToolCall("c", "f", "")), domain.InputDelta(0, "{}"), USAGE, finished]
        ),
        {},
    )
    assert json.loads(piece.data)["data"]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }


async def test_a_delta_group_is_one_chunk() -> None:
    """A group of deltas becomes one chunk, in which refusals and transcripts are content too."""
    group: domain.Batch = [
        domain.DeltaGroup(0, 6),
        domain.BlockStarted(0, 0, domain.Audio(domain.Media(), "a")),
        domain.MediaDelta(0, transcript="Ah"),
        domain.BlockStarted(1, 0, domain.Refusal("")),
        domain.RefusalDelta(1, "No"),
        domain.BlockStarted(2, 0, domain.Thinking("")),
        domain.ThinkingDelta(2, "hm"),
    ]
    provider = ScriptedProvider([START, *group, domain.RefusalDelta(1, "."), domain.TextDelta(3, "Bye")], [USAGE, STOP])
    data = b"".join([piece.data for piece in await called(provider, {"stream": True})]).decode()
    chunks = [json.loads(line.removeprefix("data: ")) for line in data.split("\n\n")[:-2]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "AhNo", "audio": {"id": "a", "transcript": "Ah"}, "refusal": "No", "reasoning_content": "hm"},
        {"content": ".", "refusal": "."},
        {"content": "Bye"},
        {},
    ]


async def test_the_one_function_of_2023_stands_beside_the_content() -> None:
    """A function call of 2023 is in the message as `function_call`."""
    call = {"name": "f", "arguments": "{}"}
    finished = domain.Finished(0, domain.FinishReason.TOOL_CALLS, "function_call")
    begun = domain.BlockStarted(0, 0, domain.ToolCall("", "f", "", "function_call"))
    (piece,) = await called(ScriptedProvider([START, begun, domain.InputDelta(0, "{}"), USAGE, finished]), {})
    message = json.loads(piece.data)["data"]["message"]
    assert message == {"role": "assistant", "content": None, "function_call": call}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"messages": None}, ["messages"]),
        ({"messages": []}, ["messages"]),
        ({"messages": [{"role": "user", "content": 5}]}, ["messages[0].content"] * 2),
        ({"messages": [{"content": "x"}, {"role": "king", "content": "x"}]}, ["messages[0].role", "messages[1].role"]),
        ({"client_id": 5, "stream": "perhaps", "model": {}}, ["model", "stream", "client_id"]),
        ({"stream": "true", "max_tokens": True, "temperature": "0.5"}, ["stream", "max_tokens", "temperature"]),
        ({"stream": 1, "seed": "7", "logprobs": 0}, ["stream", "seed", "logprobs"]),
    ],
)
async def test_every_wrong_field_is_reported(body: dict[str, Any], fields: list[str]) -> None:
    """Every wrong field is listed by its path, and the provider is not asked."""
    provider = ScriptedProvider()
    with pytest.raises(InvalidRequest) as caught:
        await called(provider, body)
    status, _, data = render_error(caught.value)
    error = json.loads(data)
    assert (status, error["error"], error["code"]) == (400, "Bad Request", 400)
    assert sorted(detail["field"] for detail in error["details"]) == sorted(fields)
    assert provider.requests == []


@pytest.mark.parametrize("client", [None, "acme"])
async def test_a_wrong_message_is_reported_by_its_index(client: str | None) -> None:
    """A wrong message is named by its index in the body, with or without a client's context before it."""
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": "a\0"}]
    with pytest.raises(InvalidRequest) as caught:
        await called(ScriptedProvider(), {"client_id": client, "messages": messages})
    assert json.loads(render_error(caught.value)[2])["details"][0]["field"] == "messages[1]"


async def test_a_late_failure_is_an_event_and_no_done() -> None:
    """A failure during a stream is an event with the error, without [DONE]."""
    written: list[httpbody_pb2.HttpBody] = []
    provider = ScriptedProvider([START, domain.TextDelta(0, "Hel")], ProviderProtocolError("Cut.", provider="scripted"))
    with pytest.raises(ProviderProtocolError):
        await called(provider, {"stream": True}, written)
    assert written[-1].data == b'data: {"error":"Error","message":"Cut.","code":502}\n\n'


async def test_a_failure_before_the_first_byte_is_a_status() -> None:
    """A failure before the first byte is raised, so that it can become a status."""
    written: list[httpbody_pb2.HttpBody] = []
    with pytest.raises(ProviderUnavailable):
        await called(ScriptedProvider(ProviderUnavailable("x", provider="scripted")), {"stream": True}, written)
    assert written == []


async def test_a_refusal_is_the_content() -> None:
    """A refusal is both the content and the field `refusal`, whole and streamed."""
    batches = [START, domain.RefusalDelta(0, "I can")], [domain.RefusalDelta(0, "not.")], [USAGE, STOP]
    (piece,) = await called(ScriptedProvider(*batches), {})
    expected = {"role": "assistant", "content": "I cannot.", "refusal": "I cannot."}
    assert json.loads(piece.data)["data"]["message"] == expected
    assert await streamed(ScriptedProvider(*batches)) == expected


async def test_the_content_of_sound_alone_is_its_transcript() -> None:
    """The content of sound alone is its transcript; if there is text, that is the content."""
    begun = domain.BlockStarted(1, 0, domain.Audio(domain.Media(), "a"))
    sound = domain.MediaDelta(1, "AAAA", "Good day.", expires=7)
    batches = [START, begun, sound], [USAGE, STOP]
    (piece,) = await called(ScriptedProvider(*batches), {})
    audio = {"id": "a", "data": "AAAA", "expires_at": 7, "transcript": "Good day."}
    assert json.loads(piece.data)["data"]["message"] == {"role": "assistant", "content": "Good day.", "audio": audio}
    assert (await streamed(ScriptedProvider(*batches)))["content"] == "Good day."
    batches = [START, domain.TextDelta(0, "Hello")], [begun, sound, USAGE, STOP]
    (piece,) = await called(ScriptedProvider(*batches), {})
    assert json.loads(piece.data)["data"]["message"]["content"] == "Hello"
    assert (await streamed(ScriptedProvider(*batches)))["content"] == "Hello"


async def streamed(provider: ScriptedProvider) -> dict[str, Any]:
    """Return the message that the text deltas of a stream add up to."""
    pieces = await called(provider, {"stream": True})
    events = b"".join(piece.data for piece in pieces).decode().removesuffix("data: [DONE]\n\n").strip().split("\n\n")
    message: dict[str, Any] = {}
    for event in events:
        for name, value in json.loads(event.removeprefix("data: "))["choices"][0]["delta"].items():
            if isinstance(value, str):
                message[name] = value if name == "role" else message.get(name, "") + value
    return message


async def test_a_reply_without_text_is_an_empty_one() -> None:
    """A reply without text has an empty content and not null."""
    (piece,) = await called(ScriptedProvider([START, USAGE, STOP]), {})
    assert json.loads(piece.data)["data"]["message"] == {"role": "assistant", "content": ""}
