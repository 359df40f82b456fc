"""What counts as output of a model: after it was sent to the caller, no other attempt may answer. No I/O."""

from __future__ import annotations

from typing import Final

from antiphon.domain.content import Compaction, Image, Opaque, RedactedThinking, ServerToolCall, ServerToolResult, ToolCall
from antiphon.domain.events import (
    Batch,
    BlockProgress,
    BlockStarted,
    CitationDelta,
    InputDelta,
    MediaDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)

OUTPUT_BLOCKS: Final = (ToolCall, RedactedThinking, Image, Opaque, ServerToolCall, ServerToolResult, Compaction)
"""Blocks that count as output when they begin, before any delta."""

_DELTAS: Final = frozenset({ThinkingDelta, InputDelta, RefusalDelta, MediaDelta, CitationDelta, BlockProgress})


def has_output(batch: Batch) -> bool:
    """Return whether a batch has output. The start of a reply, an empty text, usage and the end are none."""
    for event in batch:
        kind = type(event)
        if kind is TextDelta:
            if event.text or event.logprobs:  # type: ignore[union-attr]
                return True
        elif kind in _DELTAS or (kind is BlockStarted and isinstance(event.value, OUTPUT_BLOCKS)):  # type: ignore[union-attr]
            return True
    return False
