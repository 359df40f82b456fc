"""Messages and tools in JSON, in the form of the OpenAI API: to the domain, and back as they came.

https://platform.openai.com/docs/api-reference/chat/create. Several dialects write messages this way. What is not known, or
known and of another type than documented, is `extra`, where it stood: nothing is lost, and only a provider can tell what it means.

What the gateway adds to a reply is removed again when a client sends that reply back: nulls, `annotations: []`, the `index` of
calls, one thought under several names. What is opaque of it is unwrapped (`antiphon.domain.opaque`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.domain.errors import Violation
from antiphon.domain.opaque import unwrap
from antiphon.providers.openai.blocks import EXTRA_CONTENT, PROTOCOL, take_signature
from antiphon.providers.openai.details import DETAILS, read_details
from antiphon.rest.shared.body import Fields, get, invalid, rest

CALLER: Final = domain.Origin(PROTOCOL)
"""The origin of what a client writes in the form of a provider and does not name one."""

_SUBTYPES: Final = frozenset({"mpeg", "wave", "mp4"})
"""Subtypes of `audio/` that a format of this API has another name for: as a format they are not documented."""

_ADDED: Final[Mapping[str, object]] = {"refusal": None, "audio": None, "function_call": None, "annotations": []}
"""What the gateway writes of a reply that has no such thing; null where the OpenAI SDK writes it out."""

_PARSED: Final = "parsed"
_PARSED_ARGUMENTS: Final = "parsed_arguments"
"""What the OpenAI SDK's helpers add to a reply and to its calls: the text and the arguments once more, as objects."""

_IN_EVERY_PIECE: Final = ("id", "format")
"""What a provider tells with each piece of an entry of `reasoning_details`."""

_MIN_NAME: Final = 5
_MAX_NAME: Final = 4096
"""How long a name is that may have been joined with itself, and how long it is then."""

_FAR: Final = 2**53
"""More seconds than a date has."""

FUNCTION_ROLE: Final = "function"
"""The role of a tool's answer in 2023."""


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
    """Return the domain's message; `path` is where it stands in the request.

    What is not known goes along, but for the fields `without`. Raises `InvalidRequest`.
    """
    content = message.content
    blocks: tuple[domain.Block, ...]
    if content is None:
        blocks = ()
    elif isinstance(content, str):
        blocks = (domain.Text(content),)
    else:
        blocks = tuple(_block(part, (*path, "content", index)) for index, part in enumerate(content))
    extra = {name: value for name, value in (message.model_extra or {}).items() if name not in without}
    if message.role == "assistant":
        return _reply(message, blocks, extra)
    role = domain.Role.TOOL if message.role == FUNCTION_ROLE else domain.Role(message.role)
    if message.role == "tool":
        if not message.tool_call_id:
            raise invalid(Violation((*path, "tool_call_id"), "Field required", "missing"))
        blocks = (domain.ToolResult(message.tool_call_id, blocks),)
    elif message.role == FUNCTION_ROLE:
        blocks = (domain.ToolResult("", blocks, type=FUNCTION_CALL),)
    _keep(message, extra)
    if message.tool_calls is not None:
        extra["tool_calls"] = [call.model_dump(exclude_unset=True) for call in message.tool_calls]
    return domain.Message(role, blocks, message.name, extra, listed=isinstance(content, list))


def _keep(message: MessageBody, extra: dict[str, Any]) -> None:
    if message.role != "tool" and message.tool_call_id is not None:
        extra["tool_call_id"] = message.tool_call_id


def _reply(message: MessageBody, content: tuple[domain.Block, ...], extra: dict[str, Any]) -> domain.Message:
    """A message of an assistant: what a model has said, as its client has it."""
    for name, added in _ADDED.items():
        if name in extra and extra[name] in (added, None):
            del extra[name]
    extra.pop(_PARSED, None)
    audio = _sound(extra.get("audio"))
    if audio is not None and audio.transcript and content == (domain.Text(audio.transcript),):  # as `message_json` writes it
        content = ()
    blocks: list[domain.Block] = [*_thoughts(extra), *_signed(content, extra)]
    if isinstance(extra.get("refusal"), str) and not isinstance(message.content, list):
        blocks.append(domain.Refusal(extra.pop("refusal")))
    if audio is not None:
        del extra["audio"]
        blocks.append(audio)
    if not isinstance(message.content, list) and (images := _images(extra.get("images"))):
        del extra["images"]
        blocks += images
    _keep(message, extra)
    if message.tool_calls:
        blocks += map(_tool_call, message.tool_calls)
    elif message.tool_calls is not None:
        extra["tool_calls"] = []
    called = extra.get("function_call")
    if isinstance(called, dict) and isinstance(called.get("name"), str) and isinstance(called.get("arguments"), str):
        del extra["function_call"]
        more = {key: value for key, value in called.items() if key not in ("name", "arguments")}
        blocks.append(domain.ToolCall("", called["name"], called["arguments"], FUNCTION_CALL, extra=more))
    stated = any(block.state is not None and block.state.origin is None for block in blocks)
    return domain.Message(
        domain.Role.ASSISTANT,
        tuple(blocks),
        message.name,
        extra,
        listed=isinstance(message.content, list),
        origin=CALLER if stated else None,
    )


def _thoughts(extra: dict[str, Any]) -> list[domain.Block]:
    """Take the thoughts out of the fields: one thought, whichever names it stands under."""
    reasoning_content, reasoning = extra.get("reasoning_content"), extra.get("reasoning")
    text: str | None = None
    field = ""
    if isinstance(reasoning_content, str):
        text = extra.pop("reasoning_content")
        if reasoning == text:
            field = "reasoning"
            del extra["reasoning"]
    elif isinstance(reasoning, str):
        text, field = extra.pop("reasoning"), "reasoning"
    details = read_details(extra.get(DETAILS))
    if details is None:
        return [] if text is None else [domain.Thinking(text, field)]
    del extra[DETAILS]
    details = [replace(detail, fields={DETAILS: _told_once(detail.fields[DETAILS])}) for detail in details]
    blocks: list[domain.Block] = []
    if text is not None and not any(detail.text for detail in details):
        if details[0].signature is None or details[0].data is not None:
            blocks.append(domain.Thinking(text, field))
        else:
            details[0] = replace(details[0], text=text)
    for detail in details:
        if detail.data is not None:
            blocks.append(domain.RedactedThinking(state=_state(detail.data, detail.fields)))
        else:
            blocks.append(domain.Thinking(detail.text, field, state=_state(detail.signature, detail.fields)))
    return blocks


def _told_once(entry: domain.JsonObject) -> domain.JsonObject:
    """Return an entry with each of its names once: the OpenAI SDK's stream helper joins what every piece has again."""
    return {name: _unit(value) if name in _IN_EVERY_PIECE and isinstance(value, str) else value for name, value in entry.items()}


def _unit(value: str) -> str:
    """Return what a text repeats, if it is nothing but repetitions, and long enough to be no accident."""
    length = (value + value).find(value, 1) if len(value) <= _MAX_NAME else 0
    return value[:length] if length >= _MIN_NAME else value


def _signed(content: tuple[domain.Block, ...], extra: dict[str, Any]) -> tuple[domain.Block, ...]:
    """Return the content with the signature that stands beside it."""
    last = next((at for at in range(len(content) - 1, -1, -1) if isinstance(content[at], domain.Text)), None)
    if last is None or EXTRA_CONTENT not in extra:
        return content
    signature = take_signature(extra)
    if signature is None:
        return content
    fields = {EXTRA_CONTENT: extra.pop(EXTRA_CONTENT)} if EXTRA_CONTENT in extra else domain.NOTHING
    return (*content[:last], replace(content[last], state=_state(signature, fields)), *content[last + 1 :])


def _state(opaque: str | None, fields: domain.JsonObject) -> domain.State:
    """Return what a client has of a provider's state."""
    if opaque is None:
        return domain.State(fields=fields)
    original, origin = unwrap(opaque)
    return domain.State(original, fields, origin=origin)


def _sound(audio: object) -> domain.Audio | None:
    """Return a recording that is named by its id; None for any other form."""
    if not isinstance(audio, dict) or not isinstance(audio.get("id"), str) or not audio["id"]:
        return None
    transcript, expires = audio.get("transcript"), audio.get("expires_at")
    more = {name: value for name, value in audio.items() if name not in ("id", "data", "transcript", "expires_at")}
    return domain.Audio(
        domain.Media(),
        audio["id"],
        transcript if isinstance(transcript, str) else "",
        expires if type(expires) is int and 0 < expires < _FAR else None,
        extra=more,
    )


def _images(images: object) -> list[domain.Block]:
    """Return the pictures of a reply; none, if one of them has any other form."""
    found: list[domain.Block] = []
    for image in images if isinstance(images, list) else ():
        match image:
            case {"type": "image_url", "image_url": {"url": str(url)} as inner}:
                more = {name: value for name, value in image.items() if name not in ("type", "image_url")}
                if within := {name: value for name, value in inner.items() if name != "url"}:
                    more["image_url"] = within
                found.append(domain.Image(domain.Media(url), extra=more))
            case _:
                return []
    return found


def _tool_call(call: ToolCallBody) -> domain.ToolCall:
    extra = dict(call.model_extra or domain.NOTHING)
    extra.pop("index", None)  # which only deltas have
    signature = take_signature(extra)
    state = None if signature is None else _state(signature, domain.NOTHING)
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
    kind = get(part, "type", str, path)
    if isinstance(part.get(kind), str) and kind != "text":
        return domain.Opaque(part)  # as Mistral has pictures and sound: the URL, or the data, by itself
    match kind:
        case "text":
            return domain.Text(get(part, "text", str, path), extra=rest(part, "text"))
        case "image_url":
            image = get(part, "image_url", dict, path)
            url = get(image, "url", str, (*path, "image_url"))
            extra = inner_extra(part, "image_url", url=str, detail=str)
            return domain.Image(domain.Media(url=url), known(image, "detail", str), extra=extra)
        case "input_audio":
            audio = get(part, "input_audio", dict, path)
            data = get(audio, "data", str, (*path, "input_audio"))
            form = get(audio, "format", str, (*path, "input_audio"))
            if not (form.isascii() and form.isalnum() and form == form.lower()) or form in _SUBTYPES:
                return domain.Opaque(part)  # as a media type it would come back as another word
            extra = inner_extra(part, "input_audio", data=str, format=str)
            return domain.Audio(domain.Media(url=f"data:audio/{form};base64,{data}"), extra=extra)
        case "file" if "file" not in part and "file_id" in part:
            return domain.Opaque(part)  # Mistral's
        case "file":
            file = get(part, "file", dict, path)
            media = domain.Media(url=known(file, "file_data", str), file_id=known(file, "file_id", str))
            if (media.url is None) == (media.file_id is None):
                raise invalid(Violation((*path, "file"), "needs one of file_id and file_data"))
            extra = inner_extra(part, "file", file_data=str, file_id=str, filename=str)
            return domain.Document(media, known(file, "filename", str), extra=extra)
        case _:
            return domain.Opaque(part)


def tool_of(tool: Mapping[str, Any], path: tuple[str | int, ...]) -> domain.Tool | domain.NativeTool:
    """Return the domain's tool; `path` is where it stands in the request. Raises `InvalidRequest`."""
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
    """Return a field, if it is of the type that is documented."""
    value = body.get(name)
    return value if isinstance(value, kind) else None


def inner_extra(body: Mapping[str, Any], inner: str, **documented: type) -> domain.JsonObject:
    """Return what is not `documented` of the object `inner` of `body`, in an object of that name, and what is beside it."""
    outer = rest(body, inner)
    fields = {k: v for k, v in body[inner].items() if k not in documented or not isinstance(v, documented[k])}
    return {**outer, inner: fields} if fields else outer
