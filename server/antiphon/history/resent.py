"""What is new in a conversation that a caller sends again as a whole. No I/O.

Chat clients hold the conversation themselves and send all of it with each turn. What is stored already must not be stored twice,
and yet a caller that sends only its new message must be understood too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec
from msgspec import Struct

from antiphon.history.base import MessageState, StoredMessage
from antiphon.messages import Message, Part, Refusal, Role, Text, Thinking, ToolCall, ToolResult

_INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})


class Continuation(Struct, frozen=True):
    """How a conversation goes on: `new` behind `parent_id`, None being the head."""

    new: tuple[Message, ...]
    parent_id: str | None


def continuation(path: Sequence[StoredMessage], sent: Sequence[Message]) -> Continuation:
    """What of `sent` is not on the stored `path` yet, and where it belongs.

    Messages are the same if role and content are. Instructions (system, developer) are compared apart from the talk: one that is
    stored somewhere on the path is not stored again, another goes with the new messages.

    1. `sent` begins with the whole path: what follows is new, behind the head.
    2. `sent` begins with a part of the path that holds a reply, then differs or ends: the caller went back and said something
       else, or wants another reply. A branch begins there; what was there before stays stored.
    3. Anything else repeats nothing: all of it is new, behind the head. So a caller may also send its new messages only, and
       saying "yes" twice is not taken for a repetition.

    A reply that broke off, or says nothing, need not be repeated, and may be repeated in any length: its caller has seen less of
    it, or nothing. It stays on the path if something new follows; if nothing does, the caller wants that reply again.
    """
    talk = [message for message in sent if message.role not in _INSTRUCTIONS]
    stored = [message for message in path if message.message.role not in _INSTRUCTIONS]
    last, heard, at = _common(stored, talk)
    whole = heard > 0 and all(map(_broke_off, stored[at:]))
    if not whole and all(message.role is not Role.ASSISTANT for message in talk[:heard]):
        heard, last = 0, None
    elif whole and heard < len(talk):
        last = None  # whatever the head is by now: a turn that came between is not left aside
    known = {_key(message.message) for message in path if message.message.role in _INSTRUCTIONS}
    new: list[Message] = []
    for message in sent:
        if message.role in _INSTRUCTIONS:
            if _key(message) not in known:
                new.append(message)
        elif heard:
            heard -= 1
        else:
            new.append(message)
    return Continuation(tuple(new), last)


def _common(stored: Sequence[StoredMessage], talk: Sequence[Message]) -> tuple[str | None, int, int]:
    """The last stored message that both have, how many of `talk` are stored, and how far in `stored` that is."""
    last: str | None = None
    heard = at = 0
    for index, message in enumerate(stored):
        if heard == len(talk):
            break
        if _key(message.message) == _key(talk[heard]) or (_broke_off(message) and talk[heard].role is Role.ASSISTANT):
            last, heard, at = message.id, heard + 1, index + 1
        elif not _broke_off(message):
            break
    return last, heard, at


def _broke_off(message: StoredMessage) -> bool:
    said = message.message.parts or message.message.extra
    return message.message.role is Role.ASSISTANT and (message.state is not MessageState.COMPLETE or not said)


def _key(message: Message) -> Hashable:
    """What makes two messages the same: who, and what. White space around it does not count, as clients trim it."""
    text: list[str] = []
    other: list[bytes | tuple[str, ...]] = []
    for part in message.parts:
        _add(part, text, other)
    return message.role, "".join(text).strip(), tuple(other)


def _add(part: Part, text: list[str], other: list[bytes | tuple[str, ...]]) -> None:
    match part:
        case Text():
            text.append(part.text)
        case Thinking():
            pass  # clients do not send it back
        case Refusal():
            text.append(part.text)
        case ToolCall():
            other.append((part.id, part.name))
        case ToolResult():
            other.append((part.tool_call_id,))
            for inner in part.parts:
                _add(inner, text, other)
        case _:
            other.append(msgspec.json.encode(part))
