"""Messages and tools in the JSON of the OpenAI API, converted to domain values. The opposite direction is in `message_json`.

https://platform.openai.com/docs/api-reference/chat/create. Several dialects use this form. A field that is unknown, or has another
type than documented, goes to `extra` in the same place: nothing is lost, as only a provider may know what it means.

What the gateway added to a reply is removed when a client sends the reply back: nulls, `annotations: []`, the `index` of tool
calls, one thinking text under several names. Opaque values are unwrapped (`antiphon.domain.opaque`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from antiphon import domain
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.domain.errors import Violation
from antiphon.providers.openai.blocks import PROTOCOL, take_signature
from antiphon.rest.shared.body import Fields, invalid, other_fields, required_field
from antiphon.rest.shared.carried import read_carried
from antiphon.rest.shared.places import in_place
from antiphon.rest.shared.returned import take_state, with_signatures

CLIENT_ORIGIN: Final = domain.Origin(PROTOCOL)
"""The origin of a client's message with signatures that do not name one."""

_AMBIGUOUS_FORMATS: Final = frozenset({"mpeg", "wave", "mp4"})
"""Subtypes of `audio/` for which this API has another format name. As format names they are not documented."""

_REPLY_DEFAULTS: Final[Mapping[str, object]] = {"refusal": None, "audio": None, "function_call": None, "annotations": []}
"""The values that the gateway writes for fields that a reply does not have. The OpenAI SDK writes null for any of them."""

_PARSED: Final = "parsed"
_PARSED_ARGUMENTS: Final = "parsed_arguments"
"""Fields that helpers of the OpenAI SDK add to a reply and to its calls: the text and the arguments again, as objects."""

_MAX_SECONDS: Final = 2**53
"""More seconds since 1970 than any date has."""

FUNCTION_ROLE: Final = "function"
"""The role of a tool result in the function API of 2023."""

_ROLES: Final[Mapping[str, domain.Role]] = {FUNCTION_ROLE: domain.Role.TOOL, **{role.value: role for role in domain.Role}}


class FunctionBody(Fields):
    """The function of a tool call."""

    name: str
    arguments: str = ""


class ToolCallBody(Fields):
    """A tool call of an assistant message."""

    id: str
    type: str = "function"
    function: FunctionBody | None = None


class MessageBody(Fields):
    """A message with its documented fields; null is the same as not sent."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None


def message_of(message: MessageBody, path: tuple[str | int, ...], *, without: frozenset[str] = frozenset()) -> domain.Message:
    """Return the domain message; `path` is its path in the request. Raises `InvalidRequest`.

    Unknown fields are kept in `extra`, except those named in `without`.
    """
    content = message.content
    blocks: tuple[domain.Block, ...]
    if content is None:
        blocks = ()
    elif isinstance(content, str):
        blocks = (domain.Text(content),)
    else:
        blocks = tuple(_block(part, (*path, "content", index)) for index, part in enumerate(content))
    extra = dict(message.model_extra or {})
    for name in without:
        extra.pop(name, None)
    if message.role == "assistant":
        return _assistant_message(message, blocks, extra)
    role = _ROLES[message.role]
    if message.role == "tool":
        if not message.tool_call_id:
            raise invalid(Violation((*path, "tool_call_id"), "Field required", "missing"))
        blocks = (domain.ToolResult(message.tool_call_id, blocks),)
    elif message.role == FUNCTION_ROLE:
        blocks = (domain.ToolResult("", blocks, type=FUNCTION_CALL),)
    if message.tool_call_id is not None:
        _keep_tool_call_id(message, extra)
    if message.tool_calls is not None:
        extra["tool_calls"] = [call.model_dump(exclude_unset=True) for call in message.tool_calls]
    return domain.Message(role, blocks, message.name, extra, listed=isinstance(content, list))


def _keep_tool_call_id(message: MessageBody, extra: dict[str, Any]) -> None:
    """Put a `tool_call_id` that does not belong to the role into `extra`."""
    if message.role != "tool" and message.tool_call_id is not None:
        extra["tool_call_id"] = message.tool_call_id


def _assistant_message(message: MessageBody, content: tuple[domain.Block, ...], extra: dict[str, Any]) -> domain.Message:
    """Return the domain message for an assistant's message: a reply, in the form in which a client keeps it."""
    for name, added in _REPLY_DEFAULTS.items():
        if name in extra and extra[name] in (added, None):
            del extra[name]
    extra.pop(_PARSED, None)
    audio = _audio(extra.get("audio"))
    if audio is not None and audio.transcript and content == (domain.Text(audio.transcript),):  # as `message_json` writes it
        content = ()
    returned = take_state(extra)
    blocks: list[domain.Block] = [*returned.thoughts, *with_signatures(content, extra, returned)]
    if isinstance(extra.get("refusal"), str) and not isinstance(message.content, list):
        blocks.append(domain.Refusal(extra.pop("refusal")))
    if audio is not None:
        del extra["audio"]
        blocks.append(audio)
    if not isinstance(message.content, list) and (images := _reply_images(extra.get("images"))):
        del extra["images"]
        blocks += images
    _keep_tool_call_id(message, extra)
    if message.tool_calls:
        blocks += [_tool_call(call, returned.calls.get(call.id)) for call in message.tool_calls]
    elif message.tool_calls is not None:
        extra["tool_calls"] = []
    called = extra.get("function_call")
    if isinstance(called, dict) and isinstance(called.get("name"), str) and isinstance(called.get("arguments"), str):
        del extra["function_call"]
        more = {key: value for key, value in called.items() if key not in ("name", "arguments")}
        blocks.append(domain.ToolCall("", called["name"], called["arguments"], FUNCTION_CALL, extra=more))
    has_state = any(block.state is not None and block.state.origin is None for block in blocks)
    return domain.Message(
        domain.Role.ASSISTANT,
        tuple(in_place(blocks, returned.places, returned.texts)),
        message.name,
        extra,
        listed=isinstance(message.content, list),
        origin=CLIENT_ORIGIN if has_state else None,
    )


def _audio(audio: object) -> domain.Audio | None:
    """Return an audio block for a recording with an id; None for any other form."""
    if not isinstance(audio, dict) or not isinstance(audio.get("id"), str) or not audio["id"]:
        return None
    transcript, expires = audio.get("transcript"), audio.get("expires_at")
    more = {name: value for name, value in audio.items() if name not in ("id", "data", "transcript", "expires_at")}
    return domain.Audio(
        domain.Media(),
        audio["id"],
        transcript if isinstance(transcript, str) else "",
        expires if type(expires) is int and 0 < expires < _MAX_SECONDS else None,
        extra=more,
    )


def _reply_images(images: object) -> list[domain.Block]:
    """Return the images of a reply; an empty list if one of them has an unknown form."""
    found: list[domain.Block] = []
    for image in images if isinstance(images, list) else ():
        match image:
            case {"type": "image_url", "image_url": {"url": str(url)} as inner}:
                more = {name: value for name, value in image.items() if name not in ("type", "image_url")}
                signature = take_signature(more)
                if within := {name: value for name, value in inner.items() if name != "url"}:
                    more["image_url"] = within
                state = None if signature is None else read_carried(signature).state
                found.append(domain.Image(domain.Media(url), extra=more, state=state))
            case _:
                return []
    return found


def _tool_call(call: ToolCallBody, state: domain.State | None = None) -> domain.ToolCall:
    """Return the domain tool call; fields that the domain does not have are in `extra`. A signature replaces `state`."""
    extra = dict(call.model_extra or domain.NOTHING)
    extra.pop("index", None)  # only deltas have one
    signature = take_signature(extra)
    if signature is not None:
        state = read_carried(signature).state
    function, custom = call.function, extra.get(CUSTOM)
    if function is not None:
        if unknown := {name: value for name, value in (function.model_extra or {}).items() if name != _PARSED_ARGUMENTS}:
            extra["function"] = unknown
        return domain.ToolCall(call.id, function.name, function.arguments, call.type, extra=extra, state=state)
    match custom:
        case {"name": str(name), "input": str(text), **more} if call.type == CUSTOM:
            del extra[CUSTOM]
            if more:
                extra[CUSTOM] = more
            return domain.ToolCall(call.id, name, text, CUSTOM, extra=extra, state=state)
        case _:
            action = extra.pop(call.type, None) if isinstance(extra.get(call.type), dict) else None
            arguments = "" if action is None else msgspec.json.encode(action).decode()
            return domain.ToolCall(call.id, "", arguments, call.type, extra=extra, state=state)


def _block(part: Mapping[str, Any], path: tuple[str | int, ...]) -> domain.Block:
    """Return the block for a content part. A part of an unknown form is opaque. Raises `InvalidRequest`."""
    kind = required_field(part, "type", str, path)
    if part.keys() == {"type", "refusal"} and kind == "refusal" and isinstance(part["refusal"], str):
        return domain.Refusal(part["refusal"])
    if isinstance(part.get(kind), str) and kind != "text":
        return domain.Opaque(part)  # Mistral's form of pictures and audio: the URL or the data without an object
    match kind:
        case "text":
            return domain.Text(required_field(part, "text", str, path), extra=other_fields(part, "text"))
        case "image_url":
            image = required_field(part, "image_url", dict, path)
            url = required_field(image, "url", str, (*path, "image_url"))
            extra = inner_extra(part, "image_url", url=str, detail=str)
            return domain.Image(domain.Media(url=url), optional_field(image, "detail", str), extra=extra)
        case "input_audio":
            audio = required_field(part, "input_audio", dict, path)
            data = required_field(audio, "data", str, (*path, "input_audio"))
            form = required_field(audio, "format", str, (*path, "input_audio"))
            if not (form.isascii() and form.isalnum() and form == form.lower()) or form in _AMBIGUOUS_FORMATS:
                return domain.Opaque(part)  # read back from a media type, it would be another word
            extra = inner_extra(part, "input_audio", data=str, format=str)
            return domain.Audio(domain.Media(url=f"data:audio/{form};base64,{data}"), extra=extra)
        case "file" if "file" not in part and "file_id" in part:
            return domain.Opaque(part)  # Mistral's form
        case "file":
            file = required_field(part, "file", dict, path)
            media = domain.Media(url=optional_field(file, "file_data", str), file_id=optional_field(file, "file_id", str))
            if (media.url is None) == (media.file_id is None):
                raise invalid(Violation((*path, "file"), "needs one of file_id and file_data"))
            extra = inner_extra(part, "file", file_data=str, file_id=str, filename=str)
            return domain.Document(media, optional_field(file, "filename", str), extra=extra)
        case "video_url":
            match part.get("video_url"):
                case {"url": str(url)}:  # not of OpenAI, but the same at all hosts that take videos
                    return domain.Video(domain.Media(url=url), extra=inner_extra(part, "video_url", url=str))
                case _:
                    return domain.Opaque(part)
        case _:
            return domain.Opaque(part)


def tool_of(tool: Mapping[str, Any], path: tuple[str | int, ...]) -> domain.Tool | domain.NativeTool:
    """Return the domain tool; `path` is its path in the request. Raises `InvalidRequest`.

    A tool that is not a function becomes a `NativeTool`, unchanged.
    """
    if required_field(tool, "type", str, path) != "function":
        return domain.NativeTool(tool)
    function = required_field(tool, "function", dict, path)
    return domain.Tool(
        name=required_field(function, "name", str, (*path, "function")),
        description=optional_field(function, "description", str),
        parameters=optional_field(function, "parameters", dict),
        strict=optional_field(function, "strict", bool),
        extra=inner_extra(tool, "function", name=str, description=str, parameters=dict, strict=bool),
    )


def optional_field(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field if it exists and has the documented type `kind`, else None."""
    value = body.get(name)
    return value if isinstance(value, kind) else None


def inner_extra(body: Mapping[str, Any], inner: str, **documented: type) -> domain.JsonObject:
    """Return the undocumented fields of `body` and of its object `inner`; the latter in an object of that name.

    `documented` has the types of the documented fields of the inner object. A field of another type counts as undocumented.
    """
    outer = other_fields(body, inner)
    fields = {k: v for k, v in body[inner].items() if k not in documented or not isinstance(v, documented[k])}
    return {**outer, inner: fields} if fields else outer
