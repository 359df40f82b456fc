"""Measures times and counts tokens of one call. No I/O."""

from __future__ import annotations

import time
from typing import Final

from msgspec.structs import replace

from antiphon.domain.call import CANCELLATIONS
from antiphon.domain.content import NOTHING, Image, RedactedThinking, ToolCall
from antiphon.domain.events import (
    AttemptReport,
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
from antiphon.domain.output import OUTPUT_BLOCKS
from antiphon.domain.request import ChatRequest
from antiphon.domain.tokens import AUDIO_TOKENS, json_characters, prompt_tokens, text_tokens

_DELTAS: Final = frozenset({ThinkingDelta, InputDelta, RefusalDelta, MediaDelta})


class Stopwatch:
    """Measures one reply, from its construction on."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._start = time.monotonic()
        self.first_token: float | None = None
        """Seconds to the first delta; None if none came."""
        self._last = self._end = self._start
        self._chunks = 0
        self._characters = 0
        self._recordings: set[int] = set()
        self.reported: Usage | None = None
        """The last usage that the provider reported."""

    @property
    def has_delta(self) -> bool:
        """Return whether any output of the reply has come."""
        return bool(self._chunks or self._characters)

    def see(self, batch: Batch) -> None:
        """Measure a batch at its arrival. Runs for every token of every stream."""
        self._end = time.monotonic()
        chunks = 0
        after_start = False  # the previous event started a block, in the same chunk as the first delta of it
        for event in batch:
            kind = type(event)
            if kind is TextDelta:
                self._characters += len(event.text)  # type: ignore[union-attr]
                chunks += 1 if event.text or event.logprobs else 0  # type: ignore[union-attr]  # an empty text is no output
            elif kind in _DELTAS:
                self._characters += self._characters_of(event)
                chunks += 0 if after_start else 1
            elif kind is Usage:
                self.reported = event  # type: ignore[assignment]
            elif kind is ExtraFields or (kind is BlockStarted and isinstance(event.value, OUTPUT_BLOCKS)):  # type: ignore[union-attr]
                after_start = self._count_content(event)
                chunks += after_start
                continue
            elif kind is not BlockFinished:
                after_start = False
                continue
            after_start = False
        if chunks:
            self._chunks += chunks
            self._last = self._end
            if self.first_token is None:
                self.first_token = self._last - self._start

    def usage(self) -> Usage:
        """Return the last usage that the provider reported; without one an estimate of what has come so far, marked as estimated.

        The output is estimated, too, if the provider counted it before there was any.
        """
        reported = self.reported
        if reported is not None and not reported.estimated:
            return reported
        completion = text_tokens(self._characters) + AUDIO_TOKENS * len(self._recordings)
        if reported is None:
            prompt = prompt_tokens(self._request)
            return Usage(prompt, completion, prompt + completion, estimated=True)
        completion = max(completion, reported.output_tokens)
        return replace(reported, output_tokens=completion, total_tokens=reported.input_tokens + completion)

    def usage_on_error(self, error: BaseException | None) -> Usage | None:
        """Return the usage of a call that ended with `error`; None if the provider did not accept the request.

        A provider that accepted it has processed the prompt, even if nobody waited for the reply.
        """
        return self.usage() if isinstance(error, CANCELLATIONS) or self._end > self._start else None

    def _characters_of(self, event: Event) -> int:
        """Return the number of characters of a delta that is not plain text. Audio is counted by recordings instead."""
        match event:
            case InputDelta() | ThinkingDelta() | RefusalDelta():
                return len(event.text)
            case MediaDelta():
                if event.data:
                    self._recordings.add(event.block)
                return len(event.transcript)
            case _:
                return 0

    def _count_content(self, event: Event) -> bool:
        """Count the content that a block has at its start, and fields of the message. Returns whether a block with output began.

        Signatures are not counted, as the model did not generate them.
        """
        match event:
            case BlockStarted(value=value):
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

    def metrics(self, cost: float | None, attempts: tuple[AttemptReport, ...] = ()) -> Metrics:
        """Return the measurements of the call, which is over. `cost` is in USD."""
        gaps = self._chunks - 1
        first = self.first_token
        return Metrics(
            latency=self._end - self._start,
            time_to_first_token=first,
            inter_token_latency=(self._last - self._start - first) / gaps if first is not None and gaps > 0 else None,
            chunks=self._chunks,
            cost_usd=cost,
            attempts=attempts,
        )


def closing(batch: Batch, usage: Usage, metrics: Metrics) -> Batch:
    """Return the last batch with `usage` and `metrics` inserted before the first `Finished`."""
    whole: Batch = []
    is_inserted = False
    for event in batch:
        if type(event) is Finished and not is_inserted:
            whole += (usage, metrics)
            is_inserted = True
        if type(event) is not Usage:
            whole.append(event)
    return whole
