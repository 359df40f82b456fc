"""Converts typed requests to domain values. `convert.reply` converts replies."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.domain.opaque import unwrap
from antiphon.history.base import MAX_REQUEST_ID, MAX_SOURCE, MAX_TITLE
from antiphon.history.recorder import Record
from antiphon.net import json_bounds
from antiphon.rpc.convert.json_struct import is_deep, object_of
from antiphon.v1 import chat_pb2, message_pb2

_Path: TypeAlias = tuple[str | int, ...]

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
"""OpenAI parameters that have a field of their own in the request, so that `extra` may not hold them."""

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

_COLLECTIONS: Mapping[str, Callable[[Any], Any]] = {"stop": tuple, "logit_bias": dict}
"""What makes the domain's value of a repeated field or a map of `Sampling`, by the name of the field."""


def request_from_proto(request: chat_pb2.GenerateRequest, *, stream: bool) -> domain.ChatRequest:
    """Return the domain's request. Raises `InvalidRequest` that lists every invalid field."""
    if len(request.messages) > domain.MAX_ENTRIES or len(request.tools) > domain.MAX_ENTRIES:
        large = [name for name in ("messages", "tools") if len(getattr(request, name)) > domain.MAX_ENTRIES]
        violations = tuple(
            Violation((name,), f"must not have more than {domain.MAX_ENTRIES} entries", "too_long") for name in large
        )
        raise InvalidRequest("The request has too many entries.", violations)
    try:
        return _request(request, stream=stream)
    except ValueError:  # raised by `object_of`
        raise InvalidRequest("The request is not valid: NaN and Infinity are not valid JSON.") from None


def _request(request: chat_pb2.GenerateRequest, *, stream: bool) -> domain.ChatRequest:
    violations: list[Violation] = []
    messages = tuple([_message(message, index, violations) for index, message in enumerate(request.messages)])
    result = domain.ChatRequest(
        model=request.model,
        messages=messages,
        stream=stream,
        sampling=_sampling(request.sampling, violations) if request.HasField("sampling") else domain.Sampling(),
        tools=tuple([_tool(tool, index, violations) for index, tool in enumerate(request.tools)]),
        tool_choice=_tool_choice(request.tool_choice, violations) if request.HasField("tool_choice") else None,
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
    if result.extra:
        violations += [Violation(("extra", name), "has a field of its own") for name in result.extra if name in _OWN_FIELDS]
    if violations:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(violations))
    return result


def messages_from_proto(messages: Iterable[message_pb2.Message]) -> tuple[domain.Message, ...]:
    """Return the domain's messages. Raises `InvalidRequest` that lists every invalid field."""
    violations: list[Violation] = []
    found = tuple(_message(message, index, violations) for index, message in enumerate(messages))
    if violations:
        raise InvalidRequest("The request is not valid: see the field violations.", tuple(violations))
    return found


def record_from_proto(recording: chat_pb2.Recording, owner: str, *, choices: int = 1) -> Record:
    """Return where to record a turn that asks for `choices` replies. Raises `InvalidRequest`."""
    limits = (("request_id", MAX_REQUEST_ID), ("title", MAX_TITLE), ("source", MAX_SOURCE))
    violations = tuple(
        Violation(("recording", field), f"must not be longer than {most} characters")
        for field, most in limits
        if len(getattr(recording, field)) > most
    )
    if recording.parent_message_id and not recording.conversation_id:
        violations += (Violation(("recording", "parent_message_id"), "needs the conversation_id that it is part of"),)
    if choices > 1:
        violations += (Violation(("sampling", "choices"), "must be 1 where the turn is recorded: a turn has one reply"),)
    if violations:
        raise InvalidRequest("The request is not valid: see the field violations.", violations)
    return Record(
        owner,
        conversation=recording.conversation_id or None,
        request_id=recording.request_id,
        parent_id=recording.parent_message_id or None,
        title=recording.title,
        source=recording.source,
    )


def _message(message: message_pb2.Message, index: int, violations: list[Violation]) -> domain.Message:
    path = ("messages", index)
    role = ROLES.get(message.role)
    if role is None:
        violations.append(Violation((*path, "role"), "must be a known role"))
    has_origin = message.HasField("origin")
    return domain.Message(
        role=role or domain.Role.USER,
        blocks=_blocks(message.blocks, path, violations, has_origin=has_origin),
        name=message.name or None,
        extra=object_of(message.extra) if message.HasField("extra") else domain.NOTHING,
        origin=_origin(message.origin) if has_origin else None,
        fields=_json(message.fields, (*path, "fields"), violations) if message.fields else domain.NOTHING,
    )


def _origin(origin: message_pb2.Origin) -> domain.Origin:
    return domain.Origin(origin.protocol, origin.provider, origin.model, origin.deployment)


def _json(data: bytes, path: _Path, violations: list[Violation]) -> domain.JsonObject:
    """Parse a provider's fields, which are the text of a JSON object. On an error, add a violation and return an empty object."""
    if not data:
        return domain.NOTHING
    try:
        json_bounds.check(data)
        fields = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or is_deep(fields):
        violations.append(Violation(path, "must be the text of a JSON object"))
        return domain.NOTHING
    return fields


def _state(state: message_pb2.ProviderState, path: _Path, violations: list[Violation], *, has_origin: bool) -> domain.State:
    """Return the state of a block that a client sends; `has_origin`: the message names its origin.

    Replies of this API have an origin beside the original opaque value. That value may look wrapped if the provider is a gateway
    like this one. A value without an origin may come from a REST dialect, in which it is wrapped.
    """
    opaque, origin = state.opaque, None
    if state.HasField("origin"):
        origin = _origin(state.origin)
    elif not has_origin:
        found = unwrap(state.opaque)
        opaque, origin = found.original, found.origin
    item = state.item if state.HasField("item") else None
    return domain.State(opaque or None, _json(state.fields, (*path, "state", "fields"), violations), item, origin)


def _blocks(
    blocks: Iterable[message_pb2.Block], path: _Path, violations: list[Violation], *, has_origin: bool
) -> tuple[domain.Block, ...]:
    """Return the blocks of a message; `has_origin`: the message names its origin."""
    found: list[domain.Block] = []
    for index, block in enumerate(blocks):
        made = _block(block, (*path, "blocks", index), violations, has_origin=has_origin)
        if made is not None:
            found.append(made)
    return tuple(found)


def _block(block: message_pb2.Block, path: _Path, violations: list[Violation], *, has_origin: bool) -> domain.Block | None:
    made = _kind(block, path, violations, has_origin=has_origin)
    if made is None or not (block.HasField("extra") or block.HasField("state")):
        return made
    extra = object_of(block.extra) if block.HasField("extra") else domain.NOTHING
    state = _state(block.state, path, violations, has_origin=has_origin) if block.HasField("state") else None
    return replace(made, extra=extra, state=state)


def _kind(  # noqa: C901  # a match over the kinds of block
    block: message_pb2.Block, path: _Path, violations: list[Violation], *, has_origin: bool
) -> domain.Block | None:
    """Return the block without its state and extra fields, or None and a violation for an unknown kind."""
    match block.WhichOneof("kind"):
        case "text":
            text = block.text
            if not text.citations:
                return domain.Text(text.text)
            citations = [_citation(each, (*path, "text", "citations", at), violations) for at, each in enumerate(text.citations)]
            return domain.Text(text.text, tuple(citations))
        case "image":
            is_lost = (has_origin or block.HasField("state")) and block.image.media.WhichOneof("source") is None
            media = domain.Media() if is_lost else _media(block.image.media, (*path, "image"), violations)
            return domain.Image(media, block.image.detail or None)
        case "audio":
            return _audio(block.audio, path, violations, is_of_reply=has_origin or block.HasField("state"))
        case "video":
            return domain.Video(_media(block.video.media, (*path, "video"), violations))
        case "document":
            document = block.document
            media = _media(document.media, (*path, "document"), violations)
            return domain.Document(media, document.filename or None, document.title or None)
        case "thinking":
            return domain.Thinking(block.thinking.text, block.thinking.field)
        case "redacted_thinking":
            return domain.RedactedThinking()
        case "tool_call":
            return _tool_call(block.tool_call, path, violations)
        case "tool_result":
            result = block.tool_result
            kind = result.type or FUNCTION
            if not result.tool_call_id and kind != FUNCTION_CALL:
                violations.append(Violation((*path, "tool_result", "tool_call_id"), "is missing"))
            inner = _blocks(result.blocks, (*path, "tool_result"), violations, has_origin=has_origin)
            return domain.ToolResult(result.tool_call_id, inner, result.is_error, kind)
        case "server_tool_call":
            tool = block.server_tool_call
            return domain.ServerToolCall(tool.id, tool.type, tool.name, tool.input if tool.HasField("input") else None)
        case "server_tool_result":
            answer = block.server_tool_result
            return domain.ServerToolResult(answer.call_id, answer.type, answer.is_error)
        case "refusal":
            return domain.Refusal(block.refusal.text)
        case "compaction":
            return domain.Compaction(block.compaction.text if block.compaction.HasField("text") else None)
        case "opaque":
            return domain.Opaque(_json(block.opaque.fields, (*path, "opaque", "fields"), violations))
        case None:
            violations.append(Violation(path, "must be of a known kind"))
            return None
        case kind:
            assert_never(kind)


def _tool_call(call: message_pb2.ToolCall, path: _Path, violations: list[Violation]) -> domain.ToolCall:
    kind = call.type or FUNCTION
    needs_id = kind != FUNCTION_CALL
    needs_name = kind in (FUNCTION, CUSTOM, FUNCTION_CALL)
    if (needs_id and not call.id) or (needs_name and not call.name):
        violations.append(Violation((*path, "tool_call"), "needs an id and a name"))
    return domain.ToolCall(call.id, call.name, call.arguments, kind)


def _audio(audio: message_pb2.Audio, path: _Path, violations: list[Violation], *, is_of_reply: bool) -> domain.Audio:
    """Return a recording. One from a reply is sent back by its id: its bytes have no media type, and are left out.

    `is_of_reply`: the caller says so; an id or a transcript does, too.
    """
    source = audio.media.WhichOneof("source")
    is_untyped = source is None or (source == "data" and not audio.media.media_type)
    is_of_reply = is_of_reply or bool(audio.id or audio.transcript)
    media = domain.Media() if is_of_reply and is_untyped else _media(audio.media, (*path, "audio"), violations)
    return domain.Audio(media, audio.id, audio.transcript, audio.expires if audio.HasField("expires") else None)


def _citation(citation: message_pb2.Citation, path: _Path, violations: list[Violation]) -> domain.Citation:
    return domain.Citation(
        citation.url,
        citation.title,
        citation.text,
        citation.source_id,
        citation.start if citation.HasField("start") else None,
        citation.end if citation.HasField("end") else None,
        _json(citation.fields, (*path, "fields"), violations),
    )


def _media(media: message_pb2.Media, path: _Path, violations: list[Violation]) -> domain.Media:
    """Return where the bytes are; bytes in the message become a data URL. Adds a violation if nothing is set."""
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                violations.append(Violation((*path, "media", "media_type"), "is required with data"))
            return domain.Media(url=f"data:{media.media_type};base64,{base64.b64encode(media.data).decode()}")
        case "url":
            return domain.Media(url=media.url)
        case "file_id":
            return domain.Media(file_id=media.file_id)
        case None:
            violations.append(Violation((*path, "media"), "needs data, a url or a file_id"))
            return domain.Media()
        case source:
            assert_never(source)


def _sampling(sampling: chat_pb2.Sampling, violations: list[Violation]) -> domain.Sampling:
    """Return the sampling parameters, None for unset ones. Adds a violation for each that is out of range."""
    given: dict[str, Any] = {field.name: value for field, value in sampling.ListFields()}
    for name, value in given.items():
        if name in _RANGES:
            least, most = _RANGES[name]
            if not least <= value <= most:
                violations.append(Violation(("sampling", name), f"must be between {least} and {most}"))
        elif name in _COLLECTIONS:
            given[name] = _COLLECTIONS[name](value)
    return domain.Sampling(**given)


def _tool(tool: chat_pb2.Tool, index: int, violations: list[Violation]) -> domain.Tool | domain.NativeTool:
    if tool.HasField("native"):
        return domain.NativeTool(object_of(tool.native))
    if not tool.name:
        violations.append(Violation(("tools", index, "name"), "is missing"))
    return domain.Tool(
        name=tool.name,
        description=tool.description or None,
        parameters=object_of(tool.parameters) if tool.HasField("parameters") else None,
        strict=tool.strict if tool.HasField("strict") else None,
    )


def _tool_choice(choice: chat_pb2.ToolChoice, violations: list[Violation]) -> domain.ToolChoice:
    mode = _MODES.get(choice.mode)
    if mode is None:
        violations.append(Violation(("tool_choice", "mode"), "must be a known mode"))
    if mode is domain.ToolChoiceMode.TOOL and not choice.name:
        violations.append(Violation(("tool_choice", "name"), "is missing"))
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
