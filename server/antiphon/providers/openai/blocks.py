"""The blocks of a reply as its reader begins and ends them. No I/O."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import NOTHING, Block, Image, JsonObject, Opaque, RedactedThinking, State, ToolCall
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Event

PROTOCOL: Final = "openai-chat"
"""The protocol, as the origin of a reply has it."""

GOOGLE: Final = "google"
EXTRA_CONTENT: Final = "extra_content"
SIGNATURE: Final = "thought_signature"


class BlockNumbers:
    """BlockNumbers the blocks of a reply, over all its choices."""

    def __init__(self) -> None:
        self._next = 0

    def begin(self, choice: int, value: Block, events: Batch) -> int:
        """Append the start of a block, and return its number."""
        number = self._next
        self._next = number + 1
        events.append(BlockStarted(number, choice, value))
        return number

    def add_complete(self, choice: int, value: Block, events: Batch) -> None:
        """Append a block of which all is known."""
        events.append(BlockFinished(self.begin(choice, value, events)))


def take_signature(fields: dict[str, Any]) -> str | None:
    """Remove Google's signature, `extra_content.google.thought_signature`, from some fields, and return it."""
    content = fields.get(EXTRA_CONTENT)
    google = content.get(GOOGLE) if isinstance(content, dict) else None
    signature = google.get(SIGNATURE) if isinstance(google, dict) else None
    if not isinstance(signature, str) or not isinstance(google, dict) or not isinstance(content, dict):
        return None
    rest = {name: value for name, value in google.items() if name != SIGNATURE}
    around = {name: value for name, value in content.items() if name != GOOGLE}
    if rest:
        around[GOOGLE] = rest
    if around:
        fields[EXTRA_CONTENT] = around
    else:
        del fields[EXTRA_CONTENT]
    return signature


def state_of(opaque: str | None, fields: JsonObject = NOTHING) -> State | None:
    """Return the state with these values; None for nothing."""
    return State(opaque, fields) if opaque is not None or fields else None


_WRITTEN_AT_START: Final = (ToolCall, Image, Opaque, RedactedThinking)
"""Blocks that a dialect writes something of when they begin."""


def is_written(event: Event) -> bool:
    """Whether a dialect with deltas writes something for an event."""
    match event:
        case BlockStarted():
            return isinstance(event.value, _WRITTEN_AT_START)
        case BlockFinished():
            return event.state is not None
        case _:
            return True
