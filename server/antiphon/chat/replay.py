"""A turn that was made before, told again as it is stored."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.domain.content import Other, Refusal, Text, Thinking, ToolCall
from antiphon.domain.errors import TurnInProgress, TurnNotComplete
from antiphon.domain.events import (
    Batch,
    ExtraDelta,
    Finished,
    FinishReason,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from antiphon.history.base import MessageState, Turn


def replay(turn: Turn) -> Iterator[Batch]:
    """Yield the events of a stored turn: as it was answered, whatever guards have been added since.

    Raises `TurnInProgress` while it is still going on, and `TurnNotComplete` after what there is of one that failed.
    """
    reply = turn.reply
    if reply.state is MessageState.IN_PROGRESS:
        raise TurnInProgress(reply.request_id)
    told = turn.told
    created = told.created or int(reply.created.timestamp())
    started = Started(told.id or f"chatcmpl-{reply.id}", reply.model, reply.provider, created)
    batch: Batch = [started, *_deltas(turn)]
    if reply.state is not MessageState.COMPLETE:
        yield batch
        raise TurnNotComplete(reply.id)
    if reply.usage is not None:
        batch.append(reply.usage)
    reason = reply.finish_reason or FinishReason.STOP
    batch.append(Finished(0, reason, told.reason or reason.value))
    yield batch


def _deltas(turn: Turn) -> Batch:
    message = turn.reply.message
    batch: Batch = []
    calls = 0
    for part in message.parts:
        match part:
            case Text():
                batch.append(TextDelta(0, part.text))
            case Thinking():
                batch.append(ThinkingDelta(0, part.text, part.signature, part.redacted))
            case Refusal():
                batch.append(RefusalDelta(0, part.text))
            case ToolCall():
                batch.append(ToolCallDelta(0, calls, part.id, part.name, part.arguments, part.signature, part.extra))
                calls += 1
            case Other():
                batch.append(ExtraDelta(0, {"content": [part.fields]}))
            case _:
                pass  # a model says nothing else
    if extra := dict(message.extra):
        if "tool_calls" in extra:  # of kinds that are not known here
            extra["tool_calls"] = [{**call, "index": index} for index, call in enumerate(extra["tool_calls"])]
        batch.append(ExtraDelta(0, extra))
    return batch
