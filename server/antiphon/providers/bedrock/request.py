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
from antiphon.providers.anthropic.budget import SchemaBudget
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.format import is_held_to, told_and_enforced
from antiphon.providers.anthropic.lacks import lacks_while_thinking
from antiphon.providers.anthropic.prefill import continuation
from antiphon.providers.anthropic.sampling import may_have_top_p, stop_sequences
from antiphon.providers.anthropic.schema import enforced
from antiphon.providers.anthropic.tool_schema import object_schema, without_union
from antiphon.providers.bedrock.capabilities import CLAUDE, ModelFamily, family, maker
from antiphon.providers.bedrock.lacks import lacks_of
from antiphon.providers.bedrock.messages import PROTOCOL, BedrockEncoder
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.parts import CACHE_POINT, cache_point, native
from antiphon.providers.bedrock.thinking import INFERENCE, add_thinking
from antiphon.providers.body import dumps
from antiphon.providers.chat_forms import with_known_format, without_foreign_tools
from antiphon.providers.codec.cache_marks import limit_marks
from antiphon.providers.foreign import own_fields, with_own_tier
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import NATIVE_FORMAT, TEMPERATURE, adapted, output_limit, stop_texts, within

ADDITIONAL: Final = "additionalModelRequestFields"
"""The fields that Bedrock passes on to the model's own API."""

_PLAIN: Final = NativeFormat({"type": "text"})
"""The default of other APIs, for which this one has no word."""

_THINKING: Final = "thinking"
_MOST_MARKS: Final = 4

_OF_CLAUDE: Final = ((_THINKING, _THINKING), ("betas", "anthropic_beta"), ("context_management", "context_management"))
"""Fields of requests of Anthropic's API, and their names here:
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html."""
_TIER: Final = "serviceTier"
_TIERS: Final = {name: {"type": name} for name in ("flex", "priority", "reserved")}
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ServiceTier.html, by the values of chat completions."""

_FOREIGN_TOOLS: Final = ("type", "custom")
"""Fields that only tools of other APIs have."""


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that cannot
    be sent.
    """
    parameters = parameters or Parameters(provider)
    accepted = family(request.model)
    claude = capabilities(request.model) if maker(request.model) == CLAUDE else None
    if claude is not None:
        request = _with_claude_fields(request)
    request = adapted(with_known_format(request), lacks_of(accepted, claude), parameters)
    request = without_foreign_tools(request, parameters, is_tool=_is_own_tool, is_choice=_is_own_choice)
    tools = _tools(request, accepted)
    system_turns = claude is not None and claude.system_turns
    encoder = BedrockEncoder(provider, request.model, system_turns=system_turns, has_tools=bool(tools))
    encoder.encode(request.messages)
    if claude is not None and not claude.prefill and encoder.is_prefilled:
        encoder.ask(continuation(provider, parameters))
    body: dict[str, Any] = {"messages": encoder.messages}
    enforces = accepted.structured_output and (claude is None or claude.structured_output)
    budget = None if claude is None else SchemaBudget()
    told, form = told_and_enforced(request.response_format, parameters, budget, structured_output=enforces)
    if told:
        encoder.system.append({"text": told})
    if encoder.system:
        body["system"] = encoder.system
    if (limit := output_limit(request.sampling, parameters)) is not None:
        body[INFERENCE] = {"maxTokens": limit}
    additional: dict[str, Any] = {}
    if tools:
        _add_tools(body, additional, request, tools, accepted, parameters, budget)
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
    _limit_marks(body, accepted, parameters)
    extra = with_own_tier(request.extra, _TIER, _TIERS)
    return dumps(with_extra(body, own_fields(extra, parameters, PROTOCOL)))


def _limit_marks(body: JsonObject, accepted: ModelFamily, parameters: Parameters) -> None:
    """Leave out marks for the cache that the API or the model would refuse."""
    tools = body.get("toolConfig", {}).get("tools", [])
    places = (tools, body.get("system", []), *(message["content"] for message in body["messages"]))
    for lists, most in (((tools,), _MOST_MARKS * accepted.caches_tools), (places, _MOST_MARKS * accepted.caches)):
        limit_marks(lists, most, parameters, is_mark=lambda part: CACHE_POINT in part, without=lambda _: None)


def _with_claude_fields(request: ChatRequest) -> ChatRequest:
    """Return the request with fields of Anthropic's own API in their place here, which is among those of the model."""
    moved = {ours: request.extra[theirs] for theirs, ours in _OF_CLAUDE if request.extra.get(theirs)}
    if not moved:
        return request
    kept = {name: value for name, value in request.extra.items() if name not in dict(_OF_CLAUDE)}
    given = request.extra.get(ADDITIONAL)
    return replace(request, extra={**kept, ADDITIONAL: {**moved, **(given if isinstance(given, dict) else {})}})


def _is_own_tool(form: JsonObject) -> bool:
    """Return whether a tool has the form of this API, which has no `type`. Chat completions has custom tools."""
    return native(form).keys().isdisjoint(_FOREIGN_TOOLS)


def _is_own_choice(form: JsonObject) -> bool:
    return "type" not in form


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
    if stops := stop_texts(sampling, parameters) if claude is None else stop_sequences(sampling, parameters):
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
    budget: SchemaBudget | None,
) -> None:
    config: dict[str, Any] = {"tools": [part for tool in tools for part in _tool(tool, parameters, budget)]}
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


def _tool(tool: Tool | NativeTool, parameters: Parameters, budget: SchemaBudget | None) -> list[JsonObject]:
    """Return a tool, with the mark of a cache after it if the caller wants one. `budget` is None for models of other makers."""
    if isinstance(tool, NativeTool):
        return [native(tool.fields)]
    spec: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description:
        spec["description"] = tool.description
    schema = object_schema(tool.parameters)
    if budget is not None:
        schema = without_union(schema, parameters)
    is_strict = bool(tool.strict) and is_held_to(schema, budget, parameters)
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
