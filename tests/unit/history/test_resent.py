"""What is new in a conversation that is sent again."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.domain.content import Image, Media, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from antiphon.history.base import MessageState, StoredMessage
from antiphon.history.resent import Continuation, continuation, up_to

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"s": Role.SYSTEM, "u": Role.USER, "a": Role.ASSISTANT}
STATES = {"!": MessageState.CANCELLED, "?": MessageState.IN_PROGRESS}


def say(text: str) -> Message:
    """Who and what, as in "u:Hi"; "a" alone is a reply without text, "c:1" a call of a tool and "t:1" what one gave."""
    role, _, said = text.partition(":")
    if role == "c":
        return Message(Role.ASSISTANT, (ToolCall(said, "f", "{}"),))
    if role == "t":
        return Message(Role.TOOL, (ToolResult(said, (Text(said),)),))
    return Message(ROLES[role[0]], (Text(said),) if said else ())


def talk(line: str) -> tuple[Message, ...]:
    return tuple(say(text) for text in line.split())


def tail_of(found: Continuation) -> tuple[tuple[Message, ...], str | None, tuple[int, ...]]:
    """What is new, and where it belongs."""
    return found.new, found.parent_id, found.places


def stored(line: str) -> list[StoredMessage]:
    """With the ids 0, 1, 2, ...; "a!:Hi" broke off, "a?" is going on."""
    found = []
    for index, text in enumerate(line.split()):
        state = STATES.get(text[1:2], MessageState.COMPLETE)
        message = say(text.replace("!", "").replace("?", ""))
        found.append(StoredMessage(str(index), str(index - 1) if index else None, message, state, NOW))
    return found


@pytest.mark.parametrize(
    ("path", "sent", "new", "parent"),
    [
        pytest.param("", "u:1", "u:1", None, id="an empty conversation"),
        pytest.param("u:1 a:2", "u:1 a:2 u:3", "u:3", None, id="all of it and a new message"),
        pytest.param("u:1 a:2", "u:3", "u:3", None, id="only a new message"),
        pytest.param("u:1 a:2", "u:1", "u:1", None, id="the same word said again"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 u:9", "u:1 u:9", None, id="nothing that repeats a reply"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9", "u:9", "1", id="another question: a branch"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:3", "", "2", id="another reply: a branch"),
        pytest.param("u:1 a:2", "u:1 a:9 u:3", "u:3", None, id="a reply that the caller changed"),
        pytest.param("u:1 a:2", "u:1 a:2", "", "0", id="nothing new at all: the reply is wanted again"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:3 a:4", "", "2", id="the same, further on"),
        pytest.param("u:1 a u:3 a:4", "u:1 a:x u:3 a:y u:5", "u:5", None, id="every reply changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:x u:9", "u:9", "1", id="a changed reply, then another question"),
        pytest.param("u:1 a:2 u:3 a:4", "u:3 a:4 u:5", "u:5", None, id="the end of it and a new message"),
        pytest.param("u:1 a:2 u:3 a:4", "u:3 a:x u:5", "u:5", None, id="the same, with a changed reply"),
        pytest.param("u:1 a:2 u:3 a:4", "a:4 u:5", "u:5", None, id="the same, from a reply on"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:4 u:5", "u:5", None, id="the same, where the question was put twice"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:2 u:5", "u:5", "1", id="the first of two like questions: a branch"),
        pytest.param("u:1 a:2 u:3 a:4 u:5 a:6", "u:3 a:4 u:9", "u:9", "3", id="a part from the middle: a branch"),
        pytest.param("u:1 a!:2", "u:1", "", "0", id="a reply that broke off is wanted again"),
        pytest.param("u:1 a!", "u:1", "", "0", id="a reply that failed is wanted again"),
        pytest.param("u:1 a?", "u:1", "", "0", id="a reply that is going on is wanted again"),
        pytest.param("u:1 a!:23", "u:1 a:2 u:3", "u:3", None, id="a reply that broke off, repeated as far as it was seen"),
        pytest.param("u:1 a!:2", "u:1 u:3", "u:3", None, id="a reply that broke off, not repeated"),
        pytest.param("u:1 a! u:2 a:3", "u:1 u:2 a:3 u:4", "u:4", None, id="the same, further back"),
        pytest.param("u:1 a", "u:1 u:2", "u:2", None, id="a reply that said nothing, not repeated"),
        pytest.param("u:1 a:2 u:3 a:4", "a:x u:3 a:4 u:5", "u:5", None, id="the end of it, from a reply on that was changed"),
        pytest.param("u:1 a:2 u:3 a:4", "a:x u:5", "u:5", None, id="the last reply changed, and a new message"),
        pytest.param("u:1 a:2 u:3 a:4", "a:x u:3 a:y u:9", "u:9", None, id="the same, with every reply changed"),
        pytest.param(
            "u:1 a:2 u:3 a:4 u:5 a:6", "a:x u:3 a:4 u:9", "u:9", "3", id="a part from the middle, from a changed reply on"
        ),
        pytest.param("u:1 a:2", "a:x", "a:x", None, id="a reply alone is nothing that is repeated"),
        pytest.param("a:0", "u:1", "u:1", None, id="a greeting, then the first message"),
        pytest.param("a:0", "a:0 u:1", "u:1", None, id="the same, with the greeting"),
        pytest.param("a:0", "a:x u:1", "u:1", None, id="the same, with another greeting"),
        pytest.param("a:0 u:1 a:2", "a:0 u:1 a:2 u:3", "u:3", None, id="all of it, with its greeting"),
        pytest.param("a:0 u:1 a:2", "u:1 a:2 u:3", "u:3", None, id="all of it, without its greeting"),
        pytest.param("a:0 u:1 a:2", "a:x u:1 a:2 u:3", "u:3", None, id="all of it, with another greeting"),
        pytest.param("a:0 u:1 a:2", "a:0 u:9", "u:9", "0", id="begun again behind its greeting: a branch"),
        pytest.param("a:0 u:1 a!", "u:1", "", "1", id="a first reply that failed is wanted again, without the greeting"),
        pytest.param("a:0 u:1 a!", "a:0 u:1", "", "1", id="the same, with the greeting"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 c:2 t:3 a:4 u:5", "u:5", None, id="a turn with tools"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 a:4 u:5", "u:5", None, id="the same, without the calls"),
        pytest.param("u:1 c:2 t:3 c:4 t:5 a:6", "u:1 a:x u:7", "u:7", None, id="the same, with a changed reply"),
        pytest.param("u:1 c:2 t:3 a:4", "c:2 t:3 a:x u:5", "u:5", None, id="the end of it, from a call on"),
        pytest.param("u:1 c:2 t:3 a:4", "t:3 a:x u:5", "u:5", None, id="the end of it, from a result on"),
        pytest.param("u:1 c:2", "u:1 c:2 t:3", "t:3", None, id="what a tool gave is new"),
        pytest.param("u:1 c:2 c:3", "t:4 t:5", "t:4 t:5", None, id="the results alone"),
        pytest.param("u:1 c:2 t:3 a!", "u:1 c:2 t:3", "", "2", id="a reply behind a tool that broke off"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 u:3", "u:3", None, id="instructions that are stored"),
        pytest.param("s:0 u:1 a:2", "s:0 u:3", "u:3", None, id="the same, with a new message only"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 u:3", "u:3", None, id="instructions that are not repeated"),
        pytest.param("s:0 u:1 a:2", "s:9 u:1 a:2 u:3", "s:9 u:3", None, id="other instructions"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:9 u:1 a:2 u:3 a:4 u:5", "u:5", None, id="the same, the next time"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:0 u:1 a:2 u:3 a:4 u:5", "s:0 u:5", None, id="the first ones again"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:9 u:1 a:2 u:7", "s:9 u:7", "2", id="a branch before the others"),
        pytest.param("s:0 s:1 u:2 a:3", "s:0 s:1 u:2 a:3 u:4", "u:4", None, id="two that are stored"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 s:3 u:4", "s:3 u:4", None, id="others behind those that are stored"),
        pytest.param("u:1 a:2 u:3 a!", "u:3", "", "2", id="a turn that failed, tried again with its message alone"),
        pytest.param("u:1 a:2 u:3 a!:4", "u:3", "", "2", id="the same, of one that broke off"),
        pytest.param("s:0 u:1 a:2 u:3 a!", "s:0 u:3", "", "3", id="the same, with instructions"),
        pytest.param("u:1 a:2 u:3 u:4 a!", "u:3 u:4", "", "3", id="the same, with two messages"),
        pytest.param("u:1 c:2 t:3 a!", "t:3", "", "2", id="the same, with what a tool gave"),
        pytest.param("u:1 a:2 u:3 a?", "u:3", "u:3", None, id="while it is going on it has not failed"),
        pytest.param("u:1 a:2 u:3 a!", "u:9", "u:9", None, id="another message behind one that failed"),
        pytest.param("u:1 a:2 u:3 a!", "u:3 u:5", "u:5", None, id="one that failed, and another message"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:2 u:3 a:4 u:5", "u:5", None, id="the first message changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9 a:4 u:5", "u:5", None, id="a message changed in the middle"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:4 u:5", "u:5", None, id="the end of it, with its first message changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:2 u:3", "", "2", id="another reply, with the first message changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:2 u:8 u:5", "u:8 u:5", "1", id="a branch behind a changed message"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9 a:8 u:5", "u:9 a:8 u:5", "1", id="another question that was answered"),
        pytest.param("u:1 a:2", "u:9 a:8 u:5", "u:9 a:8 u:5", None, id="another chat"),
        pytest.param("u:1 a:2 u:3 a:4", "a:4 u:3", "u:3", None, id="the last reply, and what was asked before"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:4 u:1", "u:1", None, id="the same again and again, with the last turn"),
        pytest.param("u:1 a:2 u:3 a:2", "a:2 u:3", "u:3", None, id="the last reply, or one that was the same before"),
        pytest.param("u:1 a:2 u:3 a:4", "a:2 u:3", "", "2", id="an earlier reply, and what was asked then"),
        pytest.param("u:1 a:2 u:3 a:x a!", "u:1 a:2 u:3 a:x", "", "3", id="the beginning of a reply, tried again"),
        pytest.param("u:1 a:2 u:3 a:x a!", "u:3 a:x", "", "3", id="the same, with the new messages alone"),
        pytest.param("u:1 a:x a:2", "u:1 a:x", "", "1", id="its end is wanted again"),
        pytest.param("u:1 a:2 u:3", "u:1 a:2 u:3 a:x", "a:x", None, id="the beginning of a reply is new"),
        pytest.param("s:0 u:1 a:2 s:7 u:3 a:4", "s:0 u:1 a:2 s:8 u:3 a:4 u:5", "s:8 u:5", None, id="others in their place"),
        pytest.param("u:1 c:2 t:3 a:4", "u:9 c:2 t:3 a:4 u:5", "u:5", None, id="a changed message behind which tools were called"),
        pytest.param("u:1 c:2 t:3 a:4", "u:9 a:4 u:5", "u:5", None, id="the same, without the calls"),
    ],
)
def test_what_is_new(path: str, sent: str, new: str, parent: str | None) -> None:
    """And where it belongs."""
    found = continuation(stored(path), talk(sent))
    assert (found.new, found.parent_id) == (talk(new), parent)
    assert tuple(talk(sent)[place] for place in found.places) == found.new


@pytest.mark.parametrize(
    ("kept", "sent", "same"),
    [
        ((Thinking("Hm", "sig"), Text("Hi")), (Text("Hi"),), True),
        ((Text("Hi ", {"cache": 1}),), (Text("Hi"),), True),
        ((Text("a"), Text("b")), (Text("ab"),), True),
        ((ToolCall("c", "f", '{"a": 1}'),), (ToolCall("c", "f", '{"a":1}'),), True),
        ((ToolCall("c", "f", "{}"),), (ToolCall("d", "f", "{}"),), False),
        ((ToolResult("c", (Text("7"),)),), (ToolResult("c", (Text("7"),)),), True),
        ((ToolResult("c", (Text("7"),)),), (ToolResult("c", (Text("8"),)),), False),
        ((Text("x"), Image(Media("https://a.test/"))), (Text("x"), Image(Media("https://a.test/"))), True),
        ((Text("x"), Image(Media("https://a.test/"))), (Text("x"), Image(Media("https://b.test/"))), False),
    ],
)
def test_when_two_messages_are_the_same(kept: tuple[Part, ...], sent: tuple[Part, ...], same: bool) -> None:
    """By what they say: not by thoughts and space, which clients do not send back."""
    path = [StoredMessage("0", None, Message(Role.USER, kept), MessageState.COMPLETE, NOW), *stored("u:0 a:1")[1:]]
    found = continuation(path, (Message(Role.USER, sent), *talk("a:9 u:2")))
    assert (found.new == talk("u:2")) is same


@pytest.mark.parametrize("sent", [(), (Text(""),)])
def test_a_tool_call_that_comes_back_as_empty_text_is_the_same(sent: tuple[Part, ...]) -> None:
    """So clients repeat it that know no tools."""
    call = StoredMessage("1", "0", Message(Role.ASSISTANT, (ToolCall("c", "f", "{}"),)), MessageState.COMPLETE, NOW)
    found = continuation([*stored("u:1"), call], (say("u:1"), Message(Role.ASSISTANT, sent), say("u:2")))
    assert tail_of(found) == (talk("u:2"), None, (2,))


@pytest.mark.parametrize(
    ("path", "sent", "told"),
    [
        pytest.param("s:0 u:1 a:2", "u:3", "s:0 u:1 a:2 u:3", id="instructions that were sent once"),
        pytest.param("s:0 u:1 a:2", "s:0 u:3", "s:0 u:1 a:2 u:3", id="the same with every message"),
        pytest.param("s:0 u:1 a:2", "s:9 u:1 a:2 u:3", "s:9 u:1 a:2 u:3", id="others"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:0 u:5", "s:0 u:1 a:2 u:3 a:4 u:5", id="the first ones again"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 s:9 u:3", "u:1 a:2 s:9 u:3", id="in the middle"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 s:9 u:3", "s:0 u:1 a:2 s:9 u:3", id="at its beginning and in the middle"),
        pytest.param("u:1 a:2", "u:9 a:2 u:3", "u:9 a:2 u:3", id="a message that was changed"),
        pytest.param("u:1 a:2", "u:1 a:9 u:3", "u:1 a:9 u:3", id="a reply that was changed"),
        pytest.param("u:1 a:2", "u:1 a u:3", "u:1 a:2 u:3", id="a reply that was left out"),
        pytest.param("u:1 a!:23", "u:1 a:2 u:3", "u:1 a:23 u:3", id="a reply that broke off, as far as it was seen"),
        pytest.param("u:1 a!:23", "u:1 a:9 u:3", "u:1 a:9 u:3", id="a reply that broke off, and was changed"),
        pytest.param("u:1 a:2 u:3 a:4", "a:x u:3 a:4 u:5", "u:1 a:x u:3 a:4 u:5", id="the end of it, with a changed reply"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 a:x u:5", "u:1 c:2 t:3 a:x u:5", id="a changed reply behind calls of tools"),
        pytest.param("u:1 c:2 t:3 a:4", "u:9 a:4 u:5", "u:9 c:2 t:3 a:4 u:5", id="calls of tools that were left out"),
        pytest.param("u:1 a:2 u:3 a!", "u:3", "u:1 a:2 u:3", id="a turn that failed, tried again"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 s:0 u:3", "s:0 u:1 a:2 s:0 u:3", id="instructions before each message"),
        pytest.param("s:0 u:1 s:9 a:2", "s:0 u:1 a:2 u:3 s:9", "s:0 u:1 a:2 u:3 s:9", id="instructions that stay behind it all"),
        pytest.param("s:0 u:1 a:2 s:7 u:3 a:4", "s:0 u:1 a:2 s:8 u:3 a:4 u:5", "s:0 u:1 a:2 s:8 u:3 a:4 u:5", id="others in place"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 s:0 u:3", "u:1 a:2 s:0 u:3", id="instructions that have moved"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "u:3 a:4 u:5", "s:0 u:1 a:2 s:9 u:3 a:4 u:5", id="the end of it, without any"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:5 u:3 a:4 u:5", "s:5 u:1 a:2 u:3 a:4 u:5", id="the end of it, with others"),
        pytest.param("u:1 a:2 u:3 a:x a!", "u:1 a:2 u:3 a:x", "u:1 a:2 u:3 a:x", id="the beginning of a reply, tried again"),
        pytest.param("u:1 a!:2 u:3 a:4", "u:1 u:3 a:4 u:5", "u:1 a:2 u:3 a:4 u:5", id="a reply that broke off, left out"),
        pytest.param("a:0 u:1 a:2", "u:1 a:2 u:3", "a:0 u:1 a:2 u:3", id="a greeting that was left out"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:x u:3", "u:1 a:x u:3", id="another reply, behind a changed one"),
    ],
)
def test_what_the_model_is_told(path: str, sent: str, told: str) -> None:
    """What was sent, and what is stored of the rest."""
    assert told_of(stored(path), talk(sent)) == talk(told)


def told_of(path: list[StoredMessage], sent: tuple[Message, ...], *between: StoredMessage) -> tuple[Message, ...]:
    """What the model is told of the turn that is begun; `between` are messages that come before it is."""
    found = continuation(path, sent)
    return messages_of(found, [*up_to(path, found.parent_id), *between])


def messages_of(found: Continuation, before: list[StoredMessage]) -> tuple[Message, ...]:
    """What `told` has, whether it is stored or new."""
    return tuple(entry.message for entry in found.told(before, found.new))


def reply(*parts: Part, **fields: Any) -> StoredMessage:
    """The reply to the first message."""
    return StoredMessage("1", "0", Message(Role.ASSISTANT, parts, **fields), MessageState.COMPLETE, NOW)


def test_a_changed_reply_keeps_its_thoughts() -> None:
    """And its calls, if they were answered: clients do not send them back, and some providers ask for them."""
    path = [*stored("u:1"), reply(Thinking("Hm", "sig"), Text("Hi"), ToolCall("c", "f", "{}"))]
    assert told_of(path, talk("u:1 a:Hello u:2"))[1].parts == (Thinking("Hm", "sig"), Text("Hello"))
    path += [
        StoredMessage("2", "1", say("t:c"), MessageState.COMPLETE, NOW),
        StoredMessage("3", "2", say("a:4"), MessageState.COMPLETE, NOW),
    ]
    told = told_of(path, talk("u:1 a:Hello t:c a:4 u:2"))
    assert told[1].parts == (Thinking("Hm", "sig"), Text("Hello"), ToolCall("c", "f", "{}"))
    assert told[2:] == talk("t:c a:4 u:2")


def test_a_reply_of_thoughts_alone_need_not_be_repeated() -> None:
    """Clients show nothing of it; the turn that it ended is tried again, or goes on."""
    path = [*stored("u:1"), reply(Thinking("Hm"))]
    assert tail_of(continuation(path, talk("u:1 u:2"))) == (talk("u:2"), None, (1,))
    assert tail_of(continuation(path, talk("u:1"))) == ((), "0", ())


def test_a_call_that_its_caller_has_changed_is_told_as_it_is_now() -> None:
    """Beside what the tool gave for that."""
    path = [*stored("u:1"), reply(ToolCall("c", "f", '{"a":1}'))]
    changed = Message(Role.ASSISTANT, (ToolCall("c", "f", '{"a":2}'),))
    assert told_of(path, (say("u:1"), changed, say("t:c")))[1] == changed


def test_fields_beside_the_text_are_told_as_they_are_now() -> None:
    """A marker of what to keep in mind, which moves on with each turn; a name; what only the provider knows of a reply stays."""
    marked = Message(Role.USER, (Text("1", {"cache_control": {"type": "ephemeral"}}),), name="ann")
    path = [StoredMessage("0", None, marked, MessageState.COMPLETE, NOW), reply(Text("2"), extra={"annotations": [1]})]
    plain = Message(Role.USER, (Text("1"),), name="bob")
    told = told_of(path, (plain, say("a:2"), say("u:3")))
    assert told == (plain, Message(Role.ASSISTANT, (Text("2"),), extra={"annotations": [1]}), say("u:3"))


def test_a_turn_that_came_between_is_told_too() -> None:
    """It is on the path by the time that this one is stored; and a path that is another one by then is told as it is."""
    path = stored("u:1 a:2")
    other = stored("u:1 a:2 u:3 a:4")[2:]
    assert told_of(path, talk("s:0 u:1 a:2 u:5"), *other) == talk("s:0 u:1 a:2 u:3 a:4 u:5")
    found = continuation(path, talk("u:1 a:9 u:5"))
    assert messages_of(found, [*path[:1], *other]) == talk("u:1 u:3 a:4 u:5")


# Whatever is stored, and however it is sent again.

WORDS = st.sampled_from(["yes", "no", "Hi", " go on", "go on", "", "🎼 ", "two words"])
NEW = "never said before"


def message(role: Role, text: str) -> Message:
    return Message(role, (Text(text),) if text else ())


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[Message]:
    """One turn: a question of its own, calls of tools or none, a reply."""
    said = [message(Role.USER, f"{draw(WORDS)} {number}")]
    for call in range(draw(st.integers(0, 2))):
        said.append(Message(Role.ASSISTANT, (Text(draw(WORDS)), ToolCall(f"{number}-{call}", "f", "{}"))))
        said.append(Message(Role.TOOL, (ToolResult(f"{number}-{call}", (Text(draw(WORDS)),)),)))
    return [*said, message(Role.ASSISTANT, f"{draw(WORDS)}!")]


@st.composite
def chats(draw: st.DrawFn) -> list[Message]:
    """Instructions or none, a greeting or none, turns."""
    opening = [message(Role.SYSTEM, "Be brief.")] if draw(st.booleans()) else []
    if draw(st.booleans()):
        opening.append(message(Role.ASSISTANT, "Welcome."))
    return [*opening, *(said for number in range(draw(st.integers(1, 5))) for said in draw(turns(number)))]


def kept(messages: list[Message]) -> list[StoredMessage]:
    return [
        StoredMessage(str(at), str(at - 1) if at else None, each, MessageState.COMPLETE, NOW) for at, each in enumerate(messages)
    ]


def spaced(each: Message) -> Message:
    """With other space at its end, as some clients send it."""
    parts = each.parts
    return (
        replace(each, parts=(*parts[:-1], Text(parts[-1].text.rstrip() + "\n"))) if parts and isinstance(parts[-1], Text) else each
    )


@st.composite
def clients(draw: st.DrawFn, chat: list[Message]) -> list[Message]:
    """What a client makes of the chat before it adds to it."""
    talk = [each for each in chat if each.role is not Role.SYSTEM]
    if draw(st.booleans()):  # a window of it, which begins anywhere
        talk = talk[draw(st.integers(0, len(talk))) :]
    if draw(st.booleans()):
        talk = [spaced(each) if draw(st.booleans()) else each for each in talk]
    if talk and draw(st.booleans()):  # some reply trimmed; the calls of tools stay
        at = draw(st.integers(0, len(talk) - 1))
        if talk[at].role is Role.ASSISTANT and any(each.role is not Role.ASSISTANT for each in talk):
            calls = tuple(part for part in talk[at].parts if isinstance(part, ToolCall))
            talk[at] = Message(Role.ASSISTANT, (Text(f"trimmed {at}"), *calls))
    return talk


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_only_the_new_tail_is_stored(data: st.DataObject) -> None:
    """All of a chat or the end of it, with changed space, replies and instructions: nothing is stored twice, nothing is lost."""
    chat = data.draw(chats())
    sent = data.draw(clients(chat))
    tail = [message(Role.USER, NEW), *data.draw(st.sampled_from([[], [message(Role.USER, "and more")]]))]
    system = data.draw(st.sampled_from([[], ["Be brief."], ["Be long."]]))
    instructions = [message(Role.SYSTEM, text) for text in system]
    known = chat[0].role is Role.SYSTEM
    found = continuation(kept(chat), [*instructions, *sent, *tail])
    new = [] if not system or (known and system == ["Be brief."]) else instructions
    places = tuple(range(len(new))) + tuple(range(len(system) + len(sent), len(system) + len(sent) + len(tail)))
    assert tail_of(found) == ((*new, *tail), None, places)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_who_sends_all_of_a_chat_has_the_model_told_just_that(data: st.DataObject) -> None:
    """Whatever was made of replies and of space, and wherever instructions stand by now."""
    chat = data.draw(chats())
    sent = [each for each in chat if each.role is not Role.SYSTEM]
    for at, each in enumerate(sent):
        if data.draw(st.booleans()):
            sent[at] = spaced(each)
        elif each.role is Role.ASSISTANT and at + 1 < len(sent) and data.draw(st.booleans()):
            calls = tuple(part for part in each.parts if isinstance(part, ToolCall))
            sent[at] = Message(Role.ASSISTANT, (Text(f"changed {at}"), *calls))
    assume(any(one.parts == other.parts for one, other in zip(sent, chat[-len(sent) :], strict=True)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(sent)))
        sent.insert(place, message(Role.SYSTEM, data.draw(st.sampled_from(["Be brief.", "Be long."]))))
    sent.append(message(Role.USER, NEW))
    assert told_of(kept(chat), tuple(sent)) == tuple(sent)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_turn_that_failed_is_the_same_when_it_is_sent_again(data: st.DataObject) -> None:
    """Nothing more is stored, and the model is told what it was told before: with all of the chat, or with new messages alone."""
    chat = data.draw(chats())
    sent = data.draw(st.one_of(st.just([]), clients(chat)))
    if data.draw(st.booleans()):
        sent.insert(0, message(Role.SYSTEM, data.draw(st.sampled_from(["Be brief.", "Be long."]))))
    sent.append(message(Role.USER, NEW))
    if data.draw(st.booleans()):
        sent.append(message(Role.ASSISTANT, "Sure, "))
    first = continuation(kept(chat), sent)
    before = up_to(kept(chat), first.parent_id)
    path = kept([*(each.message for each in before), *first.new, message(Role.ASSISTANT, "")])
    path[-1] = replace(path[-1], state=MessageState.FAILED)
    again = continuation(path, sent)
    assert (again.new, again.parent_id) == ((), str(len(path) - 2))
    assert messages_of(again, path[:-1]) == messages_of(first, [*before])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_part_of_the_chat_and_then_something_else_is_a_branch_there(data: st.DataObject) -> None:
    """From its beginning to the end of some turn: what is new goes behind that, and nothing else is stored."""
    chat = data.draw(chats())
    ends = [at for at, each in enumerate(chat) if each.role is Role.ASSISTANT and at and chat[at - 1].role is not Role.SYSTEM]
    end = data.draw(st.sampled_from(ends))
    found = continuation(kept(chat), [*chat[: end + 1], message(Role.USER, NEW)])
    assert found.new == (message(Role.USER, NEW),)
    assert found.parent_id == (None if end == len(chat) - 1 else str(end))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_last_reply_wanted_again_stores_nothing(data: st.DataObject) -> None:
    """Whatever came before it, if a reply did: a branch behind what it answered."""
    chat = data.draw(chats())
    assume(any(each.role is Role.ASSISTANT for each in chat[:-1]))
    found = continuation(kept(chat), chat[:-1])
    assert tail_of(found) == ((), str(len(chat) - 2), ())


def test_a_chat_that_says_one_thing_over_and_over_is_found_in_it() -> None:
    """All of it or its end, however many places it could begin at."""
    chat = [message(role, "yes") for _ in range(2000) for role in (Role.USER, Role.ASSISTANT)]
    for sent in (chat, chat[2000:], chat[-2:]):
        assert continuation(kept(chat), [*sent, message(Role.USER, NEW)]).places == (len(sent),)
