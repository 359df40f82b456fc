"""Encodes a `ChatRequest` as a body of the Gemini API. No I/O.

https://ai.google.dev/api/generate-content#request-body. The request's `extra` is merged at the same level; if both have a field,
that of the domain is sent. So explicit caching is `cachedContent`, and the thresholds of filters are `safetySettings`. Options that
the API or the model does not have are mapped, dropped or refused (`_LACKS`); content that it cannot express is `Unsupported`.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.content import JsonObject, with_extra
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
from antiphon.providers.chat_forms import with_known_format, without_foreign_tools
from antiphon.providers.foreign import own_fields, with_own_tier
from antiphon.providers.gemini.blocks import PROTOCOL
from antiphon.providers.gemini.capabilities import GeminiCapabilities, capabilities_of
from antiphon.providers.gemini.messages import GeminiEncoder
from antiphon.providers.gemini.names import NAMES
from antiphon.providers.gemini.recursion import without_required_cycles
from antiphon.providers.gemini.schema import accepted
from antiphon.providers.json_instruction import json_instruction
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import (
    EFFORT,
    END_USER,
    FREQUENCY_PENALTY,
    IMAGE_DETAIL,
    JSON_SCHEMA,
    LOGIT_BIAS,
    ONE_CALL,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    STRICT_FORMAT,
    STRICT_TOOLS,
    Lacks,
    Support,
    adapted,
    output_limit,
    stop_texts,
    within,
)

_SAMPLING: Final = (
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("seed", "seed"),
    ("choices", "candidateCount"),
    ("logprobs", "responseLogprobs"),
    ("top_logprobs", "logprobs"),
)
"""Names of fields: the domain's, and the API's."""

_MOST_PENALTY: Final = 1.99
"""The API has penalties below 2."""

_MOST_STOPS: Final = 5

_CONFIG: Final = "generationConfig"
_THINKING: Final = "thinkingConfig"
_LEVEL: Final = "thinkingLevel"
_BUDGET: Final = "thinkingBudget"

_NONE: Final = "none"
_NEAREST: Final = "the nearest level that the model has"

_TIER: Final = "serviceTier"
_TIERS: Final = {name: name for name in ("flex", "priority")}
"""https://ai.google.dev/api/generate-content#ServiceTier, by the values of chat completions."""

_JSON: Final = {"responseMimeType": "application/json"}

_CYCLES: Final = "the API requires no property that contains its own schema again"

_FORMATS: Final = frozenset({"pcm16", "pcm"})
"""The only format of recordings that the API makes."""


_LACKS: Final[Lacks] = {
    LOGIT_BIAS: Support("the API has no bias for tokens"),
    ONE_CALL: Support("the models may always call several tools"),
    STRICT_FORMAT: Support("every schema is followed strictly", is_implied=True),
    END_USER: Support("the API has no such field"),
    PARTICIPANTS: Support("messages have no names"),
    IMAGE_DETAIL: Support("the API has one resolution for all media of a request"),
}
"""What the API does not have, whatever the model: https://ai.google.dev/api/generate-content#request-body."""


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that is
    nested too deeply to be sent.
    """
    parameters = parameters or Parameters(provider)
    capabilities = capabilities_of(request.model)
    request = adapted(with_known_format(request), _LACKS, parameters)
    request = without_foreign_tools(request, parameters, is_tool=_is_own, is_choice=_is_own)
    encoder = GeminiEncoder(provider, request.model, capabilities)
    body: dict[str, Any] = {"contents": encoder.encode(request.messages)}
    if encoder.instructions:
        body["systemInstruction"] = {"parts": encoder.instructions}
    _add_tools(body, request, capabilities, parameters)
    told, request = _format_as_instruction(request, capabilities, parameters)
    if told:
        body.setdefault("systemInstruction", {"parts": []})["parts"].append({"text": told})
    config = _config(request, parameters)
    thinking = _thinking(request, parameters, capabilities)
    if thinking:
        config[_THINKING] = thinking
    if encoder.continuation:
        config["continuationToken"] = encoder.continuation
    if config:
        body[_CONFIG] = config
    extra = with_own_tier(request.extra, _TIER, _TIERS)
    return dumps(with_extra(body, own_fields(extra, parameters, PROTOCOL)))


def _is_own(form: JsonObject) -> bool:
    """Return whether a tool or a choice has the form of this API, which has no `type`."""
    return "type" not in form


def _format_as_instruction(
    request: ChatRequest, capabilities: GeminiCapabilities, parameters: Parameters
) -> tuple[str, ChatRequest]:
    """Return what the model is told about the format, if it has none beside tools, and the request without that format."""
    form = request.response_format
    if capabilities.formats_beside_tools or not request.tools or not isinstance(form, JsonObjectFormat | JsonSchemaFormat):
        return "", request
    is_told = parameters.mapped(("response_format",), "systemInstruction", "the model has no format beside tools")
    return json_instruction(form) if is_told else "", replace(request, response_format=None)


def _config(request: ChatRequest, parameters: Parameters) -> dict[str, Any]:
    """Return `generationConfig`, without what is about thinking."""
    sampling = request.sampling
    config: dict[str, Any] = {theirs: value for ours, theirs in _SAMPLING if (value := getattr(sampling, ours)) is not None}
    for option in (PRESENCE_PENALTY, FREQUENCY_PENALTY):  # others have 2, too
        theirs = dict(_SAMPLING)[option.path[-1]]
        penalty = within(config.pop(theirs, None), option, -2, _MOST_PENALTY, parameters)
        if penalty is not None:
            config[theirs] = penalty
    if sampling.choices == 1:
        del config["candidateCount"]  # which old models refuse
    limit = output_limit(sampling, parameters)
    if limit is not None:
        config["maxOutputTokens"] = limit
    if stops := stop_texts(sampling, parameters, _MOST_STOPS):
        config["stopSequences"] = stops
    if any(kind != "text" for kind in request.modalities):
        config["responseModalities"] = [kind.upper() for kind in request.modalities]
    if request.audio_output is not None:
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": request.audio_output.voice}}}
        if request.audio_output.format not in _FORMATS:
            parameters.dropped(("audio_output", "format"), "recordings are always pcm16")
    if request.response_format is not None:
        config |= _response_format(request.response_format, parameters)
    return config


def _thinking(request: ChatRequest, parameters: Parameters, capabilities: GeminiCapabilities) -> JsonObject:
    """Return `thinkingConfig`, of which a level and a budget exclude each other. What the caller's `extra` has comes first."""
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return {}
    given = request.extra.get(_CONFIG)
    if isinstance(given, dict) and _THINKING in given:
        parameters.dropped(EFFORT.path, "the request has the API's own parameter for it")
        return {}
    if not (capabilities.levels or capabilities.budgets):
        if effort != _NONE:
            parameters.dropped(EFFORT.path, "the model cannot be told how much to think")
        return {}
    made = _effort(effort, parameters, capabilities)
    return {**made, "includeThoughts": True} if made and effort != _NONE else made


def _effort(effort: str, parameters: Parameters, capabilities: GeminiCapabilities) -> JsonObject:
    """Return the level or the budget for an effort; empty if there is none."""
    level, budget = capabilities.levels.get(effort), capabilities.budgets.get(effort)
    if level is not None:
        is_same = level.lower() == effort
        return {_LEVEL: level} if is_same or parameters.mapped(EFFORT.path, f"{_LEVEL} {level}", _NEAREST) else {}
    if budget is not None:
        is_same = effort == _NONE and budget == 0
        reason = "the model is told a number of tokens"
        return {_BUDGET: budget} if is_same or parameters.mapped(EFFORT.path, _BUDGET, reason) else {}
    parameters.dropped(EFFORT.path, "the model does not know this effort")
    return {}


def _add_tools(body: dict[str, Any], request: ChatRequest, capabilities: GeminiCapabilities, parameters: Parameters) -> None:
    """Add the tools, and whether one must be called."""
    functions = [tool for tool in request.tools if isinstance(tool, Tool)]
    tools: list[JsonObject] = [tool.fields for tool in request.tools if isinstance(tool, NativeTool)]
    if functions:
        tools.insert(0, {"functionDeclarations": [_function(tool) for tool in functions]})
    if tools:
        body["tools"] = tools
    choice = request.tool_choice
    if choice is not None and choice.native is not None:
        body["toolConfig"] = choice.native
        return
    if not functions:
        return
    config: dict[str, Any] = {}
    match None if choice is None else choice.mode:
        case ToolChoiceMode.NONE:
            config["mode"] = "NONE"
        case ToolChoiceMode.REQUIRED:
            config["mode"] = "ANY"
        case ToolChoiceMode.TOOL:
            config["mode"] = "ANY"
            config["allowedFunctionNames"] = [NAMES.sent("" if choice is None else choice.name or "")]
        case _ if _validates(functions, capabilities, parameters):
            config["mode"] = "VALIDATED"
        case ToolChoiceMode.AUTO:
            config["mode"] = "AUTO"
        case None:
            return
    body["toolConfig"] = {"functionCallingConfig": config}


def _validates(functions: list[Tool], capabilities: GeminiCapabilities, parameters: Parameters) -> bool:
    """Return whether the model is to follow the schemas of the tools strictly. The API has that for all of them together."""
    strict = [tool for tool in functions if tool.strict]
    if not strict:
        return False
    if not capabilities.validates:
        parameters.dropped(STRICT_TOOLS.path, "the model cannot be held to the schemas of tools")
        return False
    return len(strict) == len(functions) or parameters.mapped(
        STRICT_TOOLS.path, "functionCallingConfig.mode VALIDATED", "the API has it for all tools together"
    )


def _function(tool: Tool) -> JsonObject:
    function: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parametersJsonSchema"] = accepted(tool.parameters)
    return function


def _response_format(response_format: ResponseFormat, parameters: Parameters) -> JsonObject:
    """Return the fields of `generationConfig` for a format. A native one is such fields itself, or plain text."""
    match response_format:
        case JsonObjectFormat():
            return _JSON
        case JsonSchemaFormat():
            schema = accepted(response_format.schema)
            freed = without_required_cycles(schema)
            if freed is not schema and not parameters.mapped(JSON_SCHEMA.path, "a schema that requires less", _CYCLES):
                return _JSON
            return {**_JSON, "responseJsonSchema": freed}
        case NativeFormat():
            kind = response_format.fields.get("type")
            if kind is None:
                return response_format.fields
            if kind != "text":
                parameters.dropped(("response_format",), "the format is of another API")
            return {}
