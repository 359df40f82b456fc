"""Times and counts of one call. No I/O."""

from __future__ import annotations

import time
from typing import Final

from antiphon.domain.call import CANCELLATIONS
from antiphon.domain.content import NOTHING, Compaction, Image, Opaque, RedactedThinking, ServerToolCall, ServerToolResult, ToolCall
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    InputDelta,
    MediaDelta,
    Metrics,
    Place,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest
from antiphon.domain.tokens import AUDIO_TOKENS, json_characters, prompt_tokens, text_tokens

_DELTAS: Final = frozenset({ThinkingDelta, InputDelta, RefusalDelta, MediaDelta})
_OUTPUT: Final = (ToolCall, RedactedThinking, Image, Opaque, ServerToolCall, ServerToolResult, Compaction)
"""Blocks of which there is output when they begin."""


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._start = time.monotonic()
        self._first: float | None = None
        self._last = self._end = self._start
        self._chunks = 0
        self._characters = 0
        self._recordings: set[int] = set()

    @property
    def has_delta(self) -> bool:
        """Whether anything of the reply itself has come."""
        return bool(self._chunks or self._characters)

    def see(self, batch: Batch) -> None:
        """Takes note of a batch, at the moment it comes. Runs for every token of every stream."""
        self._end = time.monotonic()
        chunks = 0
        begun = False  # the event before was the start of a block, which came in one delta with the first of it
        for event in batch:
            kind = type(event)
            if kind is TextDelta:
                self._characters += len(event.text)  # type: ignore[union-attr]
                chunks += 1 if event.text or event.logprobs else 0  # type: ignore[union-attr]  # "" alone is nothing said
            elif kind in _DELTAS:
                self._characters += self._said(event)
                chunks += 0 if begun else 1
            elif kind is not BlockFinished:
                begun = self._other(event)
                chunks += begun
                continue
            begun = False
        if chunks:
            self._chunks += chunks
            self._last = self._end
            if self._first is None:
                self._first = self._last

    def usage(self, batch: Batch) -> Usage:
        """The tokens used: those that the last batch tells, else an estimate, of what has come so far, that says so."""
        for event in batch:
            if type(event) is Usage:
                return event
        prompt = prompt_tokens(self._request)
        completion = text_tokens(self._characters) + AUDIO_TOKENS * len(self._recordings)
        return Usage(prompt, completion, prompt + completion, estimated=True)

    def broken_off(self, error: BaseException | None) -> Usage | None:
        """Return what was used of a call that ended with `error`; None if the provider has not taken the request.

        One that was asked reads a prompt whether or not anybody waits for what it says.
        """
        return self.usage([]) if isinstance(error, CANCELLATIONS) or self._end > self._start else None

    @property
    def first_token(self) -> float | None:
        """Seconds to the first delta; None where none came."""
        return None if self._first is None else self._first - self._start

    def _said(self, event: Event) -> int:
        """Characters of a delta that is not plain text. Sound counts by the recording."""
        match event:
            case InputDelta() | ThinkingDelta() | RefusalDelta():
                return len(event.text)
            case MediaDelta():
                if event.data:
                    self._recordings.add(event.block)
                return len(event.transcript)
            case _:
                return 0

    def _other(self, event: Event) -> bool:
        """Count what is known of a block at its start, and fields of the message. Returns whether a block with output began.

        A signature is none of the model's.
        """
        match event:
            case BlockStarted(value=value) if isinstance(value, _OUTPUT):
                fields = value.state.fields if value.state is not None else NOTHING
                if isinstance(value, ToolCall):
                    self._characters += len(value.name) + json_characters(fields)
                elif isinstance(value, RedactedThinking):
                    self._characters += len(value.state.opaque or "") if value.state is not None else 0
                elif isinstance(value, Image):
                    self._characters += json_characters(value.media.url or "")
                else:
                    self._characters += json_characters(fields)
                return True
            case ExtraFields(place=Place.MESSAGE):
                self._characters += json_characters(event.fields)
                return False
            case _:
                return False

    def metrics(self, cost: float | None) -> Metrics:
        """What the call took, now that it is over."""
        gaps = self._chunks - 1
        first = self._first
        return Metrics(
            latency=self._end - self._start,
            time_to_first_token=self.first_token,
            inter_token_latency=(self._last - first) / gaps if first is not None and gaps > 0 else None,
            chunks=self._chunks,
            cost_usd=cost,
        )


def closing(batch: Batch, usage: Usage, metrics: Metrics) -> Batch:
    """The last batch with `usage` and `metrics` before the first `Finished`."""
    rest: Batch = [event for event in batch if type(event) is not Usage]
    at = next(index for index, event in enumerate(rest) if type(event) is Finished)
    return [*rest[:at], usage, metrics, *rest[at:]]
