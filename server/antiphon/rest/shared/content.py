"""Messages and tools in JSON, in the form of the OpenAI API: to the domain, and back as they came.

https://platform.openai.com/docs/api-reference/chat/create. Several dialects write messages this way. What is not known, or
known and of another type than documented, is `extra`, where it stood: nothing is lost, and only a provider can tell what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, assert_never

from antiphon import domain
from antiphon.domain.content import with_extra
from antiphon.domain.errors import Violation
from antiphon.domain.reply import call_json
from antiphon.rest.shared.body import Fields, get, invalid, rest

_SUBTYPES: Final = frozenset({"mpeg", "wave", "mp4"})
"""Subtypes of `audio/` that a format of this API has another name for: as a format they are not documented."""


class FunctionBody(Fields):
    """The function that a tool call names."""

    name: str
    arguments: str = ""


class ToolCallBody(Fields):
    """A tool call of an assistant message."""

    id: str
    type: str = "function"
    function: FunctionBody | None = None


class MessageBody(Fields):
    """A message as it is documented; null is the same as not sent."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


def message_of(message: MessageBody, path: tuple[str | int, ...], *, without: frozenset[str] = frozenset()) -> domain.Message:
    """The domain's message; `path` is where it stands in the request. What is not known goes along, but for the fields `without`.

    Raises `InvalidRequest`.
    """
    content = message.content
    parts: tuple[domain.Part, ...]
    if content is None:
        parts = ()
    elif isinstance(content, str):
        parts = (domain.Text(content),)
    else:
        parts = tuple(_part(part, (*path, "content", index)) for index, part in enumerate(content))
    extra = {name: value for name, value in (message.model_extra or {}).items() if name not in without}
    if message.role == "tool":
        if not message.tool_call_id:
            raise invalid(Violation((*path, "tool_call_id"), "Field required", "missing"))
        parts = (domain.ToolResult(message.tool_call_id, parts),)
    elif message.role == "function":  # the tools of 2023; the provider is sent them as they came
        extra["role"] = "function"
    if message.role != "tool" and message.tool_call_id is not None:
        extra["tool_call_id"] = message.tool_call_id
    calls = message.tool_calls
    if calls and message.role == "assistant" and all(call.function and call.type == "function" for call in calls):
        parts += tuple(_tool_call(call, call.function) for call in calls if call.function)
    elif calls is not None:  # calls of a kind that only the provider knows
        extra["tool_calls"] = [call.model_dump(exclude_unset=True) for call in calls]
    role = domain.Role.USER if message.role == "function" else domain.Role(message.role)
    return domain.Message(role, parts, message.name, extra, listed=isinstance(content, list))


def _tool_call(call: ToolCallBody, function: FunctionBody) -> domain.ToolCall:
    extra = call.model_extra or domain.NOTHING
    if function.model_extra:
        extra = {**extra, "function": function.model_extra}
    return domain.ToolCall(call.id, function.name, function.arguments, None, extra)


def _part(part: Mapping[str, Any], path: tuple[str | int, ...]) -> domain.Part:
    kind = get(part, "type", str, path)
    if isinstance(part.get(kind), str) and kind != "text":
        return domain.Other(part)  # as Mistral has pictures and sound: the URL, or the data, by itself
    match kind:
        case "text":
            return domain.Text(get(part, "text", str, path), rest(part, "text"))
        case "image_url":
            image = get(part, "image_url", dict, path)
            url = get(image, "url", str, (*path, "image_url"))
            return domain.Image(
                domain.Media(url=url), known(image, "detail", str), inner_extra(part, "image_url", url=str, detail=str)
            )
        case "input_audio":
            audio = get(part, "input_audio", dict, path)
            data = get(audio, "data", str, (*path, "input_audio"))
            form = get(audio, "format", str, (*path, "input_audio"))
            if not (form.isascii() and form.isalnum() and form == form.lower()) or form in _SUBTYPES:
                return domain.Other(part)  # as a media type it would come back as another word
            return domain.Audio(
                domain.Media(url=f"data:audio/{form};base64,{data}"), inner_extra(part, "input_audio", data=str, format=str)
            )
        case "file" if "file" not in part and "file_id" in part:
            return domain.Other(part)  # Mistral's
        case "file":
            file = get(part, "file", dict, path)
            media = domain.Media(url=known(file, "file_data", str), file_id=known(file, "file_id", str))
            if (media.url is None) == (media.file_id is None):
                raise invalid(Violation((*path, "file"), "needs one of file_id and file_data"))
            extra = inner_extra(part, "file", file_data=str, file_id=str, filename=str)
            return domain.File(media, known(file, "filename", str), extra)
        case _:
            return domain.Other(part)


def tool_of(tool: Mapping[str, Any], path: tuple[str | int, ...]) -> domain.Tool | domain.NativeTool:
    """The domain's tool; `path` is where it stands in the request. Raises `InvalidRequest`."""
    if get(tool, "type", str, path) != "function":
        return domain.NativeTool(tool)
    function = get(tool, "function", dict, path)
    return domain.Tool(
        name=get(function, "name", str, (*path, "function")),
        description=known(function, "description", str),
        parameters=known(function, "parameters", dict),
        strict=known(function, "strict", bool),
        extra=inner_extra(tool, "function", name=str, description=str, parameters=dict, strict=bool),
    )


def known(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field, if it is of the type that is documented."""
    value = body.get(name)
    return value if isinstance(value, kind) else None


def inner_extra(body: Mapping[str, Any], inner: str, **documented: type) -> domain.JsonObject:
    """What is not `documented` of the object `inner` that `body` holds, in an object of that name, and what is beside it."""
    outer = rest(body, inner)
    fields = {k: v for k, v in body[inner].items() if k not in documented or not isinstance(v, documented[k])}
    return {**outer, inner: fields} if fields else outer


# And back.


def message_json(message: domain.Message) -> dict[str, Any]:
    """The message as it came. A thought is `reasoning_content`, as in replies."""
    body: dict[str, Any] = {"role": message.extra.get("role", message.role.value), "content": None}
    content: list[domain.Part] = []
    calls: list[domain.JsonObject] = []
    for part in message.parts:
        match part:
            case domain.ToolCall():
                calls.append(call_json(part))
            case domain.ToolResult() if len(message.parts) == 1:
                body["tool_call_id"] = part.tool_call_id
                content.extend(part.parts)
            case domain.Thinking():
                body["reasoning_content"] = body.get("reasoning_content", "") + part.text
            case domain.Refusal() if not message.listed:
                body["refusal"] = body.get("refusal", "") + part.text
            case _:
                content.append(part)
    if content or message.listed:
        body["content"] = _content(content, listed=message.listed)
    if calls:
        body["tool_calls"] = calls
    if message.name is not None:
        body["name"] = message.name
    return {**message.extra, **body}


def _content(parts: Sequence[domain.Part], *, listed: bool) -> str | list[domain.JsonObject]:
    match parts:
        case [domain.Text(text, extra)] if not extra and not listed:
            return text
        case _:
            return [_part_json(part) for part in parts]


def _part_json(part: domain.Part) -> domain.JsonObject:
    match part:
        case domain.Text():
            return {"type": "text", "text": part.text, **part.extra}
        case domain.Image():
            image = _media_json(part.media)
            image |= {"detail": part.detail} if part.detail is not None else {}
            return with_extra({"type": "image_url", "image_url": image}, part.extra)
        case domain.Audio():
            head, comma, data = (part.media.url or "").partition(";base64,")
            if comma and head.startswith("data:audio/"):
                audio = {"data": data, "format": head.removeprefix("data:audio/")}
                return with_extra({"type": "input_audio", "input_audio": audio}, part.extra)
            return {"type": "audio_url", "audio_url": _media_json(part.media), **part.extra}
        case domain.Video():
            return {"type": "video_url", "video_url": _media_json(part.media), **part.extra}
        case domain.File():
            file = {"file_data": part.media.url} if part.media.file_id is None else {"file_id": part.media.file_id}
            file |= {"filename": part.filename} if part.filename is not None else {}
            return with_extra({"type": "file", "file": file}, part.extra)
        case domain.Refusal():
            return {"type": "refusal", "refusal": part.text}
        case domain.Other():
            return part.fields
        case domain.ToolResult():
            return {"type": "tool_result", "tool_call_id": part.tool_call_id, "content": _content(part.parts, listed=False)}
        case domain.ToolCall():
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.arguments}
        case domain.Thinking():
            return {"type": "thinking", "thinking": part.text}
        case _:
            assert_never(part)


def _media_json(media: domain.Media) -> dict[str, Any]:
    return {"url": media.url} if media.file_id is None else {"file_id": media.file_id}
