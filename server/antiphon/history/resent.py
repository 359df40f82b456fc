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

    Messages are the same if role and content are. A reply is also the same as the stored one that it takes the place of: clients
    change replies, and leave out what they do not understand. Instructions (system, developer) are compared apart from the talk:
    one that is stored somewhere on the path is not stored again, another goes with the new messages.

    1. `sent` begins with the whole path, or with the end of it from some message on: what follows is new, behind the head.
    2. `sent` begins with a part of the path that holds a reply, then differs or ends: the caller went back and said something
       else, or wants another reply. A branch begins there; what was there before stays stored. Where it ends with a reply, that
       reply is wanted again, behind what it answered.
    3. Anything else repeats nothing: all of it is new, behind the head. So a caller may also send its new messages only, and
       saying "yes" twice is not taken for a repetition.

    A reply that broke off, or says nothing, need not be repeated, and may be repeated in any length: its caller has seen less of
    it, or nothing. It stays on the path if something new follows; if nothing does, the caller wants that reply again.
    """
    talk = [message for message in sent if message.role not in _INSTRUCTIONS]
    stored = [message for message in path if message.message.role not in _INSTRUCTIONS]
    heard, at, whole = _common(stored, talk)
    last: str | None = None
    if heard and heard == len(talk):
        asked = [message.id for message in stored[:at] if message.message.role is not Role.ASSISTANT]
        last = asked[-1] if asked else stored[at - 1].id
    elif heard and not whole:
        last = stored[at - 1].id  # else None, whatever the head is by now: a turn that came between is not left aside
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


def _common(stored: Sequence[StoredMessage], talk: Sequence[Message]) -> tuple[int, int, bool]:
    """How many of `talk` are stored, how far in `stored` that is, and whether it is all that matters of the path.

    Of the places where `talk` may begin on the path, the one where most is the same word for word.
    """
    ours, theirs = [_key(message.message) for message in stored], [_key(message) for message in talk]
    best, found = (0, 0, False, 0), (0, 0, False)
    for start in range(len(stored) if talk else 0):
        if start and ours[start] != theirs[0]:
            continue
        heard = at = same = 0
        for index in range(start, len(stored)):
            if heard == len(talk):
                break
            equal = ours[index] == theirs[heard]
            if equal or talk[heard].role is stored[index].message.role is Role.ASSISTANT:
                heard, at, same = heard + 1, index + 1, same + equal
            elif not _broke_off(stored[index]):
                break
        whole = heard > 0 and all(map(_broke_off, stored[at:]))
        replied = any(message.role is Role.ASSISTANT for message in talk[:heard])
        if (replied or (whole and not start)) and (same, heard, whole, start) > best:
            best, found = (same, heard, whole, start), (heard, at, whole)
    return found


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
