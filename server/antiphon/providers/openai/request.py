"""A `ChatRequest` as a body of the OpenAI chat-completions API.

https://platform.openai.com/docs/api-reference/chat/create. What the domain calls `extra` is merged at the same level; where both
have a field, the domain's is sent. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    File,
    Image,
    JsonObject,
    Message,
    Other,
    Part,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
    with_extra,
)
from antiphon.domain.errors import InvalidRequest, Unsupported
from antiphon.domain.reply import call_json
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

_SAMPLING: Final = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("max_tokens", "max_tokens"),
    ("max_completion_tokens", "max_completion_tokens"),
    ("stop", "stop"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("seed", "seed"),
    ("choices", "n"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "top_logprobs"),
    ("logit_bias", "logit_bias"),
)
"""The domain's name, and the API's."""

_FUNCTION: Final = "function"
"""The role of a tool's answer in 2023, which the domain has no word for: a user's message whose `extra` has it is sent with it."""

_MESSAGE: Final = frozenset(
    {
        "role",
        "refusal",
        "audio",
        "function_call",
        "tool_calls",
        "tool_call_id",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "extra_content",
    }
)
"""What may be known of a message's `extra`: the API's fields, and those in which hosts want a model's thoughts back."""

_PART: Final = frozenset({"type", "cache_control", "extra_content"})
"""The same of a part's, or of a tool call's; and where hosts are told what to keep in mind."""

_AUDIO_FORMATS: Final = {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a"}
"""The API's name for a subtype of `audio/`, where it is not the subtype itself."""


def encode(request: ChatRequest, provider: str, *, stream_usage: bool) -> bytes:
    """The JSON to send. `stream_usage`: the host knows `stream_options.include_usage`.

    Raises `Unsupported` for what this API has no words for, and `InvalidRequest` for what is nested too deep to be sent.
    """
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request, provider)}
    if request.stream:
        body["stream"] = True
    if request.stream and stream_usage:
        body["stream_options"] = {"include_usage": True}
    body |= {theirs: value for ours, theirs in _SAMPLING if (value := getattr(request.sampling, ours)) is not None}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.modalities:
        body["modalities"] = request.modalities
    if request.audio_output is not None:
        body["audio"] = {"voice": request.audio_output.voice, "format": request.audio_output.format}
    if request.end_user is not None:
        body["user"] = request.end_user
    return _dumps(with_extra(body, request.extra))


def _dumps(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=_plain)
    except orjson.JSONEncodeError:
        pass  # perhaps of an integer of more than 64 bits, which the slower one can write
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("The request cannot be sent as JSON: it is nested too deep, or holds what is no text.") from None


def _messages(request: ChatRequest, provider: str) -> list[JsonObject]:
    encoded: list[JsonObject] = []
    for message in request.messages:
        _add_message(encoded, _known(message) if request.known_fields else message, provider)
    return encoded


def _known(message: Message) -> Message:
    """The message without fields that the API does not document."""
    return replace(message, parts=tuple(map(_known_part, message.parts)), extra=_only(_MESSAGE, message.extra))


def _known_part(part: Part) -> Part:
    match part:
        case ToolResult():
            return replace(part, parts=tuple(map(_known_part, part.parts)))
        case Text() | Image() | Audio() | Video() | File() | ToolCall() if part.extra:
            return replace(part, extra=_only(_PART, part.extra))
        case _:
            return part


def _only(names: frozenset[str], extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if name in names} if extra else extra


def _add_message(encoded: list[JsonObject], message: Message, provider: str) -> None:
    """A message of ours is more than one of theirs if it holds the results of several tools."""
    body: dict[str, Any] = {"role": message.role.value}
    if message.role is Role.USER and message.extra.get("role") == _FUNCTION:
        body["role"] = _FUNCTION
    if message.name is not None:
        body["name"] = message.name
    content: list[Part] = []
    calls: list[JsonObject] = []
    thoughts: list[str] = []
    results = False
    for part in message.parts:
        match part:
            case ToolCall():
                calls.append(call_json(part))
            case ToolResult():
                results = True
                text = _content(part.parts, provider, listed=message.listed)
                result = {"role": "tool", "tool_call_id": part.tool_call_id, "content": "" if text is None else text}
                if message.name is not None:
                    result["name"] = message.name
                encoded.append(with_extra(result, message.extra))
            case Thinking():
                thoughts.append(part.text)
            case Refusal() if message.role is Role.ASSISTANT and not message.listed:
                body["refusal"] = body.get("refusal", "") + part.text
            case _:
                content.append(part)
    if results and not content and not calls:
        return
    body["content"] = _content(tuple(content), provider, listed=message.listed and not results)
    if calls:
        body["tool_calls"] = calls
    if thoughts and (calls or "tool_calls" in message.extra):
        body["reasoning_content"] = "".join(thoughts)  # DeepSeek refuses its own calls without; else the API takes none back
    encoded.append(with_extra(body, message.extra))


def _content(parts: tuple[Part, ...], provider: str, *, listed: bool) -> str | list[JsonObject] | None:
    """One text is a string, as some hosts know no other form; but a list where the caller wrote one (`listed`)."""
    if not parts:
        return [] if listed else None
    first = parts[0]
    if not listed and len(parts) == 1 and isinstance(first, Text) and not first.extra:
        return first.text
    return [_part(part, provider) for part in parts]


def _part(part: Part, provider: str) -> JsonObject:
    match part:
        case Text():
            return with_extra({"type": "text", "text": part.text}, part.extra)
        case Image():
            if part.media.url is None:
                raise Unsupported(f"The provider {provider} takes a picture as a URL only.", provider=provider)
            image = {"url": part.media.url} if part.detail is None else {"url": part.media.url, "detail": part.detail}
            return with_extra({"type": "image_url", "image_url": image}, part.extra)
        case Audio():
            return with_extra({"type": "input_audio", "input_audio": _audio(part, provider)}, part.extra)
        case File():
            file = {"file_id": part.media.file_id} if part.media.file_id is not None else {"file_data": part.media.url}
            if part.filename is not None:
                file["filename"] = part.filename
            return with_extra({"type": "file", "file": file}, part.extra)
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Other():
            return part.fields
        case Video():
            raise Unsupported(f"The provider {provider} takes no video.", provider=provider)
        case Thinking() | ToolCall() | ToolResult():
            raise Unsupported(f"The provider {provider} takes no {type(part).__name__} at this place.", provider=provider)


def _audio(part: Audio, provider: str) -> JsonObject:
    head, comma, data = (part.media.url or "").partition(",")
    media_type, *parameters = head.removeprefix("data:").lower().split(";")
    kind, _, subtype = media_type.partition("/")
    if not comma or not head.startswith("data:") or kind != "audio" or "base64" not in parameters:
        raise Unsupported(f"The provider {provider} takes a recording only as its bytes, with their media type.", provider=provider)
    subtype = subtype.removeprefix("x-")
    return {"data": data, "format": _AUDIO_FORMATS.get(subtype, subtype)}


def _tool(tool: Tool | NativeTool) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return with_extra({"type": "function", "function": function}, tool.extra)


def _tool_choice(choice: ToolChoice) -> JsonObject | str:
    if choice.native is not None:
        return choice.native
    if choice.mode is ToolChoiceMode.TOOL:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode.value


def _response_format(response_format: ResponseFormat) -> JsonObject:
    match response_format:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat():
            schema: dict[str, Any] = {"name": response_format.name, "schema": response_format.schema}
            if response_format.description is not None:
                schema["description"] = response_format.description
            if response_format.strict is not None:
                schema["strict"] = response_format.strict
            return with_extra({"type": "json_schema", "json_schema": schema}, response_format.extra)
        case NativeFormat():
            return response_format.fields


def _plain(value: object) -> object:
    """For encoders, which know `dict` only."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
