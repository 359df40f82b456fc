"""How the end of a provider's reply reaches the caller and the store: as JSON, as events, and over gRPC."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc
import httpx2
import pytest

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import Gateway
from tests.e2e.test_grpc import METADATA
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse

MODEL = "odd-persona"
CALL = delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}])
STOP = delta(finish="stop")
ERROR = {
    "id": "x",
    "choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 502, "message": "x"}, "finish_reason": None}],
}


def reply_with(*events: dict[str, Any] | str, then: Step = LAST) -> list[Step]:
    """Return the steps of a reply with a text, these events, and a last step."""
    return [head(), *(chunk(sse(event)) for event in (delta("Hi"), *events)), then]


def ended(reason: Any) -> list[Step]:
    return reply_with(delta(finish=reason), "[DONE]")


def whole(reason: str | None, **fields: Any) -> list[Step]:
    """Return the steps of a reply in one JSON object."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": reason, **fields}
    return [answer({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})]


class Row(NamedTuple):
    """The steps of a provider, and the finish reason that follows from them, or None for a failure."""

    steps: list[Step]
    reason: str | None
    text: str = "Hi"


ROWS = {
    "stop, [DONE]": Row(ended("stop"), "stop"),
    "stop, end of the body": Row(reply_with(STOP), "stop"),
    "stop, silence": Row(reply_with(STOP, then=HANG), "stop"),
    "stop after every chunk, [DONE]": Row(
        [
            head(),
            *(step for text in ("One", " two", " three") for step in (chunk(sse(delta(text), STOP)), Pause(0.2))),
            chunk(sse("[DONE]")),
            LAST,
        ],
        "stop",
        "One two three",
    ),
    "stop, a pause, a call, tool_calls": Row(
        [head(), chunk(sse(delta("Hi"), STOP)), Pause(2.6), chunk(sse(CALL, delta(finish="tool_calls"), "[DONE]")), LAST],
        "tool_calls",
    ),
    "a call, tool_calls, stop": Row(reply_with(CALL, delta(finish="tool_calls"), STOP, "[DONE]"), "tool_calls"),
    "MAX_TOKENS": Row(ended("MAX_TOKENS"), "length"),
    "SAFETY": Row(ended("content_filter: SAFETY"), "content_filter"),
    "end_turn": Row(ended("end_turn"), "stop"),
    "abort": Row(ended("abort"), None),
    "an object of the type abort": Row(ended({"type": "abort"}), None),
    "stop, then abort": Row(reply_with(STOP, delta(finish="abort"), "[DONE]"), None),
    "network_error": Row(ended("network_error"), None),
    "insufficient_system_resource": Row(ended("insufficient_system_resource"), None),
    "a malformed call": Row(ended("function_call_filter: MALFORMED_FUNCTION_CALL"), None),
    "error": Row(ended("error"), None),
    "an error in the choice": Row(reply_with(ERROR), None),
    "an error in the choice, and stop": Row(
        reply_with({**ERROR, "choices": [{**ERROR["choices"][0], "finish_reason": "stop"}]}, "[DONE]"), None
    ),
    "no reason, [DONE]": Row(reply_with("[DONE]"), None),
    "no reason, end of the body": Row(reply_with(), None),
    "a cut": Row(reply_with(then=CUT), None),
    "one object, stop": Row(whole("stop"), "stop"),
    "one object, aborted": Row(whole("aborted"), None),
    "one object, an error in the choice": Row(whole(None, error={"code": 502, "message": "x"}), None),
}


async def stored(channel: grpc.aio.Channel, chat: str) -> tuple[str, str]:
    """Return the state and the text of the last message."""
    history = history_pb2_grpc.HistoryServiceStub(channel)
    last = (await history.ListMessages(history_pb2.ListMessagesRequest(conversation_id=chat), metadata=METADATA)).messages[-1]
    state = history_pb2.MessageState.Name(last.state).removeprefix("MESSAGE_STATE_")
    return state, "".join(block.text.text for block in last.message.blocks)


async def new_chat(http: httpx2.AsyncClient) -> str:
    """Create a chat with one message, and return its id."""
    chat: str = (await http.post("/chat/new", json={"messages": [{"role": "user", "content": "Hello"}]})).json()["chatId"]
    return chat


def asking(chat: str, *, stream: bool) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "More"}], "session_id": chat, "stream": stream}


SLOW = {"stop, silence", "stop, a pause, a call, tool_calls", "seconds after the reason", "after the reason, and no end"}
"""The cases that wait for a silent host."""


def rows(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@pytest.mark.parametrize("name", rows(ROWS))
async def test_the_end_of_a_reply(name: str, persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """All three APIs report the same finish reason and a complete message, or a failure.

    After a failure the text so far is stored as incomplete, and a reply without text as failed.
    """
    steps, reason, text = ROWS[name]
    upstream.script(MODEL, steps)
    is_object = name.startswith("one object")
    half = ("FAILED", "") if is_object else ("INCOMPLETE", text)
    async with persona_gateway.client() as http, grpc.aio.insecure_channel(persona_gateway.rest) as channel:
        chat = await new_chat(http)
        response = await http.post("/chat/completions", json=asking(chat, stream=False))
        if reason is None:
            assert (response.status_code, await stored(channel, chat)) == (502, ("FAILED", ""))
        else:
            (choice,) = response.json()["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)
            assert bool(choice["message"].get("tool_calls")) is (reason == "tool_calls")
            assert await stored(channel, chat) == ("COMPLETE", text)

        chat = await new_chat(http)
        response = await http.post("/chat/completions", json=asking(chat, stream=True))
        if reason is None and is_object:
            assert response.status_code == 502
        else:
            events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
            assert (events[-1] == "[DONE]") is (reason is not None)
            chunks = [json.loads(event) for event in events if event != "[DONE]"]
            assert any("error" in one for one in chunks) is (reason is None)
            choices = [one["choices"][0] for one in chunks if one.get("choices")]
            assert "".join(choice["delta"].get("content") or "" for choice in choices) == text
            assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ([reason] if reason else [])
        assert await stored(channel, chat) == (half if reason is None else ("COMPLETE", text))

        chat = await new_chat(http)
        message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="More"))])
        request = chat_pb2.GenerateRequest(model=MODEL, messages=[message], recording=chat_pb2.Recording(conversation_id=chat))
        found: list[chat_pb2.StreamEvent] = []
        code = None
        try:
            async for answered in chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(request, metadata=METADATA):
                found += answered.events
        except grpc.aio.AioRpcError as error:
            code = error.code()
        finished = [event.finished.reason for event in found if event.HasField("finished")]
        if reason is None:
            assert (finished, code is not None) == ([], True)
            assert is_object or found[-1].HasField("error")
            assert await stored(channel, chat) == half
        else:
            assert (finished, code) == ([chat_pb2.FinishReason.Value(f"FINISH_REASON_{reason.upper()}")], None)
            assert await stored(channel, chat) == ("COMPLETE", text)


USAGE = {**delta(), "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
LATE: dict[str, list[Step]] = {
    "behind [DONE], at once": reply_with(STOP, "[DONE]", USAGE),
    "behind [DONE], later, and no end": [head(), chunk(sse(delta("Hi"), STOP, "[DONE]")), Pause(0.05), chunk(sse(USAGE)), HANG],
    "seconds after the reason": [head(), chunk(sse(delta("Hi"), STOP)), Pause(3), chunk(sse(USAGE, "[DONE]")), LAST],
    "after the reason, and no end": reply_with(STOP, USAGE, then=HANG),
}


@pytest.mark.parametrize("name", rows(LATE))
async def test_usage_that_comes_late(name: str, http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Usage that the provider sends late is still reported, streamed and whole."""
    upstream.script("odd-x", LATE[name])
    body: dict[str, Any] = {"model": "odd-x", "messages": [{"role": "user", "content": "Hi"}]}
    usage = (await http.post("/chat/completions", json=body)).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage.get("estimated")) == (100, 10, None)
    text = (await http.post("/chat/completions", json={**body, "stream": True, "stream_options": {"include_usage": True}})).text
    assert json.loads(text.split("\n\n")[-3].removeprefix("data: "))["usage"] == usage
