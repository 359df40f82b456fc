"""A turn that was made before, told again as it is stored."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from antiphon.domain.content import Audio, Block, Origin, Refusal, ServerToolCall, Text, Thinking, ToolCall
from antiphon.domain.errors import TurnInProgress, TurnNotComplete
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
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
    origin = reply.message.origin or Origin(provider=reply.provider, model=reply.model)
    started = Started(told.id or f"chatcmpl-{reply.id}", reply.model, origin, created)
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
    for number, block in enumerate(message.blocks):
        batch += _events(number, block)
    if message.extra or message.fields:
        batch.append(ExtraFields(0, {**message.extra, **message.fields}))
    return batch


def _events(number: int, block: Block) -> Batch:
    """The events that a block is made of, its text in one delta."""
    batch: Batch = [BlockStarted(number, 0, block)]
    match block:
        case Text(text=text):
            batch[0] = BlockStarted(number, 0, replace(block, text="", citations=()))
            batch.append(TextDelta(number, text))
            batch.extend(CitationDelta(number, citation) for citation in block.citations)
        case Thinking(text=text):
            batch[0] = BlockStarted(number, 0, replace(block, text=""))
            batch += [ThinkingDelta(number, text)] if text else []
        case Refusal(text=text):
            batch = [BlockStarted(number, 0, replace(block, text="")), RefusalDelta(number, text)]
        case ToolCall(arguments=text):
            batch[0] = BlockStarted(number, 0, replace(block, arguments=""))
            batch += [InputDelta(number, text)] if text else []
        case ServerToolCall(input=str(text)):
            batch = [BlockStarted(number, 0, replace(block, input=None)), InputDelta(number, text)]
        case Audio(transcript=text) if text:
            batch = [BlockStarted(number, 0, replace(block, transcript="")), MediaDelta(number, transcript=text)]
        case _:
            pass  # all of it is known at its start
    batch.append(BlockFinished(number))
    return batch
