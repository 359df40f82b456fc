"""Encodes a `ChatRequest` as a body of the OpenAI chat-completions API. No I/O.

https://platform.openai.com/docs/api-reference/chat/create. The domain's `extra` is merged at the same level; if both have a field,
that of the domain is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import astuple

from antiphon.domain.content import JsonObject, with_extra
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    ResponseFormat,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.body import dumps
from antiphon.providers.codec.names import NameRule
from antiphon.providers.foreign import own_fields
from antiphon.providers.json_instruction import json_instruction
from antiphon.providers.openai.capabilities import UNKNOWN, HostCapabilities
from antiphon.providers.openai.known_fields import CACHE_MARK
from antiphon.providers.openai.messages import encode_messages
from antiphon.providers.openai.turns import Turns, in_turns
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import JSON_SCHEMA, Lacks, adapted

_SAMPLING: Final = tuple("n" if name == "choices" else name for name in Sampling.__struct_fields__)
"""The API's names of the fields of `Sampling`."""


def encode(
    request: ChatRequest,
    provider: str,
    parameters: Parameters | None = None,
    *,
    stream_usage: bool,
    host: HostCapabilities = UNKNOWN,
) -> bytes:
    """Return the JSON body. `parameters` gets the options that the host does not have; None: the warnings are not wanted.

    `stream_usage`: the host supports `stream_options.include_usage`.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that is
    nested too deeply to be sent.
    """
    parameters = parameters or Parameters(provider)
    row = host.options.row(request.model)
    lacks = row.lacks_of(request)
    if lacks:
        request = adapted(request, lacks, parameters)
    messages = encode_messages(request.messages, provider, host, request.model, known_fields=request.known_fields)
    if host.turns is not Turns.ANY:
        messages = in_turns(messages, host.turns)
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.stream:
        body["stream"] = True
    if request.stream and stream_usage:
        body["stream_options"] = {"include_usage": True}
    for name, value in zip(_SAMPLING, astuple(request.sampling), strict=True):
        if value is not None:
            body[name] = value  # noqa: PERF403  # a comprehension would cost a call
    if row.renames:
        _rename(body, row.renames)
    _add_options(body, request, lacks, host)
    if request.extra:
        body = with_extra(body, own_fields(request.extra, parameters, host.name, host.own_fields))
    return dumps(body)


def _add_options(body: dict[str, Any], request: ChatRequest, lacks: Lacks, host: HostCapabilities) -> None:
    """Add the options that the request sets, other than sampling."""
    names = host.names
    if request.tools:
        body["tools"] = [_tool(tool, host) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, names)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.response_format is not None:
        form = request.response_format
        if isinstance(form, JsonSchemaFormat) and JSON_SCHEMA in lacks:  # the host has JSON alone, and the model is told the schema
            body["messages"] = [*body["messages"], {"role": "system", "content": json_instruction(form)}]
            form = JsonObjectFormat()
        body["response_format"] = _response_format(form, names)
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.modalities:
        body["modalities"] = request.modalities
    if request.audio_output is not None:
        body["audio"] = {"voice": request.audio_output.voice, "format": request.audio_output.format}
    if request.end_user is not None:
        body["user"] = request.end_user


def _rename(body: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give parameters the names that the host has for them, unless the caller has set those too."""
    for name, theirs in names.items():
        if name in body:
            body.setdefault(theirs, body.pop(name))


def _sent(name: str, rule: NameRule | None) -> str:
    """Return a name in the form that the host accepts."""
    return name if rule is None else rule.sent(name)


def _tool(tool: Tool | NativeTool, host: HostCapabilities) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    function: dict[str, Any] = {"name": _sent(tool.name, host.names)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    extra = tool.extra
    if CACHE_MARK in extra and not host.cache_marks:
        extra = {name: value for name, value in extra.items() if name != CACHE_MARK}
    return with_extra({"type": "function", "function": function}, extra)


def _tool_choice(choice: ToolChoice, names: NameRule | None) -> JsonObject | str:
    if choice.native is not None:
        return choice.native
    if choice.mode is ToolChoiceMode.TOOL:
        return {"type": "function", "function": {"name": _sent(choice.name or "", names)}}
    return choice.mode.value


def _response_format(response_format: ResponseFormat, names: NameRule | None) -> JsonObject:
    match response_format:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat():
            schema: dict[str, Any] = {"name": _sent(response_format.name, names), "schema": response_format.schema}
            if response_format.description is not None:
                schema["description"] = response_format.description
            if response_format.strict is not None:
                schema["strict"] = response_format.strict
            return with_extra({"type": "json_schema", "json_schema": schema}, response_format.extra)
        case NativeFormat():
            return response_format.fields
