"""Encodes a `ChatRequest` as a body of the Responses API. No I/O.

https://platform.openai.com/docs/api-reference/responses/create. The request's `extra` is merged at the same level; if both have a
field, that of the domain is sent. What the API cannot express and would change the reply is `Unsupported`; mere hints are left out.

The provider keeps no replies (`store`), unless the caller asks for it. So the encrypted reasoning is asked for (`include`), which
models that do not reason refuse. Fields that chat completions have at another place are moved there.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
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
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.body import dumps
from antiphon.providers.codec.values import as_object
from antiphon.providers.responses.items import ENCRYPTED, NAMES, REASONING
from antiphon.providers.responses.messages import ResponsesEncoder

_WITHOUT_REASONING: Final = (
    "gpt-3*",
    "gpt-4*",
    "chatgpt-*",
    "gpt-5*-chat*",
    "ft:gpt-3*",
    "ft:gpt-4*",
    "grok-2*",
    "grok-*-non-reasoning*",
)
"""Patterns of the models that refuse a request for encrypted reasoning. Unknown models count as newer ones, which do not.

https://platform.openai.com/docs/models
"""

_OF_CHAT: Final = frozenset({"audio", "logit_bias", "modalities", "prediction", "response_format", "web_search_options"})
"""Fields of chat completions that this API refuses. They are hints, or empty, or sent in another place."""

_EMPTY_SCHEMA: Final[JsonObject] = {"type": "object", "properties": {}}


def encode(request: ChatRequest, provider: str) -> bytes:
    """Return the JSON body.

    Raises `Unsupported` for what this API cannot express, and `InvalidRequest` for data that is nested too deeply to be sent.
    """
    _check(request, provider)
    sampling = request.sampling
    body: dict[str, Any] = {"model": request.model, "input": ResponsesEncoder(provider).encode(request.messages)}
    if request.stream:
        body["stream"] = True
    body["store"] = request.extra.get("store") is True
    _set(body, "include", _include(request))
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    _set(body, "max_output_tokens", limit)
    _set(body, "temperature", sampling.temperature)
    _set(body, "top_p", sampling.top_p)
    _set(body, "top_logprobs", sampling.top_logprobs)
    if tools := [*map(_tool, request.tools), *_search(request)]:
        body["tools"] = tools
        _set(body, "parallel_tool_calls", request.parallel_tool_calls)
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["text"] = {"format": _response_format(request.response_format)}
    if request.reasoning is not None and request.reasoning.effort is not None:
        body[REASONING] = {"effort": request.reasoning.effort}
    _set(body, "user", request.end_user)
    return dumps(with_extra(body, _moved(request.extra)))


def _set(body: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        body[name] = value


def _check(request: ChatRequest, provider: str) -> None:
    """Raise `Unsupported` for the first thing that this API cannot express."""
    sampling = request.sampling
    unsupported = {
        "several choices": (sampling.choices or 1) > 1,
        "stop sequences": bool(sampling.stop),
        "top_k": sampling.top_k is not None,
        "presence_penalty": bool(sampling.presence_penalty),
        "frequency_penalty": bool(sampling.frequency_penalty),
        "logit_bias": bool(sampling.logit_bias),
        "output other than text": request.audio_output is not None or any(kind != "text" for kind in request.modalities),
    }
    for what, is_wanted in unsupported.items():
        if is_wanted:
            raise Unsupported(f"The provider {provider} does not support {what}.", provider=provider)


def _include(request: ChatRequest) -> list[str] | None:
    """Return what the reply is to have beside its usual content; None if nothing."""
    given = request.extra.get("include")
    wanted = [one for one in given if isinstance(one, str)] if isinstance(given, list | tuple) else []
    if not any(fnmatchcase(request.model.lower(), pattern) for pattern in _WITHOUT_REASONING):
        wanted.append(f"{REASONING}.{ENCRYPTED}")
    if request.sampling.logprobs:
        wanted.append("message.output_text.logprobs")
    return list(dict.fromkeys(wanted)) or None


def _moved(extra: JsonObject) -> JsonObject:
    """Return the caller's fields in the places that this API has for them."""
    if not extra.keys() & {"verbosity", *_OF_CHAT}:
        return extra
    rest = {name: value for name, value in extra.items() if name not in ("verbosity", *_OF_CHAT)}
    verbosity = extra.get("verbosity")
    return rest if verbosity is None else {**rest, "text": {"verbosity": verbosity, **as_object(rest.get("text"))}}


def _search(request: ChatRequest) -> list[JsonObject]:
    """Return the tool that searches the web, if the caller asked for it as chat completions does."""
    options = request.extra.get("web_search_options")
    if not isinstance(options, dict):
        return []
    place = options.get("user_location")
    located = {"user_location": _flat(place, "approximate")} if isinstance(place, dict) else {}
    return [{"type": "web_search", **{name: value for name, value in options.items() if value is not None}, **located}]


def _tool(tool: Tool | NativeTool) -> JsonObject:
    """Return a tool. A function is strict by default in this API, but not in the others."""
    if isinstance(tool, NativeTool):
        return _native_tool(tool.fields)
    made: dict[str, Any] = {"type": "function", "name": NAMES.sent(tool.name)}
    _set(made, "description", tool.description)
    made["parameters"] = _EMPTY_SCHEMA if tool.parameters is None else tool.parameters
    made["strict"] = bool(tool.strict)
    extra = _flat(tool.extra, "function")
    extra.pop("cache_control", None)  # a mark for the cache of another API, which this one refuses
    return with_extra(made, extra)


def _native_tool(fields: JsonObject) -> JsonObject:
    """Return a tool that takes plain text in the form of this API; any other as it is."""
    if fields.get("type") != "custom" or not isinstance(fields.get("custom"), dict):
        return fields
    made = _flat(fields, "custom")
    form = as_object(made.get("format"))
    return {**made, "format": _flat(form, "grammar")} if "grammar" in form else made


def _tool_choice(choice: ToolChoice) -> JsonObject | str:
    if choice.native is not None:
        return _native_choice(choice.native)
    if choice.mode is ToolChoiceMode.TOOL:
        return {"type": "function", "name": NAMES.sent(choice.name or "")}
    return choice.mode.value


def _native_choice(choice: JsonObject) -> JsonObject:
    """Return a choice in the form of this API, which has the fields of a tool beside its type."""
    made = dict(choice)
    for name in ("function", "custom", "allowed_tools"):
        if made.get("type") == name:
            made = _flat(made, name)
    if isinstance(tools := made.get("tools"), list):
        made["tools"] = [_flat(as_object(tool), str(as_object(tool).get("type"))) for tool in tools]
    return made


def _response_format(response_format: ResponseFormat) -> JsonObject:
    match response_format:
        case JsonObjectFormat():
            return {"type": "json_object"}
        case JsonSchemaFormat():
            made: dict[str, Any] = {"type": "json_schema", "name": response_format.name, "schema": response_format.schema}
            _set(made, "description", response_format.description)
            _set(made, "strict", response_format.strict)
            return with_extra(made, _flat(response_format.extra, "json_schema"))
        case NativeFormat():
            return _flat(response_format.fields, "json_schema")


def _flat(fields: JsonObject, name: str) -> dict[str, Any]:
    """Return fields with those of the object `name` among them, not inside it."""
    inner = fields.get(name)
    return {**{key: value for key, value in fields.items() if key != name}, **inner} if isinstance(inner, dict) else dict(fields)
