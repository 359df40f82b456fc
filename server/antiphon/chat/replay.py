"""Turns a stored reply into events again, for a request that was answered before."""

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
    Place,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
)
from antiphon.history.base import MessageState, Turn


def replay(turn: Turn) -> Iterator[Batch]:
    """Yield the events of a stored turn, as it was answered, even if guards have been added since.

    Raises `TurnInProgress` if it has not ended. Raises `TurnNotComplete`, after the events of what is stored, if it ended early.
    """
    reply = turn.reply
    if reply.state is MessageState.IN_PROGRESS:
        raise TurnInProgress(reply.request_id)
    info = turn.provider_info
    created = info.created or int(reply.created.timestamp())
    origin = reply.message.origin or Origin(provider=reply.provider, model=reply.model)
    started = Started(info.id or f"chatcmpl-{reply.id}", reply.model, origin, created, info.fields)
    batch: Batch = [started, *_deltas(turn)]
    if reply.state is not MessageState.COMPLETE:
        yield batch
        raise TurnNotComplete(reply.id)
    if reply.usage is not None:
        batch.append(reply.usage)
    reason = reply.finish_reason or FinishReason.STOP
    if info.choice:
        batch.append(ExtraFields(0, info.choice, Place.CHOICE))
    batch.append(Finished(0, reason, info.reason or reason.value, info.details))
    yield batch


def _deltas(turn: Turn) -> Batch:
    """Return the events of all blocks, and of the fields of the message."""
    message = turn.reply.message
    blocks = list(message.blocks)
    for place in turn.provider_info.empty_texts:
        blocks.insert(place, Text(""))
    batch: Batch = []
    for number, block in enumerate(blocks):
        batch += _events(number, block)
    if message.extra or message.fields:
        batch.append(ExtraFields(0, {**message.extra, **message.fields}))
    return batch


def _events(number: int, block: Block) -> Batch:
    """Return the events that make up a block, with its text in one delta."""
    batch: Batch = [BlockStarted(number, 0, block)]
    match block:
        case Text(text=text):
            batch[0] = BlockStarted(number, 0, replace(block, text="", citations=()))
            batch += [TextDelta(number, text)] if text else []
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
            pass  # the start event has all of it
    batch.append(BlockFinished(number))
    return batch
