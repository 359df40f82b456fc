"""Tests of finding the new messages when a client sends a conversation again."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import dropwhile
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    Block,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.history.base import BEGINNING, MessageState, Parent, StoredMessage
from antiphon.history.resent import Continuation, continuation, up_to

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"s": Role.SYSTEM, "u": Role.USER, "a": Role.ASSISTANT}
STATES = {"!": MessageState.CANCELLED, "?": MessageState.IN_PROGRESS}


def say(text: str) -> Message:
    """Return the message that a short text stands for.

    "u:Hi" is the user's "Hi", "a" an empty reply, "c:1" a tool call and "t:1" its result.
    """
    role, _, content = text.partition(":")
    if role == "c":
        return Message(Role.ASSISTANT, (ToolCall(content, "f", "{}"),))
    if role == "t":
        return Message(Role.TOOL, (ToolResult(content, (Text(content),)),))
    return Message(ROLES[role[0]], (Text(content),) if content else ())


def talk(line: str) -> tuple[Message, ...]:
    return tuple(say(text) for text in line.split())


def tail_of(found: Continuation) -> tuple[tuple[Message, ...], Parent, tuple[int, ...]]:
    """Return the new messages, the parent to store them after, and their places in the request."""
    return found.new, found.parent_id, found.places


def stored(line: str) -> list[StoredMessage]:
    """Return stored messages with the ids 0, 1, 2, ...; "a!:Hi" is a cancelled reply and "a?" one in progress."""
    found = []
    for index, text in enumerate(line.split()):
        state = STATES.get(text[1:2], MessageState.COMPLETE)
        message = say(text.replace("!", "").replace("?", ""))
        found.append(StoredMessage(str(index), str(index - 1) if index else None, message, state, NOW))
    return found


@pytest.mark.parametrize(
    ("path", "sent", "new", "parent"),
    [
        # Messages that equal the path from its first message on are repetitions; the rest is new.
        pytest.param("", "u:1", "u:1", None, id="an empty conversation"),
        pytest.param("u:1 a:2", "u:1 a:2 u:3", "u:3", "1", id="all of it and a new message"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9", "u:9", "1", id="another question: a branch"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:3", "", "2", id="another reply: a branch"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9 a:8 u:5", "u:9 a:8 u:5", "1", id="another question that was answered"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:2 u:5", "u:5", "1", id="the first of two like questions: a branch"),
        pytest.param("u:1 a:2 u:1 a:2", "u:1 a:2 u:5", "u:5", "1", id="a beginning that is the end too counts as the beginning"),
        pytest.param("u:1 a:2", "u:1 a:2", "", "1", id="nothing new at all: the reply is gone on with"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:3 a:4", "", "3", id="the same, further on"),
        pytest.param("a:0", "a:0 u:1", "u:1", "0", id="a greeting, then the first message"),
        pytest.param("a:0 u:1 a:2", "a:0 u:1 a:2 u:3", "u:3", "2", id="all of it, with its greeting"),
        pytest.param("a:0 u:1 a:2", "a:0 u:9", "u:9", "0", id="begun again behind its greeting: a branch"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 c:2 t:3 a:4 u:5", "u:5", "3", id="a turn with tools"),
        pytest.param("u:1 c:2", "u:1 c:2 t:3", "t:3", "1", id="what a tool gave is new"),
        pytest.param("u:1 a:2 u:3", "u:1 a:2 u:3 a:x", "a:x", "2", id="the beginning of a reply is new"),
        pytest.param("u:1 a:x a:2", "u:1 a:x", "", "1", id="the end of a reply is wanted again"),
        # The first difference begins a branch.
        pytest.param("u:1 a:2", "u:1 a:9 u:3", "a:9 u:3", "0", id="a reply that the caller changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:x u:9", "a:x u:9", "0", id="a changed reply, then another question"),
        pytest.param("u:1 a u:3 a:4", "u:1 a:x u:3 a:y u:5", "a:x u:3 a:y u:5", "0", id="every reply changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 a:2 u:9 a:4 u:5", "u:9 a:4 u:5", "1", id="a message changed in the middle"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 a:4 u:5", "a:4 u:5", "0", id="calls of tools that were left out"),
        pytest.param("u:1 c:2", "u:1 a u:5", "a u:5", "0", id="a call that comes back as an empty reply"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:2 u:3 a:4 u:5", "u:9 a:2 u:3 a:4 u:5", BEGINNING, id="the first message changed"),
        pytest.param("u:1 a:2 u:3 a:4", "u:9 a:2 u:3", "u:9 a:2 u:3", BEGINNING, id="the same, and another reply is wanted"),
        pytest.param("u:1 a:2", "u:9 a:8 u:5", "u:9 a:8 u:5", BEGINNING, id="another chat"),
        pytest.param("a:0 u:1 a:2", "a:x u:1 a:2 u:3", "a:x u:1 a:2 u:3", BEGINNING, id="another greeting"),
        # New messages only.
        pytest.param("u:1 a:2", "u:3", "u:3", None, id="only a new message"),
        pytest.param("u:1 a:2", "u:1", "u:1", None, id="the same word said again"),
        pytest.param("u:1 a:2 u:3 a:4", "u:1 u:9", "u:1 u:9", None, id="nothing that repeats a reply"),
        pytest.param("u:1 a:2", "u:3 a:x", "u:3 a:x", None, id="a new message and the beginning of its reply"),
        pytest.param("u:1 a:2", "a:x", "a:x", None, id="a reply alone is nothing that is repeated"),
        pytest.param("a:0", "u:1", "u:1", None, id="without the greeting"),
        pytest.param("u:1 c:2 c:3", "t:4 t:5", "t:4 t:5", None, id="the results alone"),
        # Replies that broke off.
        pytest.param("u:1 a!:2", "u:1 a:2 u:3", "u:3", "1", id="a reply that broke off, repeated as it is stored"),
        pytest.param("u:1 a!:2", "u:1 u:3", "u:3", "1", id="a reply that broke off, not repeated"),
        pytest.param("u:1 a!:23", "u:1 a:2 u:3", "a:2 u:3", "0", id="a reply that broke off, of which less was received"),
        pytest.param("u:1 a! u:2 a:3", "u:1 u:2 a:3 u:4", "u:4", "3", id="one that is not repeated, further back"),
        pytest.param("u:1 a! u:2 a! u:3 a:4", "u:1 a u:2 u:3 a:4 u:5", "u:3 a:4 u:5", "3", id="one of two repeated"),
        pytest.param("u:1 a", "u:1 u:2", "u:2", "1", id="a reply that said nothing, not repeated"),
        pytest.param("u:1 a:2 u:3 a?:4", "u:1 a:2 u:3 u:5", "u:5", "3", id="a reply that is going on, not waited for"),
        pytest.param("u:1 a:2 u:3 a?", "u:1 a:2 u:3", "", "2", id="a reply that is going on is wanted again"),
        pytest.param("u:1 c:2 t:3 a!", "u:1 c:2 t:3", "", "2", id="a reply behind a tool that broke off"),
        pytest.param("u:1 a:2 u:3 a:x a!", "u:1 a:2 u:3 a:x", "", "3", id="the beginning of a reply, tried again"),
        # The end of the path, from a client that sends a window of the conversation.
        pytest.param("u:1 a:2 u:3 a:4", "u:3 a:4 u:5", "u:5", "3", id="the end of it and a new message"),
        pytest.param("u:1 a:2 u:3 a:4", "a:4 u:5", "u:5", "3", id="the same, from a reply on"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:4 u:5", "u:5", "3", id="the same, where the question was put twice"),
        pytest.param("u:1 a:2 u:1 a:4", "u:1 a:4 u:1", "u:1", "3", id="the same again and again"),
        pytest.param("u:1 a:2 u:1 a:2 u:3 a:2", "u:1 a:2 u:3 a:2 u:5", "u:5", "5", id="the longest end counts"),
        pytest.param("a:0 u:1 a:2 u:1 a:2 u:1 a:2", "u:1 a:2 u:1 a:2 u:9", "u:9", "6", id="of what is said over and over"),
        pytest.param("u:1 a:2 u:3 a:4", "a:4 u:3", "u:3", "3", id="the last reply, and what was asked before"),
        pytest.param("a:0 u:1 a:2", "u:1 a:2 u:3", "u:3", "2", id="all of it, without its greeting"),
        pytest.param("u:1 c:2 t:3 a:4", "t:3 a:4 u:5", "u:5", "3", id="from a result on"),
        pytest.param("u:0 a:1 u:2 a!:3 u:4 a:5", "u:2 u:4 a:5 u:6", "u:6", "5", id="without a reply that broke off"),
        pytest.param("u:1 a:2 u:3 a:4", "u:3 a:x u:5", "u:3 a:x u:5", BEGINNING, id="with a changed reply: a branch"),
        pytest.param("u:1 a:2 u:3 a:4 u:5 a:6", "u:3 a:4 u:9", "u:3 a:4 u:9", BEGINNING, id="not to the end: a branch"),
        # A turn that failed, tried again with its new messages alone.
        pytest.param("u:1 a!:2", "u:1", "", "0", id="a reply that broke off is wanted again"),
        pytest.param("u:1 a!", "u:1", "", "0", id="a reply that failed is wanted again"),
        pytest.param("a:0 u:1 a!", "u:1", "", "1", id="the same behind a greeting"),
        pytest.param("a:0 u:1 a!", "a:0 u:1", "", "1", id="the same, with the greeting"),
        pytest.param("u:1 a:2 u:3 a!", "u:3", "", "2", id="the same, further on"),
        pytest.param("u:1 a:2 u:3 a!:4", "u:3", "", "2", id="the same, of one that broke off"),
        pytest.param("u:1 a:2 u:3 u:4 a!", "u:3 u:4", "", "3", id="the same, with two messages"),
        pytest.param("u:1 c:2 t:3 a!", "t:3", "", "2", id="the same, with what a tool gave"),
        pytest.param("u:1 a:2 u:3 a:x a!", "u:3 a:x", "", "3", id="the same, with the beginning of its reply"),
        pytest.param("s:0 u:1 a:2 u:3 a!", "s:0 u:3", "", "3", id="the same, with instructions"),
        pytest.param("u:1 a:2 u:3 a!", "u:3 u:5", "u:5", "3", id="one that failed, and another message"),
        pytest.param("u:1 a:2 u:3 a!", "u:9", "u:9", None, id="another message behind one that failed"),
        pytest.param("u:1 a:2 u:3 a?", "u:3", "u:3", None, id="while it is going on it has not failed"),
        pytest.param("u:1 a?", "u:1", "u:1", None, id="the same, of the first one"),
        # Instructions.
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 u:3", "u:3", "2", id="instructions that are stored"),
        pytest.param("s:0 u:1 a:2", "s:0 u:3", "u:3", None, id="the same, with a new message only"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 u:3", "u:3", "2", id="instructions that are not repeated"),
        pytest.param("s:0 u:1 a:2", "s:9 u:1 a:2 u:3", "s:9 u:3", "2", id="other instructions"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:9 u:1 a:2 u:3 a:4 u:5", "u:5", "5", id="the same, the next time"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:0 u:1 a:2 u:3 a:4 u:5", "s:0 u:5", "5", id="the first ones again"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:9 u:1 a:2 u:7", "s:9 u:7", "2", id="a branch before the others"),
        pytest.param("s:0 s:1 u:2 a:3", "s:0 s:1 u:2 a:3 u:4", "u:4", "3", id="two that are stored"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 s:3 u:4", "s:3 u:4", "2", id="others behind those that are stored"),
        pytest.param("s:0 u:1 a:2 s:7 u:3 a:4", "s:0 u:1 a:2 s:8 u:3 a:4 u:5", "s:8 u:5", "5", id="others in their place"),
        pytest.param("s:0 u:1 a:2", "s:0 u:9 a:2 u:3", "s:0 u:9 a:2 u:3", BEGINNING, id="a new beginning has its own"),
    ],
)
def test_what_is_new(path: str, sent: str, new: str, parent: Parent) -> None:
    """The new messages of a request and the parent to store them after are found by comparing it with the stored path."""
    found = continuation(stored(path), talk(sent))
    assert (found.new, found.parent_id) == (talk(new), parent)
    assert tuple(talk(sent)[place] for place in found.places) == found.new


@pytest.mark.parametrize(
    ("kept", "sent", "same"),
    [
        ((Thinking("Hm", state=State("sig")), Text("Hi")), (Text("Hi"),), True),
        ((Refusal("No."),), (Text("No."),), True),
        ((Text("Hi ", extra={"cache": 1}),), (Text("Hi"),), True),
        ((Text("a"), Text("b")), (Text("ab"),), True),
        ((ToolCall("c", "f", '{"a": 1}'),), (ToolCall("c", "f", '{"a":1}'),), True),
        ((ToolCall("c", "f", "{}"),), (ToolCall("d", "f", "{}"),), False),
        ((ToolResult("c", (Text("7"),)),), (ToolResult("c", (Text("7"),)),), True),
        ((ToolResult("c", (Text("7"),)),), (ToolResult("c", (Text("8"),)),), False),
        ((ToolResult("c", (Text("7"),)),), (ToolResult("d", (Text("7"),)),), False),
        ((Text("x"), Image(Media("https://a.test/"))), (Text("x"), Image(Media("https://a.test/"))), True),
        ((Text("x"), Image(Media("https://a.test/"))), (Text("x"), Image(Media("https://b.test/"))), False),
        ((Image(Media("https://a.test/"), "low", extra={"cache": 1}),), (Image(Media("https://a.test/")),), True),
        ((Audio(Media(), "a1", "La la"),), (Audio(Media(), "a1"),), True),
        ((Audio(Media(), "a1", "La la"),), (Audio(Media(), "a1", "La la", 9),), True),
        ((Audio(Media(), "a1", "La la"),), (Text("La la"),), True),
        ((Audio(Media(), "a1", "La la"),), (Audio(Media(), "a2"),), False),
        ((Opaque({"type": "x", "y": 1}),), (Opaque({"y": 1, "type": "x"}),), True),
        ((Opaque({"type": "x", "y": 1}),), (Opaque({"type": "x", "y": 2}),), False),
        ((Opaque({"type": "video_url", "video_url": {"url": "u"}}),), (Video(Media("u")),), True),
        ((Opaque({"type": "video_url", "video_url": {"url": "u"}}),), (Video(Media("v")),), False),
    ],
)
def test_when_two_messages_are_the_same(kept: tuple[Block, ...], sent: tuple[Block, ...], same: bool) -> None:
    """Messages are compared by their content, without thoughts, outer space and unknown fields, which clients may not send back."""
    path = [*stored("u:0"), reply(*kept), *stored("u:0 a:1 u:2 a:3")[2:]]
    found = continuation(path, (say("u:0"), Message(Role.ASSISTANT, sent), *talk("u:2 a:3 u:4")))
    assert (found.new == talk("u:4")) is same


@pytest.mark.parametrize(
    ("stored_block", "other"),
    [
        (ToolCall("1", "", "{}", "odd"), ToolCall("2", "", "{}", "odd")),
        (ToolCall("1", "f", "a", "custom"), ToolCall("2", "f", "a", "custom")),
        (ToolCall("", "f", "{}", "function_call"), ToolCall("", "g", "{}", "function_call")),
        (Refusal("No."), Refusal("Never.")),
    ],
)
def test_calls_and_refusals_are_compared(stored_block: Block, other: Block) -> None:
    """Calls are compared by id and name, whatever their type, and refusals by their text."""
    path = [*stored("u:0"), reply(stored_block)]
    for value, same in ((stored_block, True), (other, False)):
        sent = (say("u:0"), Message(Role.ASSISTANT, (value,)), say("u:1"))
        assert (continuation(path, sent).new == talk("u:1")) is same


def test_a_repeated_reply_is_sent_as_it_is_stored() -> None:
    """A repeated reply is sent to the provider as it is stored, plus new `extra` fields of the request.

    It keeps the order of its blocks, its signatures and its unknown fields, which a client may not have.
    """
    origin = Origin("openai-chat", "p")
    blocks = (
        Thinking("one", state=State("s1")),
        Text("a"),
        ServerToolCall("w", "web_search", input="{}"),
        ServerToolResult("w", "web_search"),
        Thinking("two", state=State("s2")),
        Text("b", state=State("s3")),
    )
    kept = reply(*blocks, origin=origin, fields={"x": 1})
    sent = Message(Role.ASSISTANT, (Thinking("onetwo"), Text("ab")), extra={"x": 1, "cache_control": {}})
    sent_to_model = messages_for_model([*stored("u:1"), kept], (say("u:1"), sent, say("u:2")))
    assert sent_to_model[1] == replace(kept.message, extra={"cache_control": {}})


@pytest.mark.parametrize(
    ("path", "sent", "expected"),
    [
        pytest.param("s:0 u:1 a:2", "u:3", "s:0 u:1 a:2 u:3", id="instructions that were sent once"),
        pytest.param("s:0 u:1 a:2", "s:0 u:3", "s:0 u:1 a:2 u:3", id="the same with every message"),
        pytest.param("s:0 u:1 a:2", "s:9 u:1 a:2 u:3", "s:9 u:1 a:2 u:3", id="others"),
        pytest.param("s:0 u:1 a:2 s:9 u:3 a:4", "s:0 u:5", "s:0 u:1 a:2 u:3 a:4 u:5", id="the first ones again"),
        pytest.param("s:0 u:1 a:2", "u:1 a:2 s:9 u:3", "u:1 a:2 s:9 u:3", id="in the middle"),
        pytest.param("s:0 u:1 a:2", "s:0 u:1 a:2 s:9 u:3", "s:0 u:1 a:2 s:9 u:3", id="at its beginning and in the middle"),
        pytest.param("u:1 a:2", "u:9 a:2 u:3", "u:9 a:2 u:3", id="a message that was changed"),
        pytest.param("u:1 a:2", "u:1 a:9 u:3", "u:1 a:9 u:3", id="a reply that was changed"),
        pytest.param("u:1 a:2", "u:1 a u:3", "u:1 a u:3", id="a reply that was emptied"),
        pytest.param("u:1 a!:23", "u:1 a:2 u:3", "u:1 a:2 u:3", id="a reply that broke off, as far as it was received"),
        pytest.param("u:1 a!:23", "u:1 a:9 u:3", "u:1 a:9 u:3", id="a reply that broke off, and was changed"),
        pytest.param("u:1 a:2 u:3 a:4", "a:4 u:5", "u:1 a:2 u:3 a:4 u:5", id="the end of it"),
        pytest.param("u:1 a:2 u:3 a:4", "a:x u:3 a:4 u:5", "a:x u:3 a:4 u:5", id="the end of it, with a changed reply"),
        pytest.param("u:1 c:2 t:3 a:4", "u:1 a:4 u:5", "u:1 a:4 u:5", id="calls of tools that were left out"),
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
def test_the_messages_that_the_model_gets(path: str, sent: str, expected: str) -> None:
    """The provider gets the messages of the request, and the stored messages that the request leaves out."""
    assert messages_for_model(stored(path), talk(sent)) == talk(expected)


def messages_for_model(path: Sequence[StoredMessage], sent: Sequence[Message], *between: StoredMessage) -> tuple[Message, ...]:
    """Return the messages for the model. `between` are stored messages that were added before the turn began."""
    found = continuation(path, sent)
    return messages_of(found, [*up_to(path, found.parent_id), *between])


def messages_of(found: Continuation, before: Sequence[StoredMessage]) -> tuple[Message, ...]:
    """Return the messages that the continuation gives the model, stored or new."""
    return tuple(entry.message for entry in found.for_model(before))


def reply(*parts: Block, **fields: Any) -> StoredMessage:
    """Return a stored reply to the first message."""
    return StoredMessage("1", "0", Message(Role.ASSISTANT, parts, **fields), MessageState.COMPLETE, NOW)


def test_a_repeated_reply_keeps_its_thoughts() -> None:
    """The stored thoughts of a repeated reply are sent, because clients leave them out and some providers need them.

    The client's thoughts and spaces are ignored.
    """
    path = [*stored("u:1"), reply(Thinking("Hm", state=State("sig")), Text("Hi"), ToolCall("c", "f", "{}"))]
    sent = Message(Role.ASSISTANT, (Thinking("made up"), Text("Hi "), ToolCall("c", "f", "{}")))
    sent_to_model = messages_for_model(path, (say("u:1"), sent, *talk("t:c")))
    assert sent_to_model[1].blocks == (Thinking("Hm", state=State("sig")), Text("Hi"), ToolCall("c", "f", "{}"))


@pytest.mark.parametrize("thoughts", [(), (Thinking("Hm"),)])
def test_a_repeated_empty_reply_is_taken_from_the_store(thoughts: tuple[Block, ...]) -> None:
    """An empty reply that the client repeats as an empty text is taken from the store, because providers refuse an empty text."""
    path = [*stored("u:1"), reply(*thoughts)]
    found = continuation(path, (say("u:1"), Message(Role.ASSISTANT, (Text(""),)), say("u:2")))
    assert found.new == talk("u:2")
    assert messages_of(found, path)[1] == path[1].message


def test_a_reply_of_thoughts_alone_need_not_be_repeated() -> None:
    """A client may leave out a reply that has thoughts alone, whether it goes on or tries the turn again."""
    path = [*stored("u:1"), reply(Thinking("Hm"))]
    assert tail_of(continuation(path, talk("u:1 u:2"))) == (talk("u:2"), "1", (1,))
    assert tail_of(continuation(path, talk("u:1"))) == ((), "0", ())


def test_a_call_that_the_client_changed_is_sent_as_changed() -> None:
    """A tool call whose arguments the client has changed is sent as the client has it."""
    path = [*stored("u:1"), reply(ToolCall("c", "f", '{"a":1}'))]
    changed = Message(Role.ASSISTANT, (ToolCall("c", "f", '{"a":2}'),))
    assert messages_for_model(path, (say("u:1"), changed, say("t:c")))[1] == changed


def test_fields_beside_the_text_are_those_of_the_request() -> None:
    """Names and `extra` fields of repeated messages are those of the request, such as a moving cache marker.

    Unknown fields of a stored reply are kept.
    """
    marked = Message(Role.USER, (Text("1", extra={"cache_control": {"type": "ephemeral"}}),), name="ann")
    path = [StoredMessage("0", None, marked, MessageState.COMPLETE, NOW), reply(Text("2"), extra={"annotations": [1], "x": 1})]
    plain, again = Message(Role.USER, (Text("1"),), name="bob"), Message(Role.ASSISTANT, (Text("2"),), extra={"x": 2})
    sent_to_model = messages_for_model(path, (plain, again, say("u:3")))
    assert sent_to_model == (plain, Message(Role.ASSISTANT, (Text("2"),), extra={"annotations": [1], "x": 2}), say("u:3"))


def test_new_messages_alone_go_on_after_a_turn_in_between() -> None:
    """If another turn was stored meanwhile, a request with new messages alone goes on after it.

    A request with the whole chat makes a branch.
    """
    path = stored("u:1 a:2")
    other = stored("u:1 a:2 u:3 a:4")[2:]
    assert messages_for_model(path, talk("s:0 u:5"), *other) == talk("s:0 u:1 a:2 u:3 a:4 u:5")
    assert continuation(path, talk("u:1 a:2 u:5")).parent_id == "1"


def test_typed_messages_come_after_the_path() -> None:
    """Messages of a typed request are not compared: all are new, and come after the stored path."""
    typed = Continuation(talk("s:9 u:3"), (0, 1))
    assert typed.new == talk("s:9 u:3")
    assert messages_of(typed, stored("s:0 u:1 a:2")) == talk("s:0 u:1 a:2 s:9 u:3")


# Properties that hold for any stored path and any request.

WORDS = st.sampled_from(["yes", "no", "Hi", " go on", "go on", "", "🎼 ", "two words"])
NEW = "never said before"


def message(role: Role, text: str) -> Message:
    return Message(role, (Text(text),) if text else ())


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[tuple[Message, MessageState]]:
    """Draw one turn: a question, perhaps a reply that broke off, perhaps tool calls, and a reply with or without a thought."""
    entries = [(message(Role.USER, f"{draw(WORDS)} {number}"), MessageState.COMPLETE)]
    if draw(st.booleans()):
        entries.append((message(Role.ASSISTANT, draw(st.sampled_from(["", f"cut {number}"]))), MessageState.INCOMPLETE))
        entries.append((message(Role.USER, f"again {number}"), MessageState.COMPLETE))
    for call in range(draw(st.integers(0, 2))):
        call_message = Message(Role.ASSISTANT, (Text(draw(WORDS)), ToolCall(f"{number}-{call}", "f", "{}")))
        entries.append((call_message, MessageState.COMPLETE))
        result = Message(Role.TOOL, (ToolResult(f"{number}-{call}", (Text(draw(WORDS)),)),))
        entries.append((result, MessageState.COMPLETE))
    thought = draw(st.sampled_from([(), (Thinking("Hm", state=State("sig")),)]))
    return [*entries, (Message(Role.ASSISTANT, (*thought, Text(f"{draw(WORDS)}!"))), MessageState.COMPLETE)]


@st.composite
def paths(draw: st.DrawFn) -> list[StoredMessage]:
    """Draw a stored path: perhaps instructions, perhaps a greeting, then turns."""
    entries = [(message(Role.SYSTEM, "Be brief."), MessageState.COMPLETE)] if draw(st.booleans()) else []
    if draw(st.booleans()):
        entries.append((message(Role.ASSISTANT, "Welcome."), MessageState.COMPLETE))
    entries += (each for number in range(draw(st.integers(1, 5))) for each in draw(turns(number)))
    return [StoredMessage(str(at), str(at - 1) if at else None, *each, NOW) for at, each in enumerate(entries)]


@st.composite
def received(draw: st.DrawFn, path: Sequence[StoredMessage]) -> list[Message]:
    """Draw the conversation as a client has it: without thoughts, with other spaces, and perhaps without replies that broke off."""
    found = []
    for row in path:
        cut = row.state is not MessageState.COMPLETE
        if row.message.role is Role.SYSTEM or (cut and (not row.message.blocks or draw(st.booleans()))):
            continue
        parts = tuple(part for part in row.message.blocks if not isinstance(part, Thinking))
        if parts and isinstance(parts[-1], Text) and draw(st.booleans()):
            parts = (*parts[:-1], Text(parts[-1].text.rstrip() + "\n"))
        found.append(replace(row.message, blocks=parts))
    return found


@st.composite
def requests(draw: st.DrawFn, sent: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Draw a request of perhaps instructions, the messages `sent` and one or two new ones. Return it and the new ones."""
    new = [message(Role.USER, NEW), *draw(st.sampled_from([[], [message(Role.USER, "and more")]]))]
    opening = draw(st.sampled_from([[], [message(Role.SYSTEM, "Be brief.")], [message(Role.SYSTEM, "Be long.")]]))
    return [*opening, *sent, *new], new


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_repeated_prefix_is_continued(data: st.DataObject) -> None:
    """A request that repeats a prefix of the path continues after it, stores nothing twice, and the provider gets what was sent."""
    path = data.draw(paths())
    prefix = path[: data.draw(st.integers(1, len(path)))]
    known = data.draw(received(prefix))
    assume(any(each.role is Role.ASSISTANT for each in known))
    sent, new = data.draw(requests(known))
    found = continuation(path, sent)
    before = list(up_to(path, found.parent_id))
    assert [row.id for row in before[: len(prefix)]] == [row.id for row in prefix]
    assert {row.state for row in before[len(prefix) :]} <= {MessageState.INCOMPLETE}
    stored_before = [row.message for row in path if row.message.role is Role.SYSTEM]
    assert list(found.new) == [*(each for each in sent if each.role is Role.SYSTEM and each not in stored_before), *new]
    sent_to_model = [entry for entry in found.for_model(before) if entry.row is None or entry.row.id in found.repeated]
    assert [trimmed(without_thoughts(entry.message)) for entry in sent_to_model] == list(map(trimmed, sent))
    thoughts = [part for row in before for part in row.message.blocks if isinstance(part, Thinking)]
    assert [part for entry in sent_to_model for part in entry.message.blocks if isinstance(part, Thinking)] == thoughts


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_repeated_end_is_continued(data: st.DataObject) -> None:
    """A request that repeats the end of the path continues after it and stores nothing twice.

    The provider gets the whole conversation.
    """
    path = data.draw(paths())
    known = data.draw(received(path[data.draw(st.integers(0, len(path) - 1)) :]))
    sent, new = data.draw(requests(known))
    found = continuation(path, sent)
    assert (found.new[-len(new) :], found.parent_id) == (tuple(new), path[-1].id)
    assert not {each.role for each in found.new[: -len(new)]} - {Role.SYSTEM}
    sent_to_model = [each for each in messages_of(found, path) if each.role is not Role.SYSTEM]
    assert len(sent_to_model) == len([row for row in path if row.message.role is not Role.SYSTEM]) + len(new)


def trimmed(each: Message) -> Message:
    """Return a reply without trailing spaces, in which the stored and the client's text may differ."""
    if each.role is not Role.ASSISTANT:
        return each
    return replace(
        each, blocks=tuple(replace(block, text=block.text.rstrip()) if isinstance(block, Text) else block for block in each.blocks)
    )


def without_thoughts(each: Message) -> Message:
    return replace(each, blocks=tuple(part for part in each.blocks if not isinstance(part, Thinking)))


TALK = ["u:1", "u:2", "a:1", "a:2", "a", "c:1", "t:1", "s:1", "s:2"]


@given(
    st.lists(st.sampled_from([*TALK, "a!", "a!:1", "a?"]), max_size=12), st.lists(st.sampled_from(TALK), min_size=1, max_size=12)
)
@example(["a:1", "s:1", "u:1"], ["a:1", "u:1"])
@settings(max_examples=500, deadline=None)
def test_nothing_is_lost_and_nothing_sent_twice(path: list[str], sent: list[str]) -> None:
    """For any request the provider gets each sent message once and in order.

    All it gets besides is stored before it, and the same is stored.
    """
    rows, messages = stored(" ".join(path)), talk(" ".join(sent))
    found = continuation(rows, messages)
    before = up_to(rows, found.parent_id)
    sent_to_model = found.for_model(before)
    assert tuple(entry.message for entry in sent_to_model if entry.row is None or entry.row.id in found.repeated) == messages
    assert without_instructions(entry.message for entry in sent_to_model) == without_instructions(
        [*(row.message for row in before), *found.new]
    )
    if any(each.role is Role.ASSISTANT for each in without_instructions(messages)[:-1]):
        between = dropwhile(lambda entry: entry.row is None or entry.row.id not in found.repeated, sent_to_model)
        rows = [entry.row for entry in between if entry.row is not None and entry.row.id not in found.repeated]
        talk_rows = [row for row in rows if row.message.role is not Role.SYSTEM]  # stored instructions stay, unless others are sent
        assert all(row.state is not MessageState.COMPLETE or not row.message.blocks for row in talk_rows)


def without_instructions(messages: Iterable[Message]) -> list[Message]:
    return [each for each in messages if each.role is not Role.SYSTEM]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_turn_that_failed_is_the_same_when_it_is_sent_again(data: st.DataObject) -> None:
    """Sending a failed turn again stores nothing new, and the provider gets the same messages as before."""
    path = data.draw(paths())
    known = data.draw(st.one_of(st.just([]), received(path[data.draw(st.integers(0, len(path) - 1)) :])))
    sent, _ = data.draw(requests(known))
    if data.draw(st.booleans()):
        sent.append(message(Role.ASSISTANT, "Sure, "))
    first = continuation(path, sent)
    before = list(up_to(path, first.parent_id))
    new = [StoredMessage(f"new {at}", None, each, MessageState.COMPLETE, NOW) for at, each in enumerate(first.new)]
    failed = StoredMessage("failed", None, message(Role.ASSISTANT, ""), MessageState.FAILED, NOW)
    again = continuation([*before, *new, failed], sent)
    assert (again.new, again.parent_id) == ((), new[-1].id)
    assert messages_of(again, [*before, *new]) == messages_of(first, before)


def test_a_chat_that_says_one_thing_over_and_over_is_found_in_it() -> None:
    """A repetitive conversation of 8,000 messages is matched correctly and fast, whole or from any place."""
    path = stored("u:yes a:yes " * 4000)
    chat = tuple(row.message for row in path)
    for sent in (chat, chat[4000:], chat[-2:]):
        assert continuation(path, (*sent, message(Role.USER, NEW))).places == (len(sent),)
