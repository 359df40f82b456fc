"""Tests of which stored messages can be sent to a provider."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.domain.content import (
    Block,
    Image,
    Media,
    Message,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import Reason
from antiphon.domain.events import FinishReason
from antiphon.domain.request import ChatRequest
from antiphon.history.base import MessageState, StoredMessage
from antiphon.history.sendable import Entry, LeftOut, LeftOutReason, sendable
from antiphon.providers.openai import request as openai_request

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HALF = '{"a": "hal'


def user(text: str = "Hi") -> Message:
    return Message(Role.USER, (Text(text),))


def reply(*parts: Block, **fields: Any) -> Message:
    return Message(Role.ASSISTANT, parts, **fields)


def call(id_: str = "c", arguments: str = "{}") -> ToolCall:
    return ToolCall(id_, "f", arguments)


def result(*ids: str) -> Message:
    return Message(Role.TOOL, tuple(ToolResult(id_, (Text("20"),)) for id_ in ids))


def stored(*items: Message | tuple[Message, MessageState] | tuple[Message, FinishReason], turn: int = 0) -> list[Entry]:
    """Return entries of stored messages, one second apart. A message alone is complete."""
    entries = []
    for at, each in enumerate(items):
        message, end = each if isinstance(each, tuple) else (each, MessageState.COMPLETE)
        state = end if isinstance(end, MessageState) else MessageState.COMPLETE
        finish = end if isinstance(end, FinishReason) else None
        created = NOW + timedelta(seconds=turn * 100 + at)
        row = StoredMessage(f"{turn}-{at}", None, message, state, created, finish_reason=finish)
        entries.append(Entry(message, row))
    return entries


def failed(*messages: Message, reason: Reason | None = None, finish: FinishReason | None = None, turn: int = 9) -> list[Entry]:
    """Return entries of a turn without output: its messages and an empty reply, all stored at the same time."""
    created = NOW + timedelta(seconds=turn * 100)
    rows = [StoredMessage(f"{turn}-{at}", None, each, MessageState.COMPLETE, created) for at, each in enumerate(messages)]
    state = MessageState.FAILED if reason else MessageState.COMPLETE
    rows.append(StoredMessage(f"{turn}-reply", None, reply(), state, created, error_reason=reason or "", finish_reason=finish))
    return [Entry(row.message, row) for row in rows]


def brought(*messages: Message) -> list[Entry]:
    """Return entries of the request's own messages, which are not stored."""
    return [Entry(message) for message in messages]


def why(left_out: tuple[LeftOut, ...]) -> list[LeftOutReason]:
    return [each.reason for each in left_out]


INCOMPLETE, CANCELLED, IN_PROGRESS = MessageState.INCOMPLETE, MessageState.CANCELLED, MessageState.IN_PROGRESS


@pytest.mark.parametrize(
    ("stored_reply", "kept"),
    [
        pytest.param(reply(Thinking("Hm")), None, id="a thought alone"),
        pytest.param((reply(Thinking("Hm")), FinishReason.LENGTH), None, id="a thought until the tokens ended"),
        pytest.param((reply(Thinking("Hm")), INCOMPLETE), None, id="a thought that broke off"),
        pytest.param(reply(Thinking("Hm"), extra={"reasoning_details": [{"text": "Hm"}]}), None, id="a thought told twice"),
        pytest.param(reply(), None, id="nothing at all"),
        pytest.param(reply(extra={"annotations": []}), None, id="fields that say nothing"),
        pytest.param((reply(call("c", HALF)), INCOMPLETE), None, id="a call that broke off"),
        pytest.param((reply(call("c", HALF)), CANCELLED), None, id="a call whose caller left"),
        pytest.param((reply(call("c", HALF)), IN_PROGRESS), None, id="a call that is still being made"),
        pytest.param((reply(call("c", HALF)), FinishReason.LENGTH), None, id="a call in which the tokens ended"),
        pytest.param((reply(Text("So."), call("c", HALF)), INCOMPLETE), reply(Text("So.")), id="text beside it"),
        pytest.param((reply(Refusal("No."), call("c", HALF)), INCOMPLETE), reply(Refusal("No.")), id="a refusal beside it"),
        pytest.param((reply(Thinking("Hm"), call("c", HALF)), INCOMPLETE), None, id="a thought beside it"),
        pytest.param((reply(Text(""), call("c", HALF)), INCOMPLETE), None, id="an empty text beside it"),
        pytest.param((reply(call("c", "")), CANCELLED), None, id="a call without its arguments"),
        pytest.param(reply(call()), None, id="a call that nobody answered"),
        pytest.param(reply(Text("So."), call()), reply(Text("So.")), id="text beside a call that nobody answered"),
        pytest.param((reply(ToolCall("", "f", HALF, "function_call")), INCOMPLETE), None, id="of 2023, broken off"),
        pytest.param(
            (reply(ToolCall("c", "f", "1", "custom")), CANCELLED),
            None,
            id="a call of another kind",
        ),
        pytest.param(reply(Image(Media("x"))), reply(Image(Media("x"))), id="a picture"),
        pytest.param(reply(RedactedThinking(state=State("d"))), None, id="an encrypted thought"),
        pytest.param(reply(Text("")), reply(Text("")), id="an empty text"),
        pytest.param(reply(Refusal("No.")), reply(Refusal("No.")), id="a refusal"),
        pytest.param((reply(Thinking("Hm"), Text("So")), INCOMPLETE), reply(Thinking("Hm"), Text("So")), id="half a text"),
    ],
)
def test_a_stored_reply_is_sent_as_far_as_it_can_be(stored_reply: Any, kept: Message | None) -> None:
    """Before a new message, a stored reply is sent without broken or unanswered calls, and not at all if only thoughts are left."""
    messages, _ = sendable([*stored(user(), stored_reply), *brought(user("and now?"))])
    assert messages == (user(), *([kept] if kept else []), user("and now?"))


@given(
    st.lists(st.sampled_from([*map(user, ("", "a")), reply(Text("")), reply(Text("b"))]), max_size=4),
    st.sampled_from([*MessageState]),
)
def test_texts_alone_are_sent_as_beside_tool_calls(messages: list[Message], state: MessageState) -> None:
    """A conversation of texts takes a shorter way, with the same result."""
    texts = stored(*((message, state) for message in messages))
    answered = stored(reply(call()), result("c"))
    alone, beside = sendable(texts), sendable([*answered, *texts])
    assert alone[0] == beside[0][2:]
    assert alone[1] == beside[1]


def test_what_was_refused_is_left_out_behind_a_retry_too() -> None:
    """A rejected message is left out also after a retry, which stores an empty reply alone.

    Its messages are those after the last reply.
    """
    before, instructions = stored(user("a"), reply(Text("A"))), Message(Role.SYSTEM, (Text("s"),))
    rejected, retry = stored(instructions, user("bad"), turn=1), failed(reason=Reason.PROVIDER_REJECTED)
    messages, left_out = sendable([*before, *rejected, *retry, *brought(user("and now?"))])
    assert messages == (user("a"), reply(Text("A")), instructions, user("and now?"))
    assert why(left_out) == [LeftOutReason.REFUSED]


def test_calls_that_were_answered_stay_beside_one_that_broke_off() -> None:
    """Calls with a result stay, with their results, beside a call that broke off."""
    made = reply(Text("So."), call("a"), call("b", HALF), call("c"))
    messages, left_out = sendable([*stored(user(), (made, INCOMPLETE), result("a")), *brought(user("and now?"))])
    assert messages == (user(), reply(Text("So."), call("a")), result("a"), user("and now?"))
    assert why(left_out) == [LeftOutReason.BROKEN_CALL]


def test_half_arguments_of_a_whole_reply_are_the_models_own() -> None:
    """Invalid arguments in a complete reply are sent as they are, because the model wrote them and the caller has answered."""
    entries = stored(user(), (reply(call("c", HALF)), FinishReason.TOOL_CALLS), result("c"))
    assert sendable(entries) == (tuple(entry.message for entry in entries), ())


@pytest.mark.parametrize(
    ("finish", "is_sent"), [(FinishReason.STOP, False), (FinishReason.TOOL_CALLS, True), (FinishReason.PAUSE, True), (None, True)]
)
def test_a_tool_of_the_providers_without_a_result(finish: FinishReason | None, is_sent: bool) -> None:
    """A server tool call without a result is sent only if its reply did not end with `stop`, because the result may follow."""
    ran = ServerToolCall("w", "web_search", input="{}")
    done = (ServerToolCall("x", "web_search"), ServerToolResult("x", "web_search"))
    message = reply(Text("So."), *done, ran)
    entries = stored(user(), (message, finish) if finish else message)
    kept = message if is_sent else reply(Text("So."), *done)
    assert sendable([*entries, *brought(user("2"))]) == ((user(), kept, user("2")), ())


def test_a_call_without_arguments_is_sent_with_none() -> None:
    """Empty arguments are sent as `{}`, because some hosts accept only JSON."""
    entries = [*stored(user(), (reply(Text("So."), call("c", "")), FinishReason.TOOL_CALLS)), *brought(result("c"))]
    assert sendable(entries) == ((user(), reply(Text("So."), call("c", "{}")), result("c")), ())


def test_the_calls_that_a_request_answers_are_sent() -> None:
    """Calls are sent if the request has their results, beside those that were answered before."""
    entries = [*stored(user(), reply(call("a"), call("b")), result("a")), *brought(result("b"))]
    assert sendable(entries) == (tuple(entry.message for entry in entries), ())


def test_the_result_of_a_call_that_broke_off_goes_with_it() -> None:
    """The result of a broken call is left out with it, even if the request has the result."""
    messages, left_out = sendable([*stored(user(), (reply(call("c", HALF)), INCOMPLETE)), *brought(result("c"))])
    assert messages == (user(),)
    assert why(left_out) == [LeftOutReason.BROKEN_CALL, LeftOutReason.RESULT_WITHOUT_CALL]


def test_results_that_are_stored_without_their_call_are_not_sent() -> None:
    """Stored results without a call, late ones and repeated ones are left out; other content of their message is sent."""
    late = Message(Role.USER, (ToolResult("x", ()), Text("So?")))
    path = (result("x"), user(), reply(call("c")), result("c"), result("c", "c"), reply(Text("1")), result("c"), late)
    messages, left_out = sendable(stored(*path))
    assert messages == (user(), reply(call("c")), result("c"), reply(Text("1")), user("So?"))
    assert why(left_out) == [LeftOutReason.RESULT_WITHOUT_CALL] * 5


def test_what_a_request_brings_is_sent_as_it_is() -> None:
    """Messages of the request are sent unchanged, so that the provider's error reaches the caller."""
    entries = brought(result("x"), reply(call("c", HALF)), user(), reply(Thinking("Hm")))
    assert sendable(entries) == (tuple(entry.message for entry in entries), ())


def test_the_answer_to_a_function_call_of_2023_that_broke_off_goes_with_it() -> None:
    """The result of a broken function call of 2023, which has no id, is left out with the call."""
    made = reply(Text("So."), ToolCall("", "f", HALF, "function_call"))
    answer = Message(Role.TOOL, (ToolResult("", (Text("20"),), type="function_call"),), name="f")
    messages, _ = sendable(stored(user(), (made, INCOMPLETE), answer, user("and now?")))
    assert messages == (user(), reply(Text("So.")), user("and now?"))


@pytest.mark.parametrize(
    ("turn", "is_sent"),
    [
        pytest.param({"reason": Reason.PROVIDER_REJECTED}, False, id="rejected"),
        pytest.param({"reason": Reason.UNSUPPORTED}, False, id="unsupported"),
        pytest.param({"finish": FinishReason.CONTENT_FILTER}, False, id="filtered before a word"),
        pytest.param({"finish": FinishReason.REFUSAL}, False, id="refused before a word"),
        pytest.param({"reason": Reason.PROVIDER_RATE_LIMITED}, True, id="for a moment"),
        pytest.param({"reason": Reason.PROVIDER_TIMEOUT}, True, id="too late"),
        pytest.param({"reason": Reason.PROVIDER_CREDENTIALS}, True, id="the gateway's own fault"),
        pytest.param({"finish": FinishReason.STOP}, True, id="a reply without a word"),
    ],
)
def test_a_message_that_was_refused_for_good_is_sent_once(turn: dict[str, Any], is_sent: bool) -> None:
    """A message that the provider rejected or filtered is not sent again.

    One that failed for another reason is; instructions always are.
    """
    system = Message(Role.SYSTEM, (Text("Be brief."),))
    before = stored(user("1"), reply(Text("2")))
    messages, left_out = sendable([*before, *failed(system, user("bad"), **turn), *brought(user("3"))])
    assert messages == (user("1"), reply(Text("2")), system, *([user("bad")] if is_sent else []), user("3"))
    assert why(left_out) == ([] if is_sent else [LeftOutReason.REFUSED])


def test_a_refused_message_is_sent_when_it_is_asked_again() -> None:
    """A rejected message is sent if its failed reply is not on the path, or if the reply has output."""
    system = Message(Role.SYSTEM, (Text("Be brief."),))
    entries = failed(system, user("long"), reason=Reason.PROVIDER_REJECTED)[:-1]
    assert sendable(entries)[0] == (system, user("long"))
    answered = stored(user("long"), (reply(Text("So")), FinishReason.CONTENT_FILTER))
    assert sendable(answered)[0] == (user("long"), reply(Text("So")))


def test_a_result_that_was_refused_takes_its_call_along() -> None:
    """If a tool result was rejected, its call is left out too, because it has no result now."""
    refused = failed(result("c"), reason=Reason.PROVIDER_REJECTED)
    messages, left_out = sendable([*stored(user(), reply(call("c"))), *refused, *brought(user("2"))])
    assert messages == (user(), user("2"))
    assert why(left_out) == [LeftOutReason.REFUSED, LeftOutReason.UNANSWERED_CALL]


# Properties that hold for any stored path.


def complaint(messages: tuple[Message, ...]) -> str:
    """Return what a strict host would refuse in these messages, or an empty text."""
    request = ChatRequest("m", messages, stream=False)
    sent = orjson.loads(openai_request.encode(request, "p", stream_usage=False))["messages"]
    wanted: set[str] = set()
    for message in sent:
        if message["role"] == "tool":
            if message["tool_call_id"] not in wanted:
                return f"no call {message['tool_call_id']}"
            wanted.remove(message["tool_call_id"])
            continue
        if wanted:
            return f"no result of {wanted}"
        calls = message.get("tool_calls") or []
        if message["role"] == "assistant" and message["content"] is None and not (calls or message.get("refusal")):
            return "an assistant message without content"
        for made in calls:
            try:
                orjson.loads(made.get("function", {"arguments": "{}"})["arguments"])
            except orjson.JSONDecodeError:
                return "arguments that are no JSON"
        wanted = {made["id"] for made in calls}
    return f"no result of {wanted}" if wanted else ""


IDS = st.sampled_from("abc")
CALLS = st.builds(ToolCall, IDS, st.just("f"), st.sampled_from(["{}", "null", '{"a": 1}']))
HALF_CALLS = st.builds(ToolCall, IDS, st.just("f"), st.sampled_from([HALF, "", "{", "[1,", "{}"]))
SAID = st.sampled_from([Text("So."), Text(""), Thinking("Hm"), Refusal("No.")])
RESULTS = st.builds(ToolResult, IDS, st.just((Text("20"),)))


@st.composite
def rows(draw: st.DrawFn, at: int) -> StoredMessage:
    """Draw any message that may be stored, in any state."""
    created = NOW + timedelta(seconds=at // draw(st.integers(1, 3)))
    role = draw(st.sampled_from([Role.USER, Role.ASSISTANT, Role.ASSISTANT, Role.TOOL, Role.TOOL]))
    if role is not Role.ASSISTANT:
        results = draw(st.lists(RESULTS, min_size=role is Role.TOOL, max_size=2))
        texts = [Text("Hi")] if role is Role.USER else []
        return StoredMessage(str(at), None, Message(role, (*results, *texts)), MessageState.COMPLETE, created)
    state = draw(st.sampled_from(MessageState))
    finish = draw(st.sampled_from([None, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]))
    broke_off = state is not MessageState.COMPLETE or finish in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)
    calls = draw(st.lists(HALF_CALLS if broke_off else CALLS, max_size=2, unique_by=lambda made: made.id))
    texts = draw(st.lists(SAID, max_size=2))
    reason = draw(st.sampled_from(["", Reason.PROVIDER_REJECTED, Reason.PROVIDER_TIMEOUT]))
    message = Message(role, (*texts, *calls))
    return StoredMessage(str(at), None, message, state, created, finish_reason=finish, error_reason=reason)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_a_strict_host_takes_what_is_sent(data: st.DataObject) -> None:
    """A strict host accepts what is sent of any stored path, and filtering that again changes nothing."""
    path = [data.draw(rows(at)) for at in range(data.draw(st.integers(0, 8)))]
    entries = [Entry(row.message, row) for row in path]
    messages, left_out = sendable([*entries, *brought(user("and now?"))])
    assert complaint(messages) == ""
    assert messages[-1] == user("and now?")
    assert {each.row.id for each in left_out if each.row} <= {row.id for row in path}
    assert sendable(stored(*messages)) == (messages, ())


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[Message]:
    """Draw a turn that ended well, with or without tool calls."""
    messages = [user(str(number))]
    for step in range(draw(st.integers(0, 2))):
        ids = [f"{number}-{step}-{made}" for made in range(draw(st.integers(1, 3)))]
        messages.append(reply(Thinking("Hm"), *map(call, ids)))
        messages += [result(*ids)] if draw(st.booleans()) else map(result, ids)
    return [*messages, reply(draw(SAID.filter(lambda part: not isinstance(part, Thinking))))]


@given(st.data())
def test_what_a_strict_host_takes_is_sent_unchanged(data: st.DataObject) -> None:
    """Turns that a strict host accepts are sent unchanged, stored or not."""
    messages = [each for number in range(data.draw(st.integers(0, 4))) for each in data.draw(turns(number))]
    assert complaint(tuple(messages)) == ""
    split = data.draw(st.integers(0, len(messages)))
    assert sendable([*stored(*messages[:split]), *brought(*messages[split:])]) == (tuple(messages), ())
