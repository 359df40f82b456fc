"""Encodes a `ChatRequest` as a body of Anthropic's Messages API. No I/O.

https://platform.claude.com/docs/en/api/messages. The request's `extra` is merged at the same level; if both have a field, that of
the domain is sent. What the API or the model cannot express and would change the reply is `Unsupported`; mere hints are left out.

The upstream is always asked for a stream, also for a whole reply, because a long one would else be cut by a host or a proxy that
waits for its first byte.
"""

from __future__ import annotations

import re
from typing import Any, Final

from antiphon.domain.content import JsonObject, with_extra
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
from antiphon.providers.anthropic.capabilities import ModelCapabilities, ThinkingControl, ThinkingOff, capabilities
from antiphon.providers.anthropic.container import CONTAINER, container_of
from antiphon.providers.anthropic.messages import AnthropicEncoder, plain
from antiphon.providers.anthropic.names import NAMES
from antiphon.providers.anthropic.schema import reduced
from antiphon.providers.body import dumps

BETAS: Final = "betas"
"""The field of `extra` that becomes the header `anthropic-beta`, as in Anthropic's SDKs."""

_BETA: Final = re.compile(r"[\w.\-]{1,128}", re.ASCII)

_TOOL_FIELDS: Final = ("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples", "type")
"""The fields of a tool that callers may add."""

_PLAIN: Final = NativeFormat({"type": "text"})
"""The default of other APIs, for which this one has no word."""

_JSON_ONLY: Final[JsonObject] = {
    "type": "text",
    "text": "Reply with one JSON object and nothing else: no other text before or after it, and no code fence around it.",
}
"""The instruction for JSON without a schema, for which the API has no field."""

_NONE: Final = "none"
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
"""Efforts of other APIs, and the API's."""

_LOWER: Final = {"max": "xhigh", "xhigh": "high"}
"""The next lower effort, for models that do not have the highest ones."""

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_000, "max": 32_000}
"""Tokens of thinking by effort, for models that are told a number."""

_LOWEST_BUDGET: Final = 1024


def betas(request: ChatRequest) -> str | None:
    """Return the value of the header `anthropic-beta` that the caller wants; None if there is none."""
    wanted = request.extra.get(BETAS)
    if not isinstance(wanted, list):
        return None
    return ",".join(name for name in wanted if isinstance(name, str) and _BETA.fullmatch(name)) or None


def encode(request: ChatRequest, provider: str, *, version: str | None = None) -> bytes:
    """Return the JSON body.

    `version` is `anthropic_version` on other companies' clouds, which have the model in the URL.

    Raises `Unsupported` for what this API cannot express, and `InvalidRequest` for data that cannot be sent.
    """
    model = capabilities(request.model)
    _check(request, model, provider)
    encoder = AnthropicEncoder(provider, system_turns=model.system_turns)
    encoder.encode(request.messages)
    where = {"model": request.model} if version is None else {"anthropic_version": version}
    body: dict[str, Any] = {**where, "max_tokens": _limit(request, model), "stream": True}
    _add_thinking(body, request, model, is_possible=not encoder.continues_unsigned)
    container = None if CONTAINER in request.extra else container_of(request, provider)
    if container is not None:
        body[CONTAINER] = container
    if isinstance(request.response_format, JsonObjectFormat):
        encoder.system.append(_JSON_ONLY)
    if encoder.system:
        body["system"] = plain(encoder.system)
    body["messages"] = [{**message, "content": plain(message["content"])} for message in encoder.messages]
    _add_sampling(body, request, model)
    _add_tools(body, request, is_strict=model.structured_output)
    if request.response_format not in (None, _PLAIN) and not isinstance(request.response_format, JsonObjectFormat):
        body.setdefault("output_config", {})["format"] = _response_format(request.response_format)
    if request.end_user is not None:
        body["metadata"] = {"user_id": request.end_user}
    return dumps(with_extra(body, {name: value for name, value in request.extra.items() if name != BETAS}))


def _check(request: ChatRequest, model: ModelCapabilities, provider: str) -> None:
    """Raise `Unsupported` for the first thing that this API or this model cannot express."""
    sampling, choice = request.sampling, request.tool_choice
    is_forced = choice is not None and choice.native is None and choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL)
    unsupported = {
        "several choices": (sampling.choices or 1) > 1,
        "log probabilities": bool(sampling.logprobs or sampling.top_logprobs),
        "logit_bias": bool(sampling.logit_bias),
        "presence_penalty": bool(sampling.presence_penalty),
        "frequency_penalty": bool(sampling.frequency_penalty),
        "output other than text": request.audio_output is not None or any(kind != "text" for kind in request.modalities),
        "temperature with this model": not model.sampling and sampling.temperature not in (None, 1),
        "top_p with this model": not model.sampling and sampling.top_p not in (None, 1),
        "top_k with this model": not model.sampling and sampling.top_k is not None,
        "a forced tool call with this model": is_forced and not model.forced_tools,
        "a response format with this model": isinstance(request.response_format, JsonSchemaFormat) and not model.structured_output,
    }
    for what, is_wanted in unsupported.items():
        if is_wanted:
            raise Unsupported(f"The provider {provider} does not support {what}.", provider=provider)


def _limit(request: ChatRequest, model: ModelCapabilities) -> int:
    """Return the limit of the output, which the API demands."""
    sampling = request.sampling
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    return model.max_output if limit is None else limit


def _add_sampling(body: dict[str, Any], request: ChatRequest, model: ModelCapabilities) -> None:
    sampling = request.sampling
    if model.sampling:
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        if sampling.top_p is not None and (sampling.top_p != 1 or sampling.temperature is None):
            body["top_p"] = sampling.top_p  # models refuse it beside a temperature, and 1 changes nothing
        if sampling.top_k is not None:
            body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop_sequences"] = [sampling.stop] if isinstance(sampling.stop, str) else sampling.stop


def _add_thinking(body: dict[str, Any], request: ChatRequest, model: ModelCapabilities, *, is_possible: bool) -> None:
    """Add how much the model thinks. `is_possible`: the messages allow a budget.

    The caller's own fields, in `extra`, count instead. A forced tool call, which excludes a budget, is more than a hint.
    """
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None or "thinking" in request.extra or (effort != _NONE and effort not in _EFFORTS):
        return
    if effort == _NONE:
        _add_no_thinking(body, model)
        return
    if model.efforts:
        wanted = _EFFORTS[effort]
        while wanted not in model.efforts:
            wanted = _LOWER[wanted]
        body["output_config"] = {"effort": wanted}
    if model.thinking is ThinkingControl.ADAPTIVE:
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
    elif model.thinking is ThinkingControl.BUDGET and is_possible and not _is_forced(request.tool_choice):
        # The budget is part of the limit, a quarter of which is left for the answer.
        budget = min(_BUDGETS[effort], body["max_tokens"] * 3 // 4)
        if budget >= _LOWEST_BUDGET:
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _add_no_thinking(body: dict[str, Any], model: ModelCapabilities) -> None:
    if model.thinking is not ThinkingControl.ADAPTIVE:
        return  # the others think only if they are told to
    match model.off:
        case ThinkingOff.DISABLED:
            body["thinking"] = {"type": "disabled"}
        case ThinkingOff.BETWEEN_TOOLS:
            body["thinking"] = {"type": "between_tools"}
        case ThinkingOff.LOW_EFFORT:
            body["output_config"] = {"effort": "low"}


def _is_forced(choice: ToolChoice | None) -> bool:
    if choice is None:
        return False
    if choice.native is not None:
        return choice.native.get("type") in ("any", "tool")
    return choice.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.TOOL)


def _add_tools(body: dict[str, Any], request: ChatRequest, *, is_strict: bool) -> None:
    """Add the tools, and whether one must be called. Without tools there is no choice.

    `is_strict`: the model can be held to the schema of a tool.
    """
    if not request.tools:
        return
    body["tools"] = [_tool(tool, is_strict=is_strict) for tool in request.tools]
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


def _tool(tool: Tool | NativeTool, *, is_strict: bool) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    result: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description:
        result["description"] = tool.description
    schema = {"properties": {}} if tool.parameters is None else tool.parameters
    schema = schema if "type" in schema else {"type": "object", **schema}
    result["input_schema"] = reduced(schema) if tool.strict and is_strict else schema
    if tool.strict and is_strict:
        result["strict"] = True
    inner = tool.extra.get("function")
    for fields in (tool.extra, inner if isinstance(inner, dict) else {}):
        result |= {name: fields[name] for name in _TOOL_FIELDS if fields.get(name) is not None and name not in result}
    return result


def _response_format(response_format: JsonSchemaFormat | NativeFormat) -> JsonObject:
    match response_format:
        case JsonSchemaFormat():
            schema = reduced(response_format.schema)
            if response_format.description:
                schema.setdefault("description", response_format.description)
            return {"type": "json_schema", "schema": schema}
        case NativeFormat():
            return response_format.fields
