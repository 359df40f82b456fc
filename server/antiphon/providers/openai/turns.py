"""Brings messages into the order of roles that a host demands, without changing what was said. No I/O."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

from antiphon.domain.content import JsonObject

_NOTHING: Final = "."
"""What somebody says who has said nothing, where the host demands a message: it refuses an empty one."""

_INSTRUCTIONS: Final = ("system", "developer")


class Turns(Enum):
    """The order of roles that a host demands."""

    ANY = auto()
    REPLY_AFTER_RESULTS = auto()
    """Between the results of tools and the next message of the user there is a reply."""
    ALTERNATING = auto()
    """Instructions come first, and then the user and the model take turns."""


def in_turns(messages: list[JsonObject], turns: Turns) -> list[JsonObject]:
    """Return the messages in the order that the host demands."""
    match turns:
        case Turns.ANY:
            return messages
        case Turns.REPLY_AFTER_RESULTS:
            return _with_replies(messages)
        case Turns.ALTERNATING:
            return _alternating(messages)


def _with_replies(messages: list[JsonObject]) -> list[JsonObject]:
    """Return the messages with a reply between the results of tools and a message of the user."""
    made: list[JsonObject] = []
    for message in messages:
        if message["role"] == "user" and made and made[-1]["role"] == "tool":
            made.append({"role": "assistant", "content": _NOTHING})
        made.append(message)
    return made


def _alternating(messages: list[JsonObject]) -> list[JsonObject]:
    """Return the instructions, and then the other messages, of which consecutive ones of one role are joined."""
    first = [message for message in messages if message["role"] in _INSTRUCTIONS]
    turns: list[JsonObject] = []
    for message in messages:
        if message["role"] in _INSTRUCTIONS:
            continue
        if not turns and message["role"] == "assistant":
            turns.append({"role": "user", "content": _NOTHING})
        if turns and turns[-1]["role"] == message["role"] and message["role"] in ("user", "assistant"):
            turns[-1] = _joined(turns[-1], message)
        else:
            turns.append(message)
    return [*first, *turns]


def _joined(first: JsonObject, second: JsonObject) -> JsonObject:
    """Return two messages as one. Texts are separated by an empty line; the fields of both are kept."""
    one, other = first.get("content"), second.get("content")
    content: Any
    if isinstance(one, str) and isinstance(other, str):
        content = "\n\n".join(filter(None, (one, other)))
    else:
        content = [*_parts(one), *_parts(other)] or None
    calls = [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]
    return {**first, **second, "content": content, **({"tool_calls": calls} if calls else {})}


def _parts(content: Any) -> list[Any]:
    """Return a content as a list of parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content or ())
