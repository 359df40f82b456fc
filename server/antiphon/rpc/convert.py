"""Typed messages to domain values, and back. Nothing else.

Longer than other files: one vocabulary, field by field, in both directions.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, assert_never

from google.protobuf import json_format, struct_pb2, timestamp_pb2

from antiphon import messages as m
from antiphon.errors import InvalidRequest, Violation
from antiphon.history.base import MAX_REQUEST_ID, MAX_SOURCE, MAX_TITLE
from antiphon.history.recorder import Record
from antiphon.reply import Reply, ReplyChoice
from antiphon.v1 import chat_pb2, message_pb2

ROLES = {
    message_pb2.ROLE_SYSTEM: m.Role.SYSTEM,
    message_pb2.ROLE_DEVELOPER: m.Role.DEVELOPER,
    message_pb2.ROLE_USER: m.Role.USER,
    message_pb2.ROLE_ASSISTANT: m.Role.ASSISTANT,
    message_pb2.ROLE_TOOL: m.Role.TOOL,
}
REASONS = {
    m.FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    m.FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    m.FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    m.FinishReason.FUNCTION_CALL: chat_pb2.FINISH_REASON_TOOL_CALLS,
    m.FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
    m.FinishReason.OTHER: chat_pb2.FINISH_REASON_UNSPECIFIED,
}
_MODES = {
    chat_pb2.ToolChoice.MODE_UNSPECIFIED: m.ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_AUTO: m.ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_NONE: m.ToolChoiceMode.NONE,
    chat_pb2.ToolChoice.MODE_REQUIRED: m.ToolChoiceMode.REQUIRED,
    chat_pb2.ToolChoice.MODE_TOOL: m.ToolChoiceMode.TOOL,
}
_OWN_FIELDS = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "n",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "modalities",
        "audio",
        "user",
    ]
)
"""Parameters of the OpenAI API that the request has fields for."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, float("inf")),
    "max_tokens": (0, float("inf")),
    "max_completion_tokens": (0, float("inf")),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "choices": (1, 128),
    "top_logprobs": (0, 20),
}


def request_from_proto(request: chat_pb2.GenerateRequest, *, stream: bool) -> m.ChatRequest:
    """The domain's request. Raises `InvalidRequest` with every field at fault."""
    large = [name for name in ("messages", "tools") if len(getattr(request, name)) > m.MAX_ENTRIES]
    if large:
        wrong = tuple(Violation((name,), f"must not have more than {m.MAX_ENTRIES} entries", "too_long") for name in large)
        raise InvalidRequest("The request has too many entries.", wrong)
    try:
        return _request(request, stream=stream)
    except ValueError:  # of `json_format`
        raise InvalidRequest("The request is not valid: NaN and Infinity are no JSON.") from None


def _request(request: chat_pb2.GenerateRequest, *, stream: bool) -> m.ChatRequest:
    wrong: list[Violation] = []
    messages = tuple(_message(message, index, wrong) for index, message in enumerate(request.messages))
    result = m.ChatRequest(
        model=request.model,
        messages=messages,
        stream=stream,
        sampling=_sampling(request.sampling, wrong) if request.HasField("sampling") else m.Sampling(),
        tools=tuple(_tool(tool, index, wrong) for index, tool in enumerate(request.tools)),
        tool_choice=_tool_choice(request.tool_choice, wrong) if request.HasField("tool_choice") else None,
        parallel_tool_calls=request.parallel_tool_calls if request.HasField("parallel_tool_calls") else None,
        response_format=_format(request.response_format),
        reasoning=_reasoning(request.reasoning) if request.HasField("reasoning") else None,
        modalities=tuple(request.modalities),
        audio_output=m.AudioOutput(request.audio_output.voice, request.audio_output.format)
        if request.HasField("audio_output")
        else None,
        end_user=request.end_user or None,
        extra=_object(request.extra) if request.HasField("extra") else m.NOTHING,
    )
    wrong += [Violation(("extra", name), "has a field of its own") for name in result.extra if name in _OWN_FIELDS]
    if wrong:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(wrong))
    return result


def messages_from_proto(messages: Iterable[message_pb2.Message]) -> tuple[m.Message, ...]:
    """The domain's messages. Raises `InvalidRequest` with every field at fault."""
    wrong: list[Violation] = []
    found = tuple(_message(message, index, wrong) for index, message in enumerate(messages))
    if wrong:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(wrong))
    return found


def record_from_proto(recording: chat_pb2.Recording, owner: str) -> Record:
    """Where a turn is recorded. Raises `InvalidRequest`."""
    limits = (("request_id", MAX_REQUEST_ID), ("title", MAX_TITLE), ("source", MAX_SOURCE))
    wrong = tuple(
        Violation(("recording", field), f"must not be longer than {most} characters")
        for field, most in limits
        if len(getattr(recording, field)) > most
    )
    if recording.parent_message_id and not recording.conversation_id:
        wrong += (Violation(("recording", "parent_message_id"), "needs the conversation_id that it is part of"),)
    if wrong:
        raise InvalidRequest("The request is not valid: see the field violations.", wrong)
    return Record(
        owner,
        conversation=recording.conversation_id or None,
        request_id=recording.request_id,
        parent_id=recording.parent_message_id or None,
        title=recording.title,
        source=recording.source,
    )


def batch_to_proto(batch: m.Batch, sequence: int) -> chat_pb2.StreamGenerateResponse:
    """One answer of a stream; `sequence` is that of its first event."""
    events = [_event(event, number) for number, event in enumerate(batch, sequence)]
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


# Requests.


def _message(message: message_pb2.Message, index: int, wrong: list[Violation]) -> m.Message:
    path = ("messages", index)
    role = ROLES.get(message.role)
    if role is None:
        wrong.append(Violation((*path, "role"), "must be a role that is known"))
    return m.Message(
        role=role or m.Role.USER,
        parts=_parts(message.parts, path, wrong),
        name=message.name or None,
        extra=_object(message.extra) if message.HasField("extra") else m.NOTHING,
    )


def _parts(parts: Iterable[message_pb2.Part], path: tuple[str | int, ...], wrong: list[Violation]) -> tuple[m.Part, ...]:
    found = (_part(part, (*path, "parts", index), wrong) for index, part in enumerate(parts))
    return tuple(part for part in found if part is not None)


def _part(part: message_pb2.Part, path: tuple[str | int, ...], wrong: list[Violation]) -> m.Part | None:
    extra = _object(part.extra) if part.HasField("extra") else m.NOTHING
    match part.WhichOneof("kind"):
        case "text":
            return m.Text(part.text, extra)
        case "image":
            return m.Image(_media(part.image.media, (*path, "image"), wrong), part.image.detail or None, extra)
        case "audio":
            return m.Audio(_media(part.audio.media, (*path, "audio"), wrong), extra)
        case "video":
            return m.Video(_media(part.video.media, (*path, "video"), wrong), extra)
        case "file":
            return m.File(_media(part.file.media, (*path, "file"), wrong), part.file.filename or None, extra)
        case "thinking":
            thinking = part.thinking
            return m.Thinking(thinking.text, thinking.signature or None, thinking.redacted or None)
        case "tool_call":
            call = part.tool_call
            if not call.id or not call.name:
                wrong.append(Violation((*path, "tool_call"), "needs an id and a name"))
            return m.ToolCall(call.id, call.name, call.arguments, call.signature or None, extra)
        case "tool_result":
            result = part.tool_result
            if not result.tool_call_id:
                wrong.append(Violation((*path, "tool_result", "tool_call_id"), "is missing"))
            inner = _parts(result.parts, (*path, "tool_result"), wrong)
            return m.ToolResult(result.tool_call_id, inner, result.is_error)
        case "refusal":
            return m.Refusal(part.refusal)
        case "other":
            return m.Other(_object(part.other))
        case None:
            wrong.append(Violation(path, "must be of a kind that is known"))
            return None
        case kind:
            assert_never(kind)


def _media(media: message_pb2.Media, path: tuple[str | int, ...], wrong: list[Violation]) -> m.Media:
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                wrong.append(Violation((*path, "media", "media_type"), "is required with data"))
            return m.Media(url=f"data:{media.media_type};base64,{base64.b64encode(media.data).decode()}")
        case "url":
            return m.Media(url=media.url)
        case "file_id":
            return m.Media(file_id=media.file_id)
        case None:
            wrong.append(Violation((*path, "media"), "needs data, a url or a file_id"))
            return m.Media()
        case source:
            assert_never(source)


def _sampling(sampling: chat_pb2.Sampling, wrong: list[Violation]) -> m.Sampling:
    for field, (least, most) in _RANGES.items():
        value = getattr(sampling, field)
        if not least <= value <= most and sampling.HasField(field):  # type: ignore[arg-type]  # a name out of our own table
            wrong.append(Violation(("sampling", field), f"must be between {least} and {most}"))

    def get(field: str) -> Any:
        return getattr(sampling, field) if sampling.HasField(field) else None  # type: ignore[arg-type]  # as above

    return m.Sampling(
        temperature=get("temperature"),
        top_p=get("top_p"),
        top_k=get("top_k"),
        max_tokens=get("max_tokens"),
        max_completion_tokens=get("max_completion_tokens"),
        stop=tuple(sampling.stop) or None,
        presence_penalty=get("presence_penalty"),
        frequency_penalty=get("frequency_penalty"),
        seed=get("seed"),
        choices=get("choices"),
        logprobs=get("logprobs"),
        top_logprobs=get("top_logprobs"),
        logit_bias=dict(sampling.logit_bias) or None,
    )


def _tool(tool: chat_pb2.Tool, index: int, wrong: list[Violation]) -> m.Tool | m.NativeTool:
    if tool.HasField("native"):
        return m.NativeTool(_object(tool.native))
    if not tool.name:
        wrong.append(Violation(("tools", index, "name"), "is missing"))
    return m.Tool(
        name=tool.name,
        description=tool.description or None,
        parameters=_object(tool.parameters) if tool.HasField("parameters") else None,
        strict=tool.strict if tool.HasField("strict") else None,
    )


def _tool_choice(choice: chat_pb2.ToolChoice, wrong: list[Violation]) -> m.ToolChoice:
    mode = _MODES.get(choice.mode)
    if mode is None:
        wrong.append(Violation(("tool_choice", "mode"), "must be a mode that is known"))
    if mode is m.ToolChoiceMode.TOOL and not choice.name:
        wrong.append(Violation(("tool_choice", "name"), "is missing"))
    return m.ToolChoice(mode or m.ToolChoiceMode.AUTO, choice.name or None)


def _format(form: chat_pb2.ResponseFormat) -> m.ResponseFormat | None:
    match form.WhichOneof("kind"):
        case "json_object":
            return m.JsonObjectFormat()
        case "json_schema":
            schema = form.json_schema
            return m.JsonSchemaFormat(
                name=schema.name,
                schema=_object(schema.schema),
                description=schema.description or None,
                strict=schema.strict if schema.HasField("strict") else None,
            )
        case None:
            return None
        case kind:
            assert_never(kind)


def _reasoning(reasoning: chat_pb2.Reasoning) -> m.Reasoning:
    return m.Reasoning(reasoning.effort or None, reasoning.max_tokens if reasoning.HasField("max_tokens") else None)


# Replies.


def _event(event: m.Event, sequence: int) -> chat_pb2.StreamEvent:
    match event:
        case m.TextDelta():
            delta = chat_pb2.TextDelta(choice=event.choice, text=event.text, logprobs=map(_logprob, event.logprobs))
            return chat_pb2.StreamEvent(sequence=sequence, text=delta)
        case m.ThinkingDelta():
            thinking = chat_pb2.ThinkingDelta(
                choice=event.choice, text=event.text, signature=event.signature or "", redacted=event.redacted or ""
            )
            return chat_pb2.StreamEvent(sequence=sequence, thinking=thinking)
        case m.ToolCallDelta():
            call = chat_pb2.ToolCallDelta(
                choice=event.choice,
                index=event.index,
                id=event.id or "",
                name=event.name or "",
                arguments=event.arguments,
                signature=event.signature or "",
            )
            return chat_pb2.StreamEvent(sequence=sequence, tool_call=call)
        case m.RefusalDelta():
            refusal = chat_pb2.RefusalDelta(choice=event.choice, text=event.text)
            return chat_pb2.StreamEvent(sequence=sequence, refusal=refusal)
        case m.AudioDelta():
            audio = chat_pb2.AudioDelta(
                choice=event.choice,
                id=event.id or "",
                data=base64.b64decode(event.data),
                transcript=event.transcript,
                expire_time=timestamp_pb2.Timestamp(seconds=event.expires) if event.expires else None,
            )
            return chat_pb2.StreamEvent(sequence=sequence, audio=audio)
        case m.ExtraDelta():
            extra = chat_pb2.ExtraDelta(
                choice=event.choice, fields=struct_of(event.fields), choice_fields=struct_of(event.choice_fields)
            )
            return chat_pb2.StreamEvent(sequence=sequence, extra=extra)
        case m.ReplyExtra():
            return chat_pb2.StreamEvent(sequence=sequence, reply_extra=chat_pb2.ReplyExtra(fields=struct_of(event.fields)))
        case m.Usage():
            return chat_pb2.StreamEvent(sequence=sequence, usage=usage_to_proto(event))
        case m.Metrics():
            return chat_pb2.StreamEvent(sequence=sequence, metrics=_metrics(event))
        case m.Finished():
            finished = chat_pb2.Finished(choice=event.choice, reason=REASONS[event.reason], provider_reason=event.provider_reason)
            return chat_pb2.StreamEvent(sequence=sequence, finished=finished)
        case m.Started():
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
        if isinstance(call, m.ToolCall):
            made = message_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments, signature=call.signature or "")
            parts.append(message_pb2.Part(tool_call=made, extra=struct_of(call.extra)))
    if others := [call for call in calls if not isinstance(call, m.ToolCall)]:
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


def usage_to_proto(usage: m.Usage) -> chat_pb2.Usage:
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


def _metrics(metrics: m.Metrics) -> chat_pb2.Metrics:
    return chat_pb2.Metrics(
        latency_seconds=metrics.latency,
        time_to_first_token_seconds=metrics.time_to_first_token,
        inter_token_latency_seconds=metrics.inter_token_latency,
        chunks=metrics.chunks,
        cost_usd=metrics.cost_usd,
    )


def _logprob(entry: m.JsonObject) -> chat_pb2.TokenLogprob:
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


# JSON objects.


def struct_of(fields: m.JsonObject) -> struct_pb2.Struct | None:
    """A JSON object as a Struct; None for an empty one, so that the field stays unset."""
    if not fields:
        return None
    struct = struct_pb2.Struct()
    try:
        struct.update(fields)
    except OverflowError:  # a whole number that no double holds; what else there is has to be read all the same
        struct.update(json.loads(json.dumps(fields), parse_int=float))
    return struct


def _object(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct knows only doubles; whole numbers become integers again, for which providers ask."""
    return {name: _whole(value) for name, value in json_format.MessageToDict(struct).items()}


_LARGEST_WHOLE = 2.0**63


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < _LARGEST_WHOLE:
            return int(value)
        case dict():
            return {name: _whole(inner) for name, inner in value.items()}
        case list():
            return [_whole(inner) for inner in value]
        case _:
            return value
