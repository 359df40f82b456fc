"""Encodes a `ChatRequest` as a body of Cohere's chat API. No I/O.

https://docs.cohere.com/v2/reference/chat. The request's `extra` is merged at the same level; if both have a field, that of the
domain is sent. Options that the API does not have are mapped, dropped or refused (`_LACKS`); content that it cannot express is
`Unsupported`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from antiphon.domain.content import JsonObject, with_extra
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    Sampling,
    Tool,
    ToolChoiceMode,
)
from antiphon.providers.body import dumps
from antiphon.providers.chat_forms import is_no_chat_choice, with_known_format, without_foreign_tools
from antiphon.providers.codec.results import paired
from antiphon.providers.cohere.messages import CohereEncoder
from antiphon.providers.cohere.names import NAMES
from antiphon.providers.cohere.schema import NOT_ENFORCEABLE, is_enforceable, reduced
from antiphon.providers.cohere.thinking import thinking
from antiphon.providers.foreign import own_fields
from antiphon.providers.json_instruction import json_instruction
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import (
    AUDIO_OUTPUT,
    CHOICES,
    END_USER,
    FREQUENCY_PENALTY,
    LOGIT_BIAS,
    LOGPROBS,
    MODALITIES,
    ONE_CALL,
    ONE_TOOL,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    STRICT_FORMAT,
    STRICT_TOOLS,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Lacks,
    Support,
    adapted,
    stop_texts,
    within,
)

_FORMAT: Final = ("response_format",)
_JSON: Final[JsonObject] = {"type": "json_object"}

_SAMPLING: Final = (
    ("temperature", "temperature"),
    ("top_k", "k"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("seed", "seed"),
)
"""Names of fields: the domain's, and the API's."""

_MOST_STOPS: Final = 5
_MOST_K: Final = 500

_FOREIGN_TOOL: Final = "custom"
"""The type of tools that chat completions has and this API has not, which has only functions."""

_ONLY_TEXT: Final = Support("the models write text only")

_LACKS: Final[Lacks] = {
    CHOICES: Support("the API makes only one choice"),
    LOGPROBS: Support("the API returns no log probabilities of this form"),
    TOP_LOGPROBS: Support("the API returns no alternatives"),
    LOGIT_BIAS: Support("the API has no bias for tokens"),
    ONE_TOOL: Support("the API cannot name a tool, so that only this one is offered", to="tool_choice REQUIRED"),
    ONE_CALL: Support("the models may always call several tools"),
    STRICT_FORMAT: Support("every schema is followed strictly", is_implied=True),
    MODALITIES: _ONLY_TEXT,
    AUDIO_OUTPUT: _ONLY_TEXT,
    END_USER: Support("the API has no such field"),
    PARTICIPANTS: Support("messages have no names"),
}
"""What the API does not have: https://docs.cohere.com/v2/reference/chat and https://docs.cohere.com/docs/compatibility-api."""


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API does not have; None: nobody wants to know.

    Raises `Unsupported` for content that this API cannot express and for refused options, and `InvalidRequest` for data that is
    nested too deeply to be sent.
    """
    parameters = parameters or Parameters(provider)
    request = without_foreign_tools(with_known_format(request), parameters, is_tool=_is_own_tool, is_choice=is_no_chat_choice)
    request = adapted(request, _LACKS, parameters)
    messages = CohereEncoder(provider).encode(paired(request.messages))
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.stream:
        body["stream"] = True
    _add_sampling(body, request.sampling, parameters)
    _add_tools(body, request, parameters)
    told, form = _response_format(request, parameters)
    if told:
        body["messages"] = [*messages, {"role": "system", "content": told}]
    if form is not None:
        body["response_format"] = form
    if (thought := thinking(request, body.get("max_tokens"), parameters)) is not None:
        body["thinking"] = thought
    return dumps(with_extra(body, own_fields(request.extra, parameters, "cohere")))


def _add_sampling(body: dict[str, Any], sampling: Sampling, parameters: Parameters) -> None:
    body |= {theirs: value for ours, theirs in _SAMPLING if (value := getattr(sampling, ours)) is not None}
    top_p = within(sampling.top_p, TOP_P, 0.01, 0.99, parameters)
    if top_p is not None:
        body["p"] = top_p
    for option in (PRESENCE_PENALTY, FREQUENCY_PENALTY):  # others have them from -2 to 2
        penalty = within(body.pop(option.path[-1], None), option, 0, 1, parameters)
        if penalty is not None:
            body[option.path[-1]] = penalty
    top_k = within(body.pop("k", None), TOP_K, 0, _MOST_K, parameters)
    if top_k is not None:
        body["k"] = top_k
    limit = sampling.max_tokens if sampling.max_completion_tokens is None else sampling.max_completion_tokens
    if limit is not None:
        body["max_tokens"] = limit
    if stops := stop_texts(sampling, parameters, _MOST_STOPS):
        body["stop_sequences"] = stops


def _is_own_tool(form: JsonObject) -> bool:
    return form.get("type") != _FOREIGN_TOOL


def _add_tools(body: dict[str, Any], request: ChatRequest, parameters: Parameters) -> None:
    """Add the tools, and whether one must be called. The API cannot name that one, so it alone is offered."""
    tools, choice = request.tools, request.tool_choice
    if choice is not None and choice.native is None and choice.mode is ToolChoiceMode.TOOL:
        tools = tuple(tool for tool in tools if isinstance(tool, NativeTool) or tool.name == choice.name)
    if tools:
        is_strict = _is_strict(tools, parameters)
        body["tools"] = [_tool(tool, is_strict=is_strict) for tool in tools]
        if is_strict:
            body["strict_tools"] = True
    if choice is None or not tools:
        return
    if choice.native is not None:
        body["tool_choice"] = choice.native
    elif choice.mode is not ToolChoiceMode.AUTO:  # which has no word
        body["tool_choice"] = "NONE" if choice.mode is ToolChoiceMode.NONE else "REQUIRED"


def _is_strict(tools: Iterable[Tool | NativeTool], parameters: Parameters) -> bool:
    """Return whether the schemas of the tools are to be followed strictly. The API has that for all of them together."""
    functions = [tool for tool in tools if isinstance(tool, Tool)]
    strict = [bool(tool.strict) for tool in functions]
    if any(strict) and not all(is_enforceable(tool.parameters or {}) for tool in functions):
        parameters.dropped(STRICT_TOOLS.path, NOT_ENFORCEABLE)
        return False
    return any(strict) and (
        all(strict) or parameters.mapped(STRICT_TOOLS.path, "strict_tools", "the API has it for all tools together")
    )


def _tool(tool: Tool | NativeTool, *, is_strict: bool) -> JsonObject:
    if isinstance(tool, NativeTool):
        return tool.fields
    function: dict[str, Any] = {"name": NAMES.sent(tool.name)}
    if tool.description is not None:
        function["description"] = tool.description
    schema = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    function["parameters"] = reduced(schema) if is_strict else schema
    return {"type": "function", "function": function}


def _response_format(request: ChatRequest, parameters: Parameters) -> tuple[str, JsonObject | None]:
    """Return what the model is told about the format, empty if nothing, and the format that is sent.

    The API has no format beside tools, and enforces only some schemas. The model is told of the others.
    """
    form = request.response_format
    if isinstance(form, JsonObjectFormat | JsonSchemaFormat) and request.tools:
        return (json_instruction(form) if parameters.mapped(_FORMAT, "system", "the API has no format beside tools") else ""), None
    match form:
        case JsonObjectFormat():
            return "", _JSON
        case JsonSchemaFormat() if not is_enforceable(form.schema):
            return (json_instruction(form) if parameters.mapped(_FORMAT, "system", NOT_ENFORCEABLE) else ""), _JSON
        case JsonSchemaFormat():
            schema = reduced(form.schema)
            return "", {**_JSON, "json_schema": schema}
        case NativeFormat():
            return "", form.fields
        case None:
            return "", None
