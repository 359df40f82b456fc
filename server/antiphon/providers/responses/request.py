"""Encodes a `ChatRequest` as a body of the Responses API. No I/O.

https://platform.openai.com/docs/api-reference/responses/create. The request's `extra` is merged at the same level; if both have a
field, that of the domain is sent. Options that the API or the model does not have are mapped, dropped or refused; content that it
cannot express is `Unsupported`.

The provider keeps no replies (`store`), unless the caller asks for it. So the encrypted reasoning is asked for (`include`), which
models that do not reason refuse. Fields that chat completions have at another place are moved there.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Final

from antiphon.domain.content import JsonObject, with_extra
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
from antiphon.providers import openai_models
from antiphon.providers.body import dumps
from antiphon.providers.codec.values import as_object
from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters
from antiphon.providers.responses.items import ENCRYPTED, NAMES, REASONING
from antiphon.providers.responses.messages import ResponsesEncoder
from antiphon.providers.support import (
    AUDIO_OUTPUT,
    CHOICES,
    FREQUENCY_PENALTY,
    LOGIT_BIAS,
    MAX_COMPLETION_TOKENS,
    MAX_TOKENS,
    MODALITIES,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    SEED,
    STOP,
    TOP_K,
    Lacks,
    Support,
    adapted,
)

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

_OWN_FIELDS: Final = frozenset(
    {
        "metadata",
        "moderation",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "verbosity",
        "web_search_options",
    }
)
"""Fields of chat completions that this API has as well, if perhaps in another place."""

_LEAST_OUTPUT: Final = 16
"""The lowest limit of the output that the API accepts."""

_EMPTY_SCHEMA: Final[JsonObject] = {"type": "object", "properties": {}}


_ONLY_TEXT: Final = Support("the API returns text only")

_LACKS: Final[Lacks] = {
    STOP: Support("the API has no stop sequences"),
    TOP_K: Support("the API has no top_k"),
    PRESENCE_PENALTY: Support("the API has no penalties"),
    FREQUENCY_PENALTY: Support("the API has no penalties"),
    SEED: Support("the API has no seed"),
    CHOICES: Support("the API makes only one choice"),
    LOGIT_BIAS: Support("the API has no bias for tokens"),
    MODALITIES: _ONLY_TEXT,
    AUDIO_OUTPUT: _ONLY_TEXT,
    PARTICIPANTS: Support("messages have no names"),
}
"""What the API does not have, whatever the model: https://platform.openai.com/docs/guides/migrate-to-responses."""


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that is
    nested too deeply to be sent.
    """
    parameters = parameters or Parameters(provider)
    request = adapted(request, {**openai_models.OPENAI.row(request.model).lacks_of(request), **_LACKS}, parameters)
    sampling = request.sampling
    body: dict[str, Any] = {"model": request.model, "input": ResponsesEncoder(provider).encode(request.messages)}
    if request.stream:
        body["stream"] = True
    body["store"] = request.extra.get("store") is True
    _set(body, "include", _include(request))
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    if limit is not None and limit < _LEAST_OUTPUT:
        option = MAX_TOKENS if sampling.max_completion_tokens is None else MAX_COMPLETION_TOKENS
        is_mapped = parameters.mapped(option.path, f"max_output_tokens {_LEAST_OUTPUT}", "the API accepts no lower limit")
        limit = _LEAST_OUTPUT if is_mapped else None
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
    return dumps(with_extra(body, _moved(own_fields(request.extra, parameters, "responses", _OWN_FIELDS))))


def _set(body: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        body[name] = value


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
    if not extra.keys() & {"verbosity", "web_search_options"}:
        return extra
    rest = {name: value for name, value in extra.items() if name not in ("verbosity", "web_search_options")}
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
    made["parameters"] = tool.parameters or _EMPTY_SCHEMA
    if made["parameters"].get("type") != "object":
        made["parameters"] = {**made["parameters"], "type": "object"}  # which the input of a tool always is
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
            made: dict[str, Any] = {
                "type": "json_schema",
                "name": NAMES.sent(response_format.name),
                "schema": response_format.schema,
            }
            _set(made, "description", response_format.description)
            _set(made, "strict", response_format.strict)
            return with_extra(made, _flat(response_format.extra, "json_schema"))
        case NativeFormat():
            return _flat(response_format.fields, "json_schema")


def _flat(fields: JsonObject, name: str) -> dict[str, Any]:
    """Return fields with those of the object `name` among them, not inside it."""
    inner = fields.get(name)
    return {**{key: value for key, value in fields.items() if key != name}, **inner} if isinstance(inner, dict) else dict(fields)
