"""Replies and their events as typed messages. Nothing else; the way in is `convert_request`."""

from __future__ import annotations

import base64
import time
from datetime import datetime
from typing import assert_never

from google.protobuf import timestamp_pb2

from antiphon import domain
from antiphon.domain.reply import Reply, ReplyChoice
from antiphon.rpc.convert.json_struct import struct_of
from antiphon.v1 import chat_pb2, message_pb2

REASONS = {
    domain.FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    domain.FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    domain.FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    domain.FinishReason.FUNCTION_CALL: chat_pb2.FINISH_REASON_TOOL_CALLS,
    domain.FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
    domain.FinishReason.OTHER: chat_pb2.FINISH_REASON_UNSPECIFIED,
}


def batch_to_proto(batch: domain.Batch, sequence: int) -> chat_pb2.StreamGenerateResponse:
    """One answer of a stream; `sequence` is that of its first event. May be empty: not every event has a typed form."""
    events: list[chat_pb2.StreamEvent] = []
    for event in batch:
        made = _event(event, sequence + len(events))
        if made is not None:
            events.append(made)
    return chat_pb2.StreamGenerateResponse(events=events)


def reply_to_proto(reply: Reply) -> chat_pb2.GenerateResponse:
    """A whole reply."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    return chat_pb2.GenerateResponse(
        id=started.id,
        model=started.model,
        provider=started.provider,
        create_time=timestamp_pb2.Timestamp(seconds=started.created),
        choices=[_choice(choice) for choice in reply.choices],
        usage=usage_to_proto(reply.usage) if reply.usage else None,
        extra=struct_of(started.extra),
        conversation_id=started.conversation_id,
        message_id=started.message_id,
        metrics=_metrics(reply.metrics) if reply.metrics else None,
    )


def _event(event: domain.Event, sequence: int) -> chat_pb2.StreamEvent | None:  # noqa: C901  # a match over events
    match event:
        case domain.TextDelta():
            delta = chat_pb2.TextDelta(choice=event.choice, text=event.text, logprobs=map(_logprob, event.logprobs))
            return chat_pb2.StreamEvent(sequence=sequence, text=delta)
        case domain.ThinkingDelta():
            thinking = chat_pb2.ThinkingDelta(
                choice=event.choice, text=event.text, signature=event.signature or "", redacted=event.redacted or ""
            )
            return chat_pb2.StreamEvent(sequence=sequence, thinking=thinking)
        case domain.ToolCallDelta():
            call = chat_pb2.ToolCallDelta(
                choice=event.choice,
                index=event.index,
                id=event.id or "",
                name=event.name or "",
                arguments=event.arguments,
                signature=event.signature or "",
                extra=struct_of(event.extra),
            )
            return chat_pb2.StreamEvent(sequence=sequence, tool_call=call)
        case domain.RefusalDelta():
            refusal = chat_pb2.RefusalDelta(choice=event.choice, text=event.text)
            return chat_pb2.StreamEvent(sequence=sequence, refusal=refusal)
        case domain.AudioDelta():
            audio = chat_pb2.AudioDelta(
                choice=event.choice,
                id=event.id or "",
                data=base64.b64decode(event.data),
                transcript=event.transcript,
                expire_time=timestamp_pb2.Timestamp(seconds=event.expires) if event.expires else None,
            )
            return chat_pb2.StreamEvent(sequence=sequence, audio=audio)
        case domain.ExtraDelta():
            extra = chat_pb2.ExtraDelta(
                choice=event.choice, fields=struct_of(event.fields), choice_fields=struct_of(event.choice_fields)
            )
            return chat_pb2.StreamEvent(sequence=sequence, extra=extra)
        case domain.ReplyExtra(repeats=True):
            return None
        case domain.ReplyExtra():
            return chat_pb2.StreamEvent(sequence=sequence, reply_extra=chat_pb2.ReplyExtra(fields=struct_of(event.fields)))
        case domain.Usage():
            return chat_pb2.StreamEvent(sequence=sequence, usage=usage_to_proto(event))
        case domain.Metrics():
            return chat_pb2.StreamEvent(sequence=sequence, metrics=_metrics(event))
        case domain.Finished():
            finished = chat_pb2.Finished(choice=event.choice, reason=REASONS[event.reason], provider_reason=event.provider_reason)
            return chat_pb2.StreamEvent(sequence=sequence, finished=finished)
        case domain.Started():
            started = chat_pb2.Started(
                id=event.id,
                model=event.model,
                provider=event.provider,
                create_time=timestamp_pb2.Timestamp(seconds=event.created or int(time.time())),
                extra=struct_of(event.extra),
                conversation_id=event.conversation_id,
                message_id=event.message_id,
            )
            return chat_pb2.StreamEvent(sequence=sequence, started=started)
        case domain.DeltaGroup():
            return None
        case _:
            assert_never(event)


def _choice(choice: ReplyChoice) -> chat_pb2.Choice:
    parts: list[message_pb2.Part] = []
    if choice.thinking or choice.signature or choice.redacted:
        thinking = message_pb2.Thinking(
            text="".join(choice.thinking), signature=choice.signature or "", redacted=choice.redacted or ""
        )
        parts.append(message_pb2.Part(thinking=thinking))
    if choice.text:
        parts.append(message_pb2.Part(text="".join(choice.text)))
    if choice.audio:
        data = b"".join(map(base64.b64decode, choice.audio.data))
        transcript = struct_of({"id": choice.audio.id, "transcript": "".join(choice.audio.transcript)})
        audio = message_pb2.Audio(media=message_pb2.Media(data=data))
        parts.append(message_pb2.Part(audio=audio, extra=transcript))
    if choice.refusal:
        parts.append(message_pb2.Part(refusal="".join(choice.refusal)))
    extra, calls = choice.extra, choice.calls()
    for call in calls:
        if isinstance(call, domain.ToolCall):
            made = message_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments, signature=call.signature or "")
            parts.append(message_pb2.Part(tool_call=made, extra=struct_of(call.extra)))
    if others := [call for call in calls if not isinstance(call, domain.ToolCall)]:
        extra = {**extra, "tool_calls": others}
    message = message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, parts=parts, extra=struct_of(extra))
    return chat_pb2.Choice(
        index=choice.index,
        message=message,
        finish_reason=REASONS[choice.reason],
        provider_reason=choice.provider_reason,
        logprobs=map(_logprob, choice.logprobs),
        extra=struct_of(choice.choice_extra),
    )


def time_to_proto(moment: datetime) -> timestamp_pb2.Timestamp:
    """A time in UTC."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(moment)
    return made


def usage_to_proto(usage: domain.Usage) -> chat_pb2.Usage:
    """The tokens used."""
    return chat_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        audio_prompt_tokens=usage.audio_prompt_tokens,
        audio_completion_tokens=usage.audio_completion_tokens,
        extra=struct_of(usage.extra),
        estimated=usage.estimated,
    )


def _metrics(metrics: domain.Metrics) -> chat_pb2.Metrics:
    return chat_pb2.Metrics(
        latency_seconds=metrics.latency,
        time_to_first_token_seconds=metrics.time_to_first_token,
        inter_token_latency_seconds=metrics.inter_token_latency,
        chunks=metrics.chunks,
        cost_usd=metrics.cost_usd,
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
