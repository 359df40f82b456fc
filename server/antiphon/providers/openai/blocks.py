"""Numbering, state and signatures of the blocks that the readers of an OpenAI answer make. No I/O."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import NOTHING, Block, Image, JsonObject, Opaque, Origin, RedactedThinking, State, ToolCall
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Event

PROTOCOL: Final = "openai-chat"
"""The protocol's name in the origin of a reply."""

GOOGLE: Final = "google"
EXTRA_CONTENT: Final = "extra_content"
SIGNATURE: Final = "thought_signature"


class BlockNumbers:
    """Numbers the blocks of a reply, over all its choices."""

    def __init__(self) -> None:
        self._next = 0

    def begin(self, choice: int, value: Block, events: Batch) -> int:
        """Append the start of a block, and return the block's number."""
        number = self._next
        self._next = number + 1
        events.append(BlockStarted(number, choice, value))
        return number

    def add_complete(self, choice: int, value: Block, events: Batch) -> None:
        """Append the start and the end of a block that is already complete."""
        events.append(BlockFinished(self.begin(choice, value, events)))


def take_signature(fields: dict[str, Any]) -> str | None:
    """Remove Google's signature, `extra_content.google.thought_signature`, from `fields`, and return it; None if there is none."""
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
    """Return a `State` with these values; None if both are empty."""
    return State(opaque, fields) if opaque is not None or fields else None


def chat_fields(state: State | None, origin: Origin | None) -> JsonObject:
    """Return the other fields of a block that have a place in this API: those of a provider with another protocol have none.

    `origin` is that of the block's message.
    """
    if state is None:
        return NOTHING
    maker = state.origin or origin
    return state.fields if maker is None or maker.protocol in ("", PROTOCOL) else NOTHING


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
