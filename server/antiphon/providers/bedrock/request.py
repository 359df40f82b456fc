"""Encodes a `ChatRequest` as a body of the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. The model and whether to stream are in the URL.
The request's `extra` is merged at the same level, such as `guardrailConfig` or `additionalModelRequestFields`; if both have a
field, that of the domain is sent. Options that the API or the model does not have are mapped, dropped or refused (`lacks`); content
that it cannot express is `Unsupported`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from msgspec.structs import replace

from antiphon.domain.content import JsonObject, with_extra
from antiphon.domain.request import (
    ChatRequest,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.enforceable import NOT_ENFORCEABLE, is_enforceable
from antiphon.providers.anthropic.format import told_and_enforced
from antiphon.providers.anthropic.lacks import lacks_while_thinking
from antiphon.providers.anthropic.sampling import may_have_top_p, stop_sequences
from antiphon.providers.anthropic.schema import enforced
from antiphon.providers.anthropic.tool_schema import object_schema, without_union
from antiphon.providers.bedrock.capabilities import CLAUDE, ModelFamily, family, maker
from antiphon.providers.bedrock.lacks import lacks_of
from antiphon.providers.bedrock.messages import BedrockEncoder
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.parts import cache_point, native
from antiphon.providers.bedrock.thinking import INFERENCE, add_thinking
from antiphon.providers.body import dumps
from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import NATIVE_FORMAT, STRICT_TOOLS, TEMPERATURE, adapted, within

ADDITIONAL: Final = "additionalModelRequestFields"
"""The fields that Bedrock passes on to the model's own API."""

_PLAIN: Final = NativeFormat({"type": "text"})
"""The default of other APIs, for which this one has no word."""

_THINKING: Final = "thinking"


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that cannot
    be sent.
    """
    parameters = parameters or Parameters(provider)
    accepted = family(request.model)
    claude = capabilities(request.model) if maker(request.model) == CLAUDE else None
    request = _without_foreign_tools(adapted(request, lacks_of(accepted, claude), parameters), parameters)
    tools = _tools(request, accepted)
    system_turns = claude is not None and claude.system_turns
    encoder = BedrockEncoder(provider, request.model, system_turns=system_turns, has_tools=bool(tools))
    encoder.encode(request.messages)
    body: dict[str, Any] = {"messages": encoder.messages}
    enforces = accepted.structured_output and (claude is None or claude.structured_output)
    told, form = told_and_enforced(request.response_format, parameters, structured_output=enforces)
    if told:
        encoder.system.append({"text": told})
    if encoder.system:
        body["system"] = encoder.system
    if (limit := _limit(request)) is not None:
        body[INFERENCE] = {"maxTokens": limit}
    additional: dict[str, Any] = {}
    if tools:
        _add_tools(body, additional, request, tools, accepted, parameters)
    if (text_format := _text_format(form, parameters)) is not None:
        body["outputConfig"] = {"textFormat": text_format}
    is_forced = not {"any", "tool"}.isdisjoint(body.get("toolConfig", {}).get("toolChoice", {}))
    is_possible = not encoder.continues_unsigned
    add_thinking(body, additional, request, accepted.effort, parameters, is_forced=is_forced, is_possible=is_possible)
    if claude is not None and _thinks(additional, request):
        request = adapted(request, lacks_while_thinking(claude), parameters)
    _add_sampling(body, additional, request, accepted, parameters)
    if additional:
        body[ADDITIONAL] = additional
    return dumps(with_extra(body, own_fields(request.extra, parameters, "bedrock")))


def _without_foreign_tools(request: ChatRequest, parameters: Parameters) -> ChatRequest:
    """Return the request without tools and a tool choice of another API, which are known by their `type`."""
    tools, choice = request.tools, request.tool_choice
    foreign = [tool for tool in tools if isinstance(tool, NativeTool) and "type" in native(tool.fields)]
    if foreign:
        parameters.dropped(("tools",), "a tool is of another API")
        request = replace(request, tools=tuple(tool for tool in tools if tool not in foreign))
    if choice is not None and choice.native is not None and "type" in choice.native:
        parameters.dropped(("tool_choice",), "the choice is of another API")
        request = replace(request, tool_choice=None)
    return request


def _limit(request: ChatRequest) -> int | None:
    sampling = request.sampling
    return sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens


def _thinks(additional: JsonObject, request: ChatRequest) -> bool:
    """Return whether a Claude model is asked to think, by an effort or in the caller's own fields."""
    own = request.extra.get(ADDITIONAL)
    thinking = additional.get(_THINKING, own.get(_THINKING) if isinstance(own, dict) else None)
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def _add_sampling(
    body: dict[str, Any], additional: dict[str, Any], request: ChatRequest, accepted: ModelFamily, parameters: Parameters
) -> None:
    sampling = request.sampling
    config: dict[str, Any] = body.get(INFERENCE, {})
    temperature = within(sampling.temperature, TEMPERATURE, 0, 1, parameters)
    if temperature is not None:
        config["temperature"] = temperature
    claude = capabilities(request.model) if maker(request.model) == CLAUDE else None
    if sampling.top_p is not None and may_have_top_p(sampling.top_p, temperature, claude, parameters):
        config["topP"] = sampling.top_p
    stops = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop or ())
    if claude is not None:
        stops = stop_sequences(sampling, parameters)
    if stops:
        config["stopSequences"] = stops
    if config:
        body[INFERENCE] = config
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
    parameters: Parameters,
) -> None:
    is_claude = maker(request.model) == CLAUDE
    config: dict[str, Any] = {"tools": [part for tool in tools for part in _tool(tool, parameters, is_claude=is_claude)]}
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


def _tool(tool: Tool | NativeTool, parameters: Parameters, *, is_claude: bool) -> list[JsonObject]:
    """Return a tool, with the mark of a cache after it if the caller wants one. `is_claude`: the model is one of Anthropic's."""
    if isinstance(tool, NativeTool):
        return [native(tool.fields)]
    spec: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description:
        spec["description"] = tool.description
    schema = object_schema(tool.parameters)
    if is_claude:
        schema = without_union(schema, parameters)
    is_strict = bool(tool.strict) and is_enforceable(schema)
    if tool.strict and not is_strict:
        parameters.dropped(STRICT_TOOLS.path, NOT_ENFORCEABLE)
    spec["inputSchema"] = {"json": enforced(schema, ("tools", "parameters"), parameters) if is_strict else schema}
    if is_strict:
        spec["strict"] = True
    return [{"toolSpec": spec}, *cache_point(tool.extra)]


def _text_format(response_format: ResponseFormat | None, parameters: Parameters) -> JsonObject | None:
    """Return the format of the text; None for plain text. The API has one kind, and a native one is such a format itself."""
    match response_format:
        case JsonSchemaFormat():
            described = enforced(response_format.schema, ("response_format", "schema"), parameters)
            schema: dict[str, Any] = {"schema": orjson.dumps(described).decode()}
            if response_format.name:
                schema["name"] = response_format.name
            if response_format.description:
                schema["description"] = response_format.description
            return {"type": "json_schema", "structure": {"jsonSchema": schema}}
        case NativeFormat() if "structure" in response_format.fields:
            return response_format.fields
        case NativeFormat() if response_format != _PLAIN:
            parameters.dropped(NATIVE_FORMAT.path, "the format is of another API")
    return None
