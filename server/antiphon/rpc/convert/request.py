"""Typed requests as values of the domain. Nothing else; the way back is in `convert_reply`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from antiphon import domain
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.history.base import MAX_REQUEST_ID, MAX_SOURCE, MAX_TITLE
from antiphon.history.recorder import Record
from antiphon.rpc.convert.json_struct import object_of
from antiphon.v1 import chat_pb2, message_pb2

ROLES = {
    message_pb2.ROLE_SYSTEM: domain.Role.SYSTEM,
    message_pb2.ROLE_DEVELOPER: domain.Role.DEVELOPER,
    message_pb2.ROLE_USER: domain.Role.USER,
    message_pb2.ROLE_ASSISTANT: domain.Role.ASSISTANT,
    message_pb2.ROLE_TOOL: domain.Role.TOOL,
}
_MODES = {
    chat_pb2.ToolChoice.MODE_UNSPECIFIED: domain.ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_AUTO: domain.ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_NONE: domain.ToolChoiceMode.NONE,
    chat_pb2.ToolChoice.MODE_REQUIRED: domain.ToolChoiceMode.REQUIRED,
    chat_pb2.ToolChoice.MODE_TOOL: domain.ToolChoiceMode.TOOL,
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


def request_from_proto(request: chat_pb2.GenerateRequest, *, stream: bool) -> domain.ChatRequest:
    """The domain's request. Raises `InvalidRequest` with every field at fault."""
    large = [name for name in ("messages", "tools") if len(getattr(request, name)) > domain.MAX_ENTRIES]
    if large:
        wrong = tuple(Violation((name,), f"must not have more than {domain.MAX_ENTRIES} entries", "too_long") for name in large)
        raise InvalidRequest("The request has too many entries.", wrong)
    try:
        return _request(request, stream=stream)
    except ValueError:  # of `object_of`
        raise InvalidRequest("The request is not valid: NaN and Infinity are no JSON.") from None


def _request(request: chat_pb2.GenerateRequest, *, stream: bool) -> domain.ChatRequest:
    wrong: list[Violation] = []
    messages = tuple(_message(message, index, wrong) for index, message in enumerate(request.messages))
    result = domain.ChatRequest(
        model=request.model,
        messages=messages,
        stream=stream,
        sampling=_sampling(request.sampling, wrong) if request.HasField("sampling") else domain.Sampling(),
        tools=tuple(_tool(tool, index, wrong) for index, tool in enumerate(request.tools)),
        tool_choice=_tool_choice(request.tool_choice, wrong) if request.HasField("tool_choice") else None,
        parallel_tool_calls=request.parallel_tool_calls if request.HasField("parallel_tool_calls") else None,
        response_format=_format(request.response_format),
        reasoning=domain.Reasoning(request.reasoning.effort or None) if request.HasField("reasoning") else None,
        modalities=tuple(request.modalities),
        audio_output=domain.AudioOutput(request.audio_output.voice, request.audio_output.format)
        if request.HasField("audio_output")
        else None,
        end_user=request.end_user or None,
        extra=object_of(request.extra) if request.HasField("extra") else domain.NOTHING,
    )
    wrong += [Violation(("extra", name), "has a field of its own") for name in result.extra if name in _OWN_FIELDS]
    if wrong:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(wrong))
    return result


def messages_from_proto(messages: Iterable[message_pb2.Message]) -> tuple[domain.Message, ...]:
    """The domain's messages. Raises `InvalidRequest` with every field at fault."""
    wrong: list[Violation] = []
    found = tuple(_message(message, index, wrong) for index, message in enumerate(messages))
    if wrong:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(wrong))
    return found


def record_from_proto(recording: chat_pb2.Recording, owner: str, *, choices: int = 1) -> Record:
    """Where a turn is recorded, of which so many replies are asked for. Raises `InvalidRequest`."""
    limits = (("request_id", MAX_REQUEST_ID), ("title", MAX_TITLE), ("source", MAX_SOURCE))
    wrong = tuple(
        Violation(("recording", field), f"must not be longer than {most} characters")
        for field, most in limits
        if len(getattr(recording, field)) > most
    )
    if recording.parent_message_id and not recording.conversation_id:
        wrong += (Violation(("recording", "parent_message_id"), "needs the conversation_id that it is part of"),)
    if choices > 1:
        wrong += (Violation(("sampling", "choices"), "must be 1 where the turn is recorded: a turn has one reply"),)
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


def _message(message: message_pb2.Message, index: int, wrong: list[Violation]) -> domain.Message:
    path = ("messages", index)
    role = ROLES.get(message.role)
    if role is None:
        wrong.append(Violation((*path, "role"), "must be a role that is known"))
    return domain.Message(
        role=role or domain.Role.USER,
        parts=_parts(message.parts, path, wrong),
        name=message.name or None,
        extra=object_of(message.extra) if message.HasField("extra") else domain.NOTHING,
    )


def _parts(parts: Iterable[message_pb2.Part], path: tuple[str | int, ...], wrong: list[Violation]) -> tuple[domain.Part, ...]:
    found = (_part(part, (*path, "parts", index), wrong) for index, part in enumerate(parts))
    return tuple(part for part in found if part is not None)


def _part(  # noqa: C901  # a match over the kinds of part
    part: message_pb2.Part, path: tuple[str | int, ...], wrong: list[Violation]
) -> domain.Part | None:
    extra = object_of(part.extra) if part.HasField("extra") else domain.NOTHING
    match part.WhichOneof("kind"):
        case "text":
            return domain.Text(part.text, extra)
        case "image":
            return domain.Image(_media(part.image.media, (*path, "image"), wrong), part.image.detail or None, extra)
        case "audio":
            return domain.Audio(_media(part.audio.media, (*path, "audio"), wrong), extra)
        case "video":
            return domain.Video(_media(part.video.media, (*path, "video"), wrong), extra)
        case "file":
            return domain.File(_media(part.file.media, (*path, "file"), wrong), part.file.filename or None, extra)
        case "thinking":
            thinking = part.thinking
            return domain.Thinking(thinking.text, thinking.signature or None, thinking.redacted or None)
        case "tool_call":
            call = part.tool_call
            if not call.id or not call.name:
                wrong.append(Violation((*path, "tool_call"), "needs an id and a name"))
            return domain.ToolCall(call.id, call.name, call.arguments, call.signature or None, extra)
        case "tool_result":
            result = part.tool_result
            if not result.tool_call_id:
                wrong.append(Violation((*path, "tool_result", "tool_call_id"), "is missing"))
            inner = _parts(result.parts, (*path, "tool_result"), wrong)
            return domain.ToolResult(result.tool_call_id, inner, result.is_error)
        case "refusal":
            return domain.Refusal(part.refusal)
        case "other":
            return domain.Other(object_of(part.other))
        case None:
            wrong.append(Violation(path, "must be of a kind that is known"))
            return None
        case kind:
            assert_never(kind)


def _media(media: message_pb2.Media, path: tuple[str | int, ...], wrong: list[Violation]) -> domain.Media:
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                wrong.append(Violation((*path, "media", "media_type"), "is required with data"))
            return domain.Media(url=f"data:{media.media_type};base64,{base64.b64encode(media.data).decode()}")
        case "url":
            return domain.Media(url=media.url)
        case "file_id":
            return domain.Media(file_id=media.file_id)
        case None:
            wrong.append(Violation((*path, "media"), "needs data, a url or a file_id"))
            return domain.Media()
        case source:
            assert_never(source)


def _sampling(sampling: chat_pb2.Sampling, wrong: list[Violation]) -> domain.Sampling:
    for field, (least, most) in _RANGES.items():
        value = getattr(sampling, field)
        if not least <= value <= most and sampling.HasField(field):  # type: ignore[arg-type]  # a name out of our own table
            wrong.append(Violation(("sampling", field), f"must be between {least} and {most}"))

    def get(field: str) -> Any:
        return getattr(sampling, field) if sampling.HasField(field) else None  # type: ignore[arg-type]  # as above

    return domain.Sampling(
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


def _tool(tool: chat_pb2.Tool, index: int, wrong: list[Violation]) -> domain.Tool | domain.NativeTool:
    if tool.HasField("native"):
        return domain.NativeTool(object_of(tool.native))
    if not tool.name:
        wrong.append(Violation(("tools", index, "name"), "is missing"))
    return domain.Tool(
        name=tool.name,
        description=tool.description or None,
        parameters=object_of(tool.parameters) if tool.HasField("parameters") else None,
        strict=tool.strict if tool.HasField("strict") else None,
    )


def _tool_choice(choice: chat_pb2.ToolChoice, wrong: list[Violation]) -> domain.ToolChoice:
    mode = _MODES.get(choice.mode)
    if mode is None:
        wrong.append(Violation(("tool_choice", "mode"), "must be a mode that is known"))
    if mode is domain.ToolChoiceMode.TOOL and not choice.name:
        wrong.append(Violation(("tool_choice", "name"), "is missing"))
    return domain.ToolChoice(mode or domain.ToolChoiceMode.AUTO, choice.name or None)


def _format(form: chat_pb2.ResponseFormat) -> domain.ResponseFormat | None:
    match form.WhichOneof("kind"):
        case "json_object":
            return domain.JsonObjectFormat()
        case "json_schema":
            schema = form.json_schema
            return domain.JsonSchemaFormat(
                name=schema.name,
                schema=object_of(schema.schema),
                description=schema.description or None,
                strict=schema.strict if schema.HasField("strict") else None,
            )
        case None:
            return None
        case kind:
            assert_never(kind)
