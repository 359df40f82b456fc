"""Encodes a `ChatRequest` as a body of Cohere's chat API. No I/O.

https://docs.cohere.com/v2/reference/chat. The request's `extra` is merged at the same level; if both have a field, that of the
domain is sent. What the API cannot express and would change the reply is `Unsupported`; mere hints are left out.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import JsonObject, with_extra
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    ResponseFormat,
    Tool,
    ToolChoiceMode,
)
from antiphon.providers.body import dumps
from antiphon.providers.cohere.messages import CohereEncoder

_SAMPLING: Final = (
    ("temperature", "temperature"),
    ("top_p", "p"),
    ("top_k", "k"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("seed", "seed"),
)
"""Names of fields: the domain's, and the API's."""


def encode(request: ChatRequest, provider: str) -> bytes:
    """Return the JSON body.

    Raises `Unsupported` for what this API cannot express, and `InvalidRequest` for data that is nested too deeply to be sent.
    """
    _check(request, provider)
    sampling = request.sampling
    body: dict[str, Any] = {"model": request.model, "messages": CohereEncoder(provider).encode(request.messages)}
    if request.stream:
        body["stream"] = True
    body |= {theirs: value for ours, theirs in _SAMPLING if (value := getattr(sampling, ours)) is not None}
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    if limit is not None:
        body["max_tokens"] = limit
    if sampling.stop is not None:
        body["stop_sequences"] = [sampling.stop] if isinstance(sampling.stop, str) else sampling.stop
    _add_tools(body, request)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.reasoning is not None and request.reasoning.effort == "none":
        body["thinking"] = {"type": "disabled"}  # there are no degrees of effort, and models that think do so by default
    return dumps(with_extra(body, request.extra))


def _check(request: ChatRequest, provider: str) -> None:
    """Raise `Unsupported` for the first thing that this API cannot express."""
    sampling = request.sampling
    unsupported = {
        "several choices": (sampling.choices or 1) > 1,
        "log probabilities": bool(sampling.logprobs or sampling.top_logprobs),
        "logit_bias": bool(sampling.logit_bias),
        "a limit of one tool call at a time": request.parallel_tool_calls is False and bool(request.tools),
        "output other than text": request.audio_output is not None or any(kind != "text" for kind in request.modalities),
    }
    for what, is_wanted in unsupported.items():
        if is_wanted:
            raise Unsupported(f"The provider {provider} does not support {what}.", provider=provider)


def _add_tools(body: dict[str, Any], request: ChatRequest) -> None:
    """Add the tools, and whether one must be called. The API cannot name that one, so it alone is offered."""
    tools, choice = request.tools, request.tool_choice
    if choice is not None and choice.native is None and choice.mode is ToolChoiceMode.TOOL:
        tools = tuple(tool for tool in tools if isinstance(tool, NativeTool) or tool.name == choice.name)
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if any(isinstance(tool, Tool) and tool.strict for tool in tools):
            body["strict_tools"] = True
    if choice is None:
        return
    if choice.native is not None:
        body["tool_choice"] = choice.native
    elif choice.mode is not ToolChoiceMode.AUTO:  # which has no word
        body["tool_choice"] = "NONE" if choice.mode is ToolChoiceMode.NONE else "REQUIRED"


def _tool(tool: Tool | NativeTool) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    return {"type": "function", "function": function}


def _response_format(response_format: ResponseFormat) -> JsonObject:
    match response_format:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat():
            return {"type": "json_object", "json_schema": response_format.schema}
        case NativeFormat():
            return response_format.fields
