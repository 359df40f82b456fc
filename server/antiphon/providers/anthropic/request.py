"""Encodes a `ChatRequest` as a body of Anthropic's Messages API. No I/O.

https://platform.claude.com/docs/en/api/messages. The request's `extra` is merged at the same level; if both have a field, that of
the domain is sent. Options that the API or the model does not have are mapped, dropped or refused (`parameters`); content that it
cannot express is `Unsupported`.

The upstream is always asked for a stream, also for a whole reply, because a long one would else be cut by a host or a proxy that
waits for its first byte.
"""

from __future__ import annotations

import re
from typing import Any, Final

from antiphon.domain.content import JsonObject, with_extra
from antiphon.domain.request import (
    ChatRequest,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.anthropic.budget import SchemaBudget
from antiphon.providers.anthropic.capabilities import ModelCapabilities, capabilities
from antiphon.providers.anthropic.container import CONTAINER, container_of
from antiphon.providers.anthropic.format import is_held_to, told_and_enforced
from antiphon.providers.anthropic.lacks import lacks_of
from antiphon.providers.anthropic.messages import CACHE, PROTOCOL, AnthropicEncoder, plain
from antiphon.providers.anthropic.names import NAMES
from antiphon.providers.anthropic.prefill import continuation
from antiphon.providers.anthropic.sampling import may_have_top_p, stop_sequences
from antiphon.providers.anthropic.schema import enforced
from antiphon.providers.anthropic.thinking import add_thinking
from antiphon.providers.anthropic.tool_schema import object_schema, without_union
from antiphon.providers.body import dumps
from antiphon.providers.chat_forms import is_no_chat_choice, with_known_format, without_foreign_tools
from antiphon.providers.codec.cache_marks import limit_marks
from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import TEMPERATURE, adapted, within

BETAS: Final = "betas"
"""The field of `extra` that becomes the header `anthropic-beta`, as in Anthropic's SDKs."""

_BETA: Final = re.compile(r"[\w.\-]{1,128}", re.ASCII)

_TOOL_FIELDS: Final = ("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples", "type")
"""The fields of a tool that callers may add."""

_PLAIN: Final = NativeFormat({"type": "text"})
"""The default of other APIs, for which this one has no word."""

_OWN_FIELDS: Final = frozenset({"metadata", "service_tier"})
"""Fields of chat completions that this API has as well."""

_TIERS: Final = ("auto", "standard_only")
"""The values of `service_tier` in this API."""

_MOST_MARKS: Final = 4

_NONE: Final = "none"


def betas(request: ChatRequest) -> str | None:
    """Return the value of the header `anthropic-beta` that the caller wants; None if there is none."""
    wanted = request.extra.get(BETAS)
    if not isinstance(wanted, list):
        return None
    return ",".join(name for name in wanted if isinstance(name, str) and _BETA.fullmatch(name)) or None


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None, *, version: str | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    `version` is `anthropic_version` on other companies' clouds, which have the model in the URL.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that cannot
    be sent.
    """
    parameters = parameters or Parameters(provider)
    model = capabilities(request.model)
    encoder = AnthropicEncoder(provider, system_turns=model.system_turns)
    encoder.encode(request.messages)
    if encoder.is_prefilled and not model.prefill:
        encoder.ask(continuation(provider, parameters))
    where = {"model": request.model} if version is None else {"anthropic_version": version}
    body: dict[str, Any] = {**where, "max_tokens": _limit(request, model), "stream": True}
    add_thinking(body, request, model, parameters, is_possible=not encoder.continues_unsigned)
    thinks = body.get("thinking", request.extra.get("thinking"))
    is_thinking = isinstance(thinks, dict) and thinks.get("type") in ("enabled", "adaptive")
    container = None if CONTAINER in request.extra else container_of(request, provider)
    if container is not None:
        body[CONTAINER] = container
    request = adapted(with_known_format(request), lacks_of(model, thinks=is_thinking), parameters)
    request = without_foreign_tools(request, parameters, is_tool=_is_own_tool, is_choice=is_no_chat_choice)
    budget = SchemaBudget()
    told, form = told_and_enforced(request.response_format, parameters, budget, structured_output=model.structured_output)
    if told:
        encoder.system.append({"type": "text", "text": told})
    if encoder.system:
        body["system"] = plain(encoder.system)
    body["messages"] = [{**message, "content": plain(message["content"])} for message in encoder.messages]
    _add_sampling(body, request, model, parameters)
    _add_tools(body, request, parameters, budget)
    if isinstance(form, JsonSchemaFormat) or (isinstance(form, NativeFormat) and form != _PLAIN):
        body.setdefault("output_config", {})["format"] = _response_format(form, parameters)
    if request.end_user is not None:
        body["metadata"] = {"user_id": request.end_user}
    extra = {name: value for name, value in request.extra.items() if name != BETAS}
    _limit_marks(body, parameters, is_automatic=bool(extra.get(CACHE)))
    return dumps(with_extra(body, _accepted(own_fields(extra, parameters, PROTOCOL, _OWN_FIELDS), parameters)))


def _accepted(extra: JsonObject, parameters: Parameters) -> JsonObject:
    """Return the caller's fields without those values of `metadata` and `service_tier` that only chat completions has."""
    made = dict(extra)
    given = made.pop("metadata", None)
    known = {name: value for name, value in given.items() if name == "user_id"} if isinstance(given, dict) else {}
    if known:
        made["metadata"] = known
    if given and given != known:
        parameters.dropped(("extra", "metadata"), "the API has metadata.user_id alone")
    tier = made.get("service_tier", _TIERS[0])
    if tier not in _TIERS:
        del made["service_tier"]
        if tier not in (None, "default"):
            parameters.dropped(("extra", "service_tier"), "the API has no such tier")
    return made


def _is_own_tool(form: JsonObject) -> bool:
    """Return whether a tool has the form of this API: all have a name, but for sets of tools."""
    return isinstance(form.get("name"), str) or "toolset" in str(form.get("type"))


def _limit_marks(body: dict[str, Any], parameters: Parameters, *, is_automatic: bool) -> None:
    """Leave out marks for the cache that the API would refuse. `is_automatic`: it sets one itself."""
    places = (body.get("tools"), body.get("system"), *(message["content"] for message in body["messages"]))
    limit_marks(
        (parts for parts in places if isinstance(parts, list)),
        _MOST_MARKS - is_automatic,
        parameters,
        is_mark=lambda part: bool(part.get(CACHE)),
        without=lambda part: {name: value for name, value in part.items() if name != CACHE},
    )


def _limit(request: ChatRequest, model: ModelCapabilities) -> int:
    """Return the limit of the output, which the API demands."""
    sampling = request.sampling
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    return model.max_output if limit is None else limit


def _add_sampling(body: dict[str, Any], request: ChatRequest, model: ModelCapabilities, parameters: Parameters) -> None:
    sampling = request.sampling
    temperature = within(sampling.temperature, TEMPERATURE, 0, 1, parameters)
    if temperature is not None:
        body["temperature"] = temperature
    if sampling.top_p is not None and may_have_top_p(sampling.top_p, temperature, model, parameters):
        body["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        body["top_k"] = sampling.top_k
    if stops := stop_sequences(sampling, parameters):
        body["stop_sequences"] = stops


def _add_tools(body: dict[str, Any], request: ChatRequest, parameters: Parameters, budget: SchemaBudget) -> None:
    """Add the tools, and whether one must be called. Without tools there is no choice."""
    if not request.tools:
        return
    body["tools"] = [_tool(tool, parameters, budget) for tool in request.tools]
    choice = request.tool_choice
    chosen: dict[str, Any] | None = None
    if choice is not None and choice.native is not None:
        chosen = dict(choice.native)
    elif choice is not None:
        chosen = _tool_choice(choice)
    if request.parallel_tool_calls is not None:
        chosen = chosen or {"type": "auto"}
        if chosen.get("type") != _NONE:
            chosen.setdefault("disable_parallel_tool_use", not request.parallel_tool_calls)
    if chosen is not None:
        body["tool_choice"] = chosen


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    match choice.mode:
        case ToolChoiceMode.TOOL:
            return {"type": "tool", "name": NAMES.sent(choice.name or "")}
        case ToolChoiceMode.REQUIRED:
            return {"type": "any"}
        case ToolChoiceMode.NONE:
            return {"type": "none"}
        case ToolChoiceMode.AUTO:
            return {"type": "auto"}


def _tool(tool: Tool | NativeTool, parameters: Parameters, budget: SchemaBudget) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    result: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description:
        result["description"] = tool.description
    schema = without_union(object_schema(tool.parameters), parameters)
    is_strict = bool(tool.strict) and is_held_to(schema, budget, parameters)
    result["input_schema"] = enforced(schema, ("tools", "parameters"), parameters) if is_strict else schema
    if is_strict:
        result["strict"] = True
    inner = tool.extra.get("function")
    for fields in (tool.extra, inner if isinstance(inner, dict) else {}):
        result |= {name: fields[name] for name in _TOOL_FIELDS if fields.get(name) is not None and name not in result}
    return result


def _response_format(response_format: JsonSchemaFormat | NativeFormat, parameters: Parameters) -> JsonObject:
    match response_format:
        case JsonSchemaFormat():
            schema = dict(enforced(response_format.schema, ("response_format", "schema"), parameters))
            if response_format.description:
                schema.setdefault("description", response_format.description)
            return {"type": "json_schema", "schema": schema}
        case NativeFormat():
            return response_format.fields
