"""What is new in a conversation that is sent again."""

from datetime import UTC, datetime

import pytest

from antiphon.history.base import MessageState, StoredMessage
from antiphon.history.resent import Continuation, continuation
from antiphon.messages import Image, Media, Message, Part, Role, Text, Thinking, ToolCall, ToolResult

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"s": Role.SYSTEM, "u": Role.USER, "a": Role.ASSISTANT}
STATES = {"!": MessageState.CANCELLED, "?": MessageState.IN_PROGRESS}


def say(text: str) -> Message:
    """Who and what, as in "u:Hi"; "a" alone is a reply without text."""
    role, _, said = text.partition(":")
    return Message(ROLES[role[0]], (Text(said),) if said else ())


def talk(line: str) -> tuple[Message, ...]:
    return tuple(say(text) for text in line.split())


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
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 u:3", "u:3", None, id="instructions that are stored"),
        pytest.param("s:0 u:1 a:2", "s:0 u:3", "u:3", None, id="the same, with a new message only"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 u:3", "u:3", None, id="instructions that are not repeated"),
        pytest.param("s:0 u:1 a:2", "s:9 u:1 a:2 u:3", "s:9 u:3", None, id="other instructions"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:9 u:1 a:2 u:3 a:4 u:5", "u:5", None, id="the same, the next time"),
    ],
)
def test_what_is_new(path: str, sent: str, new: str, parent: str | None) -> None:
    """And where it belongs."""
    assert continuation(stored(path), talk(sent)) == Continuation(talk(new), parent)


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
    found = continuation(path, (Message(Role.USER, sent), *talk("a:1 u:2")))
    assert (found.new == talk("u:2")) is same


@pytest.mark.parametrize("sent", [(), (Text(""),)])
def test_a_tool_call_that_comes_back_as_empty_text_is_the_same(sent: tuple[Part, ...]) -> None:
    """So clients repeat it that know no tools."""
    call = StoredMessage("1", "0", Message(Role.ASSISTANT, (ToolCall("c", "f", "{}"),)), MessageState.COMPLETE, NOW)
    found = continuation([*stored("u:1"), call], (say("u:1"), Message(Role.ASSISTANT, sent), say("u:2")))
    assert found == Continuation(talk("u:2"), None)
