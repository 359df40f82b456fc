"""Encodes a `ChatRequest` as a body of the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. The model and whether to stream are in the URL.
The request's `extra` is merged at the same level, such as `guardrailConfig` or `additionalModelRequestFields`; if both have a
field, that of the domain is sent. What the API or the model cannot express and would change the reply is `Unsupported`; mere hints
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from antiphon.domain.content import NOTHING, JsonObject, with_extra
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.schema import reduced
from antiphon.providers.bedrock.capabilities import CLAUDE, ModelFamily, family, maker
from antiphon.providers.bedrock.messages import BedrockEncoder
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.parts import cache_point, native
from antiphon.providers.bedrock.thinking import add_thinking
from antiphon.providers.body import dumps

_JSON_ONLY: Final[JsonObject] = {
    "text": "Reply with one JSON object and nothing else: no other text before or after it, and no code fence around it.",
}
"""The instruction for JSON without a schema, for which the API has no field."""

ADDITIONAL: Final = "additionalModelRequestFields"
"""The fields that Bedrock passes on to the model's own API."""

_PLAIN: Final = NativeFormat({"type": "text"})
"""The default of other APIs, for which this one has no word."""


def encode(request: ChatRequest, provider: str) -> bytes:
    """Return the JSON body.

    Raises `Unsupported` for what this API cannot express, and `InvalidRequest` for data that cannot be sent.
    """
    accepted = family(request.model)
    _check(request, accepted, provider)
    tools = _tools(request, accepted)
    is_claude = maker(request.model) == CLAUDE
    system_turns = is_claude and capabilities(request.model).system_turns
    encoder = BedrockEncoder(provider, request.model, system_turns=system_turns, has_tools=bool(tools))
    encoder.encode(request.messages)
    body: dict[str, Any] = {"messages": encoder.messages}
    if isinstance(request.response_format, JsonObjectFormat):
        encoder.system.append(_JSON_ONLY)
    if encoder.system:
        body["system"] = encoder.system
    additional: dict[str, Any] = {}
    _add_sampling(body, additional, request, accepted)
    if tools:
        _add_tools(body, additional, request, tools, accepted)
    if request.response_format not in (None, _PLAIN) and not isinstance(request.response_format, JsonObjectFormat):
        body["outputConfig"] = {"textFormat": _text_format(request.response_format)}
    is_forced = not {"any", "tool"}.isdisjoint(body.get("toolConfig", {}).get("toolChoice", {}))
    add_thinking(body, additional, request, accepted.effort, is_forced=is_forced, is_possible=not encoder.continues_unsigned)
    if additional:
        body[ADDITIONAL] = additional
    return dumps(with_extra(body, request.extra))


def _check(request: ChatRequest, accepted: ModelFamily, provider: str) -> None:
    """Raise `Unsupported` for the first thing that this API or this model cannot express."""
    sampling, choice = request.sampling, request.tool_choice
    is_claude = maker(request.model) == CLAUDE
    model = capabilities(request.model)
    is_forced = choice is not None and choice.native is None and choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL)
    unsupported = {
        "several choices": (sampling.choices or 1) > 1,
        "log probabilities": bool(sampling.logprobs or sampling.top_logprobs),
        "logit_bias": bool(sampling.logit_bias),
        "presence_penalty": bool(sampling.presence_penalty),
        "frequency_penalty": bool(sampling.frequency_penalty),
        "output other than text": request.audio_output is not None or any(kind != "text" for kind in request.modalities),
        "top_k with this model": sampling.top_k is not None and not (accepted.top_k and (model.sampling or not is_claude)),
        "temperature with this model": is_claude and not model.sampling and sampling.temperature not in (None, 1),
        "top_p with this model": is_claude and not model.sampling and sampling.top_p not in (None, 1),
        "a forced tool call with this model": is_forced and is_claude and not model.forced_tools,
        "a limit of one tool call at a time with this model": (
            request.parallel_tool_calls is False and bool(request.tools) and not accepted.one_call
        ),
    }
    for what, is_wanted in unsupported.items():
        if is_wanted:
            raise Unsupported(f"The provider {provider} does not support {what}.", provider=provider)


def _add_sampling(body: dict[str, Any], additional: dict[str, Any], request: ChatRequest, accepted: ModelFamily) -> None:
    sampling = request.sampling
    is_sampled = maker(request.model) != CLAUDE or capabilities(request.model).sampling
    config: dict[str, Any] = {}
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    if limit is not None:
        config["maxTokens"] = limit
    if sampling.temperature is not None and is_sampled:
        config["temperature"] = sampling.temperature
    if sampling.top_p is not None and is_sampled and (sampling.top_p != 1 or sampling.temperature is None):
        config["topP"] = sampling.top_p  # models refuse it beside a temperature, and 1 changes nothing
    if sampling.stop:
        config["stopSequences"] = [sampling.stop] if isinstance(sampling.stop, str) else sampling.stop
    if config:
        body["inferenceConfig"] = config
    if sampling.top_k is not None:
        value: Any = sampling.top_k
        for name in reversed(accepted.top_k):
            value = {name: value}
        additional |= value


def _tools(request: ChatRequest, accepted: ModelFamily) -> tuple[Tool | NativeTool, ...]:
    """Return the tools that are offered. The API has no word for calling none: then none are offered.

    Where a certain tool cannot be demanded, it alone is offered.
    """
    choice = request.tool_choice
    if choice is None or choice.native is not None:
        return request.tools
    if choice.mode is ToolChoiceMode.NONE:
        return ()
    if choice.mode is ToolChoiceMode.TOOL and not accepted.named_tool:
        return tuple(tool for tool in request.tools if isinstance(tool, Tool) and tool.name == choice.name)
    return request.tools


def _add_tools(
    body: dict[str, Any],
    additional: dict[str, Any],
    request: ChatRequest,
    tools: Iterable[Tool | NativeTool],
    accepted: ModelFamily,
) -> None:
    config: dict[str, Any] = {"tools": [part for tool in tools for part in _tool(tool)]}
    if request.tool_choice is not None:
        config["toolChoice"] = _tool_choice(request.tool_choice, accepted)
    if request.parallel_tool_calls is False:
        # Only the model's own API has this, in its own choice of tools.
        ((kind, fields),) = config.get("toolChoice", {"auto": {}}).items()
        additional["tool_choice"] = {"type": kind, **fields, "disable_parallel_tool_use": True}
    body["toolConfig"] = config


def _tool_choice(choice: ToolChoice, accepted: ModelFamily) -> JsonObject:
    if choice.native is not None:
        return choice.native
    match choice.mode:
        case ToolChoiceMode.TOOL if accepted.named_tool:
            return {"tool": {"name": NAMES.sent(choice.name or "")}}
        case ToolChoiceMode.TOOL | ToolChoiceMode.REQUIRED:
            return {"any": {}}
        case _:
            return {"auto": {}}


def _tool(tool: Tool | NativeTool) -> list[JsonObject]:
    """Return a tool, with the mark of a cache after it if the caller wants one."""
    if isinstance(tool, NativeTool):
        return [native(tool.fields)]
    spec: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description:
        spec["description"] = tool.description
    schema: Mapping[str, Any] = {"properties": {}} if tool.parameters is None else tool.parameters
    schema = schema if "type" in schema else {"type": "object", **schema}
    spec["inputSchema"] = {"json": reduced(schema) if tool.strict else schema}
    if tool.strict:
        spec["strict"] = True
    return [{"toolSpec": spec}, *cache_point(tool.extra)]


def _text_format(response_format: JsonSchemaFormat | NativeFormat | None) -> JsonObject:
    match response_format:
        case JsonSchemaFormat():
            schema: dict[str, Any] = {"schema": orjson.dumps(reduced(response_format.schema)).decode()}
            if response_format.name:
                schema["name"] = response_format.name
            if response_format.description:
                schema["description"] = response_format.description
            return {"type": "json_schema", "structure": {"jsonSchema": schema}}
        case NativeFormat():
            return response_format.fields
        case None:
            return NOTHING
