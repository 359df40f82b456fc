"""Numbering and state of the blocks that a reader makes. No I/O."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from antiphon.domain.content import NOTHING, Block, Image, JsonObject, Opaque, RedactedThinking, State, ToolCall
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Event


class BlockNumbers(Struct):
    """Numbers the blocks of a reply, over all its choices."""

    _next: int = 0

    def begin(self, choice: int, value: Block, events: Batch) -> int:
        """Append the start of a block, and return the block's number."""
        number = self._next
        self._next = number + 1
        events.append(BlockStarted(number, choice, value))
        return number

    def add_complete(self, choice: int, value: Block, events: Batch) -> None:
        """Append the start and the end of a block that is already complete."""
        events.append(BlockFinished(self.begin(choice, value, events)))


def state_of(opaque: str | None, fields: JsonObject = NOTHING) -> State | None:
    """Return a `State` with these values; None if both are empty."""
    return State(opaque, fields) if opaque is not None or fields else None


_WRITTEN_AT_START: Final = (ToolCall, Image, Opaque, RedactedThinking)
"""Blocks that a dialect already writes something for when they start."""


def is_written(event: Event) -> bool:
    """Return whether a dialect that streams deltas writes something for an event."""
    match event:
        case BlockStarted():
            return isinstance(event.value, _WRITTEN_AT_START)
        case BlockFinished():
            return event.state is not None
        case _:
            return True
