"""Converts replies and their events to typed messages. `convert.request` converts requests.

What every reply has is filled in where it belongs: a message that is given to another one is copied, by writing and parsing it.
"""

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
    fill_origin,
    json_bytes,
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


_OPTIONAL_COUNTS: Final = (
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "audio_cached_tokens",
    "image_input_tokens",
    "image_output_tokens",
)
"""The numbers of tokens of `domain.Usage` that are None if the provider did not report them."""


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
    made = chat_pb2.GenerateResponse(
        id=started.id,
        model=started.model,
        provider=started.origin.provider_name,
        fields=json_bytes(started.fields),
        conversation_id=started.conversation_id,
        message_id=started.message_id,
        warnings=map(_warning, started.warnings),
    )
    made.create_time.seconds = started.created
    for choice in reply.choices:
        _fill_choice(made.choices.add(), choice, started.origin)
    if reply.usage:
        fill_usage(made.usage, reply.usage)
    if reply.metrics:
        _fill_metrics(made.metrics, reply.metrics)
    return made


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
            fill_usage(made.usage, event)
        case domain.Metrics():
            _fill_metrics(made.metrics, event)
        case domain.Finished():
            finished = made.finished
            finished.choice, finished.reason = event.choice, REASONS[event.reason]
            finished.provider_reason, finished.details = event.provider_reason, json_bytes(event.details)
        case domain.Started():
            _fill_started(made.started, event)
        case domain.DeltaGroup():
            pass
        case _:
            assert_never(event)


def _fill_started(made: chat_pb2.Started, event: domain.Started) -> None:
    made.id, made.model, made.fields = event.id, event.model, json_bytes(event.fields)
    made.conversation_id, made.message_id = event.conversation_id, event.message_id
    made.create_time.seconds = event.created or int(time.time())
    fill_origin(made.origin, event.origin)
    made.provider = made.origin.provider
    made.warnings.extend(map(_warning, event.warnings))


def _warning(warning: ParameterWarning) -> chat_pb2.ParameterWarning:
    return chat_pb2.ParameterWarning(
        parameter=".".join(warning.path),
        treatment=_TREATMENTS[warning.treatment],
        replacement=warning.replacement,
        reason=warning.reason,
    )


def _fill_choice(made: chat_pb2.Choice, choice: ReplyChoice, origin: domain.Origin) -> None:
    made.index, made.finish_reason, made.provider_reason = choice.index, REASONS[choice.reason], choice.provider_reason
    message = made.message
    message.role = message_pb2.ROLE_ASSISTANT
    fill_origin(message.origin, origin)
    for block in choice.blocks:
        if block.is_plain_text:
            message.blocks.add().text.text = block.text
        else:
            message.blocks.append(_block(block))
    if choice.fields:
        message.fields = json_bytes(choice.fields)
    if choice.logprobs:
        made.logprobs.extend(map(_logprob, choice.logprobs))
    if choice.choice_fields:
        made.fields = json_bytes(choice.choice_fields)
    if choice.details:
        made.details = json_bytes(choice.details)


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


def fill_usage(made: chat_pb2.Usage, usage: domain.Usage) -> None:
    """Set the tokens used in a typed message."""
    made.input_tokens, made.output_tokens, made.total_tokens = usage.input_tokens, usage.output_tokens, usage.total_tokens
    for name in _OPTIONAL_COUNTS:
        if (count := getattr(usage, name)) is not None:
            setattr(made, name, count)
    if usage.server_tools:  # else `update`, which is Python, would cost more than all the rest
        made.server_tools.update(usage.server_tools)
    for part in usage.parts:
        made.parts.add(
            model=part.model,
            type=part.type,
            input_tokens=part.input_tokens,
            output_tokens=part.output_tokens,
            cached_tokens=part.cached_tokens,
            cache_write_tokens=part.cache_write_tokens,
            cache_write_1h_tokens=part.cache_write_1h_tokens,
        )
    if usage.extra:
        made.fields = json_bytes(usage.extra)
    made.estimated, made.service_tier = usage.estimated, usage.service_tier


def _fill_metrics(made: chat_pb2.Metrics, metrics: domain.Metrics) -> None:
    made.latency_seconds, made.chunks = metrics.latency, metrics.chunks
    if metrics.time_to_first_token is not None:
        made.time_to_first_token_seconds = metrics.time_to_first_token
    if metrics.inter_token_latency is not None:
        made.inter_token_latency_seconds = metrics.inter_token_latency
    if metrics.cost_usd is not None:
        made.cost_usd = metrics.cost_usd
    for attempt in metrics.attempts:
        made.attempts.add(
            deployment=attempt.deployment,
            model=attempt.model,
            outcome=attempt.outcome,
            seconds=attempt.seconds,
            waited_seconds=attempt.waited,
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
