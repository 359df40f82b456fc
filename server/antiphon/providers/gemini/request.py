"""Encodes a `ChatRequest` as a body of the Gemini API. No I/O.

https://ai.google.dev/api/generate-content#request-body. The request's `extra` is merged at the same level; if both have a field,
that of the domain is sent. So explicit caching is `cachedContent`, and the thresholds of filters are `safetySettings`. What the API
cannot express and would change the reply is `Unsupported`; mere hints are left out.
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
from antiphon.providers.gemini.capabilities import GeminiCapabilities, capabilities_of
from antiphon.providers.gemini.messages import GeminiEncoder
from antiphon.providers.gemini.names import NAMES
from antiphon.providers.gemini.schema import accepted

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

_CONFIG: Final = "generationConfig"
_THINKING: Final = "thinkingConfig"

_JSON: Final = {"responseMimeType": "application/json"}

_FORMATS: Final = frozenset({"pcm16", "pcm"})
"""The only format of recordings that the API makes."""


def encode(request: ChatRequest, provider: str) -> bytes:
    """Return the JSON body.

    Raises `Unsupported` for what this API cannot express, and `InvalidRequest` for data that is nested too deeply to be sent.
    """
    _check(request, provider)
    capabilities = capabilities_of(request.model)
    encoder = GeminiEncoder(provider, request.model, capabilities)
    body: dict[str, Any] = {"contents": encoder.encode(request.messages)}
    if encoder.instructions:
        body["systemInstruction"] = {"parts": encoder.instructions}
    _add_tools(body, request, capabilities)
    config = _config(request, provider, capabilities)
    if encoder.continuation:
        config["continuationToken"] = encoder.continuation
    if config:
        body[_CONFIG] = config
    return dumps(with_extra(body, request.extra))


def _check(request: ChatRequest, provider: str) -> None:
    """Raise `Unsupported` for the first thing that this API cannot express."""
    audio, choice = request.audio_output, request.tool_choice
    unsupported = {
        "logit_bias": bool(request.sampling.logit_bias),
        "a limit of one tool call at a time": request.parallel_tool_calls is False and bool(request.tools),
        "tools of another API": any(isinstance(tool, NativeTool) and "type" in tool.fields for tool in request.tools),
        "a tool choice of another API": choice is not None and choice.native is not None and "type" in choice.native,
        "recordings in a format other than pcm16": audio is not None and audio.format not in _FORMATS,
    }
    for what, is_wanted in unsupported.items():
        if is_wanted:
            raise _unsupported(what, provider)


def _unsupported(what: str, provider: str) -> Unsupported:
    return Unsupported(f"The provider {provider} does not support {what}.", provider=provider)


def _config(request: ChatRequest, provider: str, capabilities: GeminiCapabilities) -> dict[str, Any]:
    """Return `generationConfig`."""
    sampling = request.sampling
    config: dict[str, Any] = {theirs: value for ours, theirs in _SAMPLING if (value := getattr(sampling, ours)) is not None}
    if sampling.choices == 1:
        del config["candidateCount"]  # which old models refuse
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    if limit is not None:
        config["maxOutputTokens"] = limit
    if sampling.stop is not None:
        config["stopSequences"] = [sampling.stop] if isinstance(sampling.stop, str) else sampling.stop
    if any(kind != "text" for kind in request.modalities):
        config["responseModalities"] = [kind.upper() for kind in request.modalities]
    if request.audio_output is not None:
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": request.audio_output.voice}}}
    if request.response_format is not None:
        config |= _response_format(request.response_format, provider)
    thinking = _thinking(request, provider, capabilities)
    if thinking:
        config[_THINKING] = thinking
    return config


def _thinking(request: ChatRequest, provider: str, capabilities: GeminiCapabilities) -> JsonObject:
    """Return `thinkingConfig`, of which a level and a budget exclude each other. What the caller's `extra` has comes first."""
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None or not (capabilities.levels or capabilities.budgets):
        return {}
    given = request.extra.get(_CONFIG)
    if isinstance(given, dict) and _THINKING in given:
        return {}
    made: dict[str, Any] = {}
    if effort in capabilities.levels:
        made["thinkingLevel"] = capabilities.levels[effort]
    elif effort in capabilities.budgets:
        made["thinkingBudget"] = capabilities.budgets[effort]
    else:
        raise _unsupported(f"the reasoning effort {effort[:20]!r}", provider)
    if effort != "none":
        made["includeThoughts"] = True
    return made


def _add_tools(body: dict[str, Any], request: ChatRequest, capabilities: GeminiCapabilities) -> None:
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
        case _ if capabilities.validates and all(tool.strict for tool in functions):
            config["mode"] = "VALIDATED"
        case ToolChoiceMode.AUTO:
            config["mode"] = "AUTO"
        case None:
            return
    body["toolConfig"] = {"functionCallingConfig": config}


def _function(tool: Tool) -> JsonObject:
    function: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parametersJsonSchema"] = accepted(tool.parameters)
    return function


def _response_format(response_format: ResponseFormat, provider: str) -> JsonObject:
    """Return the fields of `generationConfig` for a format. A native one is such fields itself, or plain text."""
    match response_format:
        case JsonObjectFormat():
            return _JSON
        case JsonSchemaFormat():
            return {**_JSON, "responseJsonSchema": accepted(response_format.schema)}
        case NativeFormat():
            kind = response_format.fields.get("type")
            if kind is None:
                return response_format.fields
            if kind != "text":
                raise _unsupported(f"the response format {str(kind)[:40]!r}", provider)
            return {}
