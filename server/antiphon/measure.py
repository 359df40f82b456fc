"""Times and counts of one call. No I/O."""

from __future__ import annotations

import time
from collections.abc import Sequence

from antiphon.messages import (
    AudioDelta,
    Batch,
    ChatRequest,
    Finished,
    Message,
    Metrics,
    RefusalDelta,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
)

_DELTAS = frozenset({ThinkingDelta, ToolCallDelta, RefusalDelta, AudioDelta})

_CHARACTERS_A_TOKEN = 4
"""The rule of thumb that providers give for English text."""

_TOKENS_A_MESSAGE = 4
"""What roles and separators take."""


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._start = time.monotonic()
        self._first: float | None = None
        self._last = self._end = self._start
        self._chunks = 0
        self._characters = 0

    @property
    def begun(self) -> bool:
        """Whether the provider has taken the request."""
        return self._end > self._start

    def see(self, batch: Batch) -> None:
        """Takes note of a batch, at the moment it comes. Runs for every token of every stream."""
        self._end = time.monotonic()
        chunks = 0
        for event in batch:
            if type(event) is TextDelta:
                self._characters += len(event.text)
                chunks += 1 if event.text or event.logprobs else 0  # "" alone is nothing said
            elif type(event) in _DELTAS:
                chunks += 1
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
        prompt = prompt_tokens(self._request.messages)
        completion = -(-self._characters // _CHARACTERS_A_TOKEN)
        return Usage(prompt, completion, prompt + completion, estimated=True)

    def metrics(self, cost: float | None) -> Metrics:
        """What the call took, now that it is over."""
        gaps = self._chunks - 1
        first = self._first
        return Metrics(
            latency=self._end - self._start,
            time_to_first_token=None if first is None else first - self._start,
            inter_token_latency=(self._last - first) / gaps if first is not None and gaps > 0 else None,
            chunks=self._chunks,
            cost_usd=cost,
        )


def closing(batch: Batch, usage: Usage, metrics: Metrics) -> Batch:
    """The last batch with `usage` and `metrics` before the first `Finished`."""
    rest: Batch = [event for event in batch if type(event) is not Usage]
    at = next(index for index, event in enumerate(rest) if type(event) is Finished)
    return [*rest[:at], usage, metrics, *rest[at:]]


def prompt_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens these messages are. Only text counts."""
    return sum(map(_tokens, messages))


def _tokens(message: Message) -> int:
    return _TOKENS_A_MESSAGE + -(-_characters(message.parts) // _CHARACTERS_A_TOKEN)


def _characters(parts: Sequence[object]) -> int:
    total = 0
    for part in parts:
        if isinstance(part, Text):
            total += len(part.text)
        elif isinstance(part, ToolResult):
            total += _characters(part.parts)
    return total
