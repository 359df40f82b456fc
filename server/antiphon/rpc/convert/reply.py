"""Converts replies and their events to typed messages. `convert.request` converts requests."""

from __future__ import annotations

import base64
import time
from datetime import datetime
from typing import Final, assert_never

from google.protobuf import timestamp_pb2

from antiphon import domain
from antiphon.domain.reply import Reply, ReplyBlock, ReplyChoice
from antiphon.domain.warnings import ParameterWarning, Treatment
from antiphon.rpc.convert.blocks import (
    block_to_proto,
    citation_to_proto,
    json_bytes,
    message_to_proto,
    origin_to_proto,
    state_to_proto,
)
from antiphon.v1 import chat_pb2, message_pb2

REASONS: Final = {
    domain.FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    domain.FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    domain.FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    domain.FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
    domain.FinishReason.REFUSAL: chat_pb2.FINISH_REASON_REFUSAL,
    domain.FinishReason.PAUSE: chat_pb2.FINISH_REASON_PAUSE,
    domain.FinishReason.CONTEXT_WINDOW: chat_pb2.FINISH_REASON_CONTEXT_WINDOW,
    domain.FinishReason.OTHER: chat_pb2.FINISH_REASON_UNSPECIFIED,
}

_TREATMENTS: Final = {
    Treatment.DROPPED: chat_pb2.ParameterWarning.TREATMENT_DROPPED,
    Treatment.MAPPED: chat_pb2.ParameterWarning.TREATMENT_MAPPED,
}

_PLACES: Final = {
    domain.Place.MESSAGE: chat_pb2.ExtraFields.PLACE_MESSAGE,
    domain.Place.CHOICE: chat_pb2.ExtraFields.PLACE_CHOICE,
    domain.Place.REPLY: chat_pb2.ExtraFields.PLACE_REPLY,
}


def batch_to_proto(batch: domain.Batch, sequence: int) -> chat_pb2.StreamGenerateResponse:
    """Return a batch as one message of a stream. `sequence` is the number of its first event.

    The message may have no events, as some domain events have no typed form.
    """
    answer = chat_pb2.StreamGenerateResponse(sequence=sequence)
    events = answer.events
    for event in batch:
        if type(event) is domain.TextDelta:  # by far the most common event
            text = events.add().text
            text.block, text.text = event.block, event.text
            if event.logprobs:
                text.logprobs.extend(map(_logprob, event.logprobs))
        elif not isinstance(event, domain.DeltaGroup) and not (isinstance(event, domain.ExtraFields) and event.repeats):
            _fill(events.add(), event)
    return answer


def reply_to_proto(reply: Reply) -> chat_pb2.GenerateResponse:
    """Return a whole reply as a typed message."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    return chat_pb2.GenerateResponse(
        id=started.id,
        model=started.model,
        provider=started.origin.provider_name,
        create_time=timestamp_pb2.Timestamp(seconds=started.created),
        choices=[_choice(choice, started.origin) for choice in reply.choices],
        usage=usage_to_proto(reply.usage) if reply.usage else None,
        fields=json_bytes(started.fields),
        conversation_id=started.conversation_id,
        message_id=started.message_id,
        metrics=_metrics(reply.metrics) if reply.metrics else None,
        warnings=map(_warning, started.warnings),
    )


def _fill(made: chat_pb2.StreamEvent, event: domain.Event) -> None:  # noqa: C901  # a match over events
    match event:
        case domain.TextDelta():
            made.text.block, made.text.text = event.block, event.text
        case domain.ThinkingDelta():
            made.thinking.block, made.thinking.text = event.block, event.text
        case domain.InputDelta():
            made.input.block, made.input.text = event.block, event.text
        case domain.RefusalDelta():
            made.refusal.block, made.refusal.text = event.block, event.text
        case domain.BlockStarted():
            started = chat_pb2.BlockStarted(block=event.block, choice=event.choice, value=block_to_proto(event.value))
            made.block_started.CopyFrom(started)
        case domain.BlockFinished():
            made.block_finished.CopyFrom(
                chat_pb2.BlockFinished(
                    block=event.block,
                    state=None if event.state is None else state_to_proto(event.state),
                    call_id=event.call_id or "",
                )
            )
        case domain.MediaDelta():
            media = chat_pb2.MediaDelta(
                block=event.block,
                data=base64.b64decode(event.data),
                transcript=event.transcript,
                id=event.id,
                expire_time=timestamp_pb2.Timestamp(seconds=event.expires) if event.expires else None,
            )
            made.media.CopyFrom(media)
        case domain.CitationDelta():
            made.citation.CopyFrom(chat_pb2.CitationDelta(block=event.block, citation=citation_to_proto(event.citation)))
        case domain.BlockProgress():
            progress = chat_pb2.BlockProgress(block=event.block, status=event.status, fields=json_bytes(event.fields))
            made.progress.CopyFrom(progress)
        case domain.ExtraFields():
            extra = chat_pb2.ExtraFields(place=_PLACES[event.place], choice=event.choice or 0, fields=json_bytes(event.fields))
            made.extra.CopyFrom(extra)
        case domain.Usage():
            made.usage.CopyFrom(usage_to_proto(event))
        case domain.Metrics():
            made.metrics.CopyFrom(_metrics(event))
        case domain.Finished():
            finished = chat_pb2.Finished(
                choice=event.choice,
                reason=REASONS[event.reason],
                provider_reason=event.provider_reason,
                details=json_bytes(event.details),
            )
            made.finished.CopyFrom(finished)
        case domain.Started():
            made.started.CopyFrom(_started(event))
        case domain.DeltaGroup():
            pass
        case _:
            assert_never(event)


def _started(event: domain.Started) -> chat_pb2.Started:
    origin = origin_to_proto(event.origin)
    return chat_pb2.Started(
        id=event.id,
        model=event.model,
        provider=origin.provider,
        create_time=timestamp_pb2.Timestamp(seconds=event.created or int(time.time())),
        fields=json_bytes(event.fields),
        conversation_id=event.conversation_id,
        message_id=event.message_id,
        origin=origin,
        warnings=map(_warning, event.warnings),
    )


def _warning(warning: ParameterWarning) -> chat_pb2.ParameterWarning:
    return chat_pb2.ParameterWarning(
        parameter=".".join(warning.path),
        treatment=_TREATMENTS[warning.treatment],
        replacement=warning.replacement,
        reason=warning.reason,
    )


def _choice(choice: ReplyChoice, origin: domain.Origin) -> chat_pb2.Choice:
    message = message_to_proto(domain.Message(domain.Role.ASSISTANT, (), origin=origin, fields=choice.fields))
    message.blocks.extend(map(_block, choice.blocks))
    return chat_pb2.Choice(
        index=choice.index,
        message=message,
        finish_reason=REASONS[choice.reason],
        provider_reason=choice.provider_reason,
        logprobs=map(_logprob, choice.logprobs),
        fields=json_bytes(choice.choice_fields),
        details=json_bytes(choice.details),
    )


def _block(block: ReplyBlock) -> message_pb2.Block:
    """Return a block of a reply as a typed message, with the bytes of its audio, which stored blocks do not have."""
    made = block_to_proto(block.block())
    if block.data and isinstance(block.value, domain.Audio):
        made.audio.media.data = b"".join(map(base64.b64decode, block.data))
    return made


def time_to_proto(moment: datetime) -> timestamp_pb2.Timestamp:
    """Return a time as a protobuf timestamp."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(moment)
    return made


def usage_to_proto(usage: domain.Usage) -> chat_pb2.Usage:
    """Return the tokens used as a typed message."""
    parts = [
        chat_pb2.Usage.Part(
            model=part.model,
            type=part.type,
            input_tokens=part.input_tokens,
            output_tokens=part.output_tokens,
            cached_tokens=part.cached_tokens,
            cache_write_tokens=part.cache_write_tokens,
            cache_write_1h_tokens=part.cache_write_1h_tokens,
        )
        for part in usage.parts
    ]
    return chat_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        audio_input_tokens=usage.audio_input_tokens,
        audio_output_tokens=usage.audio_output_tokens,
        audio_cached_tokens=usage.audio_cached_tokens,
        image_input_tokens=usage.image_input_tokens,
        image_output_tokens=usage.image_output_tokens,
        server_tools=dict(usage.server_tools),
        parts=parts,
        fields=json_bytes(usage.extra),
        estimated=usage.estimated,
        service_tier=usage.service_tier,
    )


def _metrics(metrics: domain.Metrics) -> chat_pb2.Metrics:
    return chat_pb2.Metrics(
        latency_seconds=metrics.latency,
        time_to_first_token_seconds=metrics.time_to_first_token,
        inter_token_latency_seconds=metrics.inter_token_latency,
        chunks=metrics.chunks,
        cost_usd=metrics.cost_usd,
        attempts=[
            chat_pb2.Attempt(
                deployment=attempt.deployment,
                model=attempt.model,
                outcome=attempt.outcome,
                seconds=attempt.seconds,
                waited_seconds=attempt.waited,
            )
            for attempt in metrics.attempts
        ],
    )


def _logprob(entry: domain.JsonObject) -> chat_pb2.TokenLogprob:
    return chat_pb2.TokenLogprob(
        token=entry["token"],
        logprob=entry["logprob"],
        token_bytes=bytes(entry.get("bytes") or ()),
        alternatives=[
            chat_pb2.TokenLogprob.Alternative(
                token=other["token"], logprob=other["logprob"], token_bytes=bytes(other.get("bytes") or ())
            )
            for other in entry.get("top_logprobs") or ()
        ],
    )
