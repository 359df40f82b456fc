"""What a protocol, a host or a model lacks of the options of a request, as data, and its application to a request. No I/O.

The encoders, the table in docs/reference/providers.md and its test use the same data. An option without a row is supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import Block, Image, Message, ToolResult
from antiphon.domain.request import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    Sampling,
    Tool,
    ToolChoiceMode,
)
from antiphon.providers.parameters import Parameters


class Option(Struct, frozen=True):
    """One option of a request."""

    path: tuple[str, ...]
    """Its path in `ChatRequest`; a list index is left out, as the option counts for every entry."""
    title: str
    """What it is, for the documentation."""
    is_asked: Callable[[ChatRequest], bool]
    """Returns whether a request sets it to anything but what every API does without it."""
    without: Callable[[ChatRequest], ChatRequest]
    """Returns a request without it."""
    is_set: Callable[[ChatRequest], bool] | None = None
    """Returns whether a request sets it to any value; None: as `is_asked`."""


class Support(Struct, frozen=True):
    """How an API deals with an option that it does not have as such."""

    reason: str
    """Why, in a sentence without a full stop. ASCII."""
    to: str = ""
    """The nearest equivalent, which is sent instead. Empty: there is none, so the option is dropped."""
    is_implied: bool = False
    """The API always does what the option asks for, so that nothing is sent and there is nothing to warn of."""


Lacks: TypeAlias = Mapping[Option, Support]
"""The options that an API, a host or a model does not have, in the order in which warnings list them."""


def _of_sampling(field: str, title: str, *neutral: object) -> Option:
    """Return the option of one field of `Sampling`. `neutral` are the values that change nothing where the field is missing."""

    def is_asked(request: ChatRequest) -> bool:
        value = getattr(request.sampling, field)
        return value is not None and value not in neutral

    def without(request: ChatRequest) -> ChatRequest:
        return replace(request, sampling=replace(request.sampling, **{field: None}))

    return Option(("sampling", field), title, is_asked, without, lambda request: getattr(request.sampling, field) is not None)


def _of_choice(mode: ToolChoiceMode, title: str) -> Option:
    """Return the option of one mode of `tool_choice`, which only matters if there are tools."""

    def is_asked(request: ChatRequest) -> bool:
        choice = request.tool_choice
        return choice is not None and choice.native is None and choice.mode is mode and bool(request.tools)

    return Option(("tool_choice",), title, is_asked, lambda request: replace(request, tool_choice=None))


def _of_format(kind: type, title: str) -> Option:
    """Return the option of one kind of `response_format`."""
    return Option(
        ("response_format",),
        title,
        lambda request: isinstance(request.response_format, kind),
        lambda request: replace(request, response_format=None),
    )


def _of_field(name: str, title: str, is_asked: Callable[[Any], bool], empty: object = None) -> Option:
    """Return the option of one field of `ChatRequest`. `is_asked` gets its value, `empty` is the value of a request without it."""
    return Option(
        (name,),
        title,
        lambda request: is_asked(getattr(request, name)),
        lambda request: replace(request, **{name: empty}),
        lambda request: getattr(request, name) != empty,
    )


def _is_strict_tool(request: ChatRequest) -> bool:
    return any(isinstance(tool, Tool) and bool(tool.strict) for tool in request.tools)


def _without_strict_tools(request: ChatRequest) -> ChatRequest:
    return replace(request, tools=tuple(replace(tool, strict=None) if isinstance(tool, Tool) else tool for tool in request.tools))


def _is_strict_format(request: ChatRequest) -> bool:
    return isinstance(request.response_format, JsonSchemaFormat) and bool(request.response_format.strict)


def _without_strict_format(request: ChatRequest) -> ChatRequest:
    form = request.response_format
    return replace(request, response_format=replace(form, strict=None)) if isinstance(form, JsonSchemaFormat) else request


def _has_name(message: Message) -> bool:
    """Return whether a message names its author. The result of a tool has the name of the tool."""
    return message.name is not None and not any(isinstance(block, ToolResult) for block in message.blocks)


def _without_names(request: ChatRequest) -> ChatRequest:
    messages = (replace(message, name=None) if _has_name(message) else message for message in request.messages)
    return replace(request, messages=tuple(messages))


def _has_detail(block: Block) -> bool:
    """Return whether a picture has a resolution that it is to be read at."""
    return isinstance(block, Image) and block.detail not in (None, "auto")


def _without_detail(message: Message) -> Message:
    blocks = (replace(block, detail=None) if isinstance(block, Image) and _has_detail(block) else block for block in message.blocks)
    return replace(message, blocks=tuple(blocks)) if any(map(_has_detail, message.blocks)) else message


_PLAIN: Final = NativeFormat({"type": "text"})
"""The format that every API has without being asked."""

TEMPERATURE: Final = _of_sampling("temperature", "temperature", 1)
TOP_P: Final = _of_sampling("top_p", "top_p", 1)
TOP_K: Final = _of_sampling("top_k", "top_k")
MAX_TOKENS: Final = _of_sampling("max_tokens", "a limit of the output (`max_tokens`)")
MAX_COMPLETION_TOKENS: Final = _of_sampling("max_completion_tokens", "the same as `max_completion_tokens`")
STOP: Final = _of_sampling("stop", "stop sequences", (), "")
PRESENCE_PENALTY: Final = _of_sampling("presence_penalty", "presence_penalty", 0)
FREQUENCY_PENALTY: Final = _of_sampling("frequency_penalty", "frequency_penalty", 0)
SEED: Final = _of_sampling("seed", "seed")
CHOICES: Final = _of_sampling("choices", "several choices (`n`)", 1)
LOGPROBS: Final = _of_sampling("logprobs", "log probabilities", False)  # noqa: FBT003  # a value of the field
TOP_LOGPROBS: Final = _of_sampling("top_logprobs", "alternatives with log probabilities", 0)
LOGIT_BIAS: Final = _of_sampling("logit_bias", "logit_bias", {})
STRICT_TOOLS: Final = Option(("tools", "strict"), "strict arguments of tools", _is_strict_tool, _without_strict_tools)
NO_TOOL: Final = _of_choice(ToolChoiceMode.NONE, "no tool may be called")
ANY_TOOL: Final = _of_choice(ToolChoiceMode.REQUIRED, "some tool must be called")
ONE_TOOL: Final = _of_choice(ToolChoiceMode.TOOL, "a named tool must be called")
ONE_CALL: Final = Option(
    ("parallel_tool_calls",),
    "one tool call at a time",
    lambda request: request.parallel_tool_calls is False and bool(request.tools),
    lambda request: replace(request, parallel_tool_calls=None),
)
JSON_OBJECT: Final = _of_format(JsonObjectFormat, "a JSON object without a schema")
JSON_SCHEMA: Final = _of_format(JsonSchemaFormat, "JSON by a schema")
STRICT_FORMAT: Final = Option(
    ("response_format", "strict"), "JSON that follows the schema strictly", _is_strict_format, _without_strict_format
)
NATIVE_FORMAT: Final = Option(
    ("response_format",),
    "a format that only some APIs know, as it is",
    lambda request: isinstance(request.response_format, NativeFormat) and request.response_format != _PLAIN,
    lambda request: replace(request, response_format=None),
)
EFFORT: Final = Option(
    ("reasoning", "effort"),
    "reasoning effort",
    lambda request: request.reasoning is not None and request.reasoning.effort is not None,
    lambda request: replace(request, reasoning=None),
)
MODALITIES: Final = _of_field("modalities", "output other than text", lambda kinds: any(kind != "text" for kind in kinds), ())
AUDIO_OUTPUT: Final = _of_field("audio_output", "a voice for recordings", lambda audio: audio is not None)
END_USER: Final = _of_field("end_user", "an id of the end user", lambda user: user is not None)
PARTICIPANTS: Final = Option(
    ("messages", "name"),
    "names of participants",
    lambda request: any(map(_has_name, request.messages)),
    _without_names,
)

IMAGE_DETAIL: Final = Option(
    ("messages", "detail"),
    "the resolution of pictures (`detail`)",
    lambda request: any(_has_detail(block) for message in request.messages for block in message.blocks),
    lambda request: replace(request, messages=tuple(map(_without_detail, request.messages))),
)

OPTIONS: Final = (
    TEMPERATURE,
    TOP_P,
    TOP_K,
    MAX_TOKENS,
    MAX_COMPLETION_TOKENS,
    STOP,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    SEED,
    CHOICES,
    LOGPROBS,
    TOP_LOGPROBS,
    LOGIT_BIAS,
    STRICT_TOOLS,
    NO_TOOL,
    ANY_TOOL,
    ONE_TOOL,
    ONE_CALL,
    JSON_OBJECT,
    JSON_SCHEMA,
    STRICT_FORMAT,
    NATIVE_FORMAT,
    EFFORT,
    MODALITIES,
    AUDIO_OUTPUT,
    END_USER,
    PARTICIPANTS,
    IMAGE_DETAIL,
)
"""All options that some API lacks, in the order of the documentation."""


def within(value: float | None, option: Option, least: float, most: float, parameters: Parameters) -> float | None:
    """Return a value as the nearest one that the API accepts; None if there is none, or the policy is to drop it.

    Raises `Unsupported` if the policy is to refuse.
    """
    if value is None or least <= value <= most:
        return value
    nearest = max(least, min(most, value))
    is_mapped = parameters.mapped(option.path, f"{option.path[-1]} {nearest:g}", f"the API has it from {least:g} to {most:g}")
    return nearest if is_mapped else None


def output_limit(sampling: Sampling, parameters: Parameters) -> int | None:
    """Return the limit of the output for an API that has none below 1; None if there is none, or the policy is to drop it.

    Raises `Unsupported` if the policy is to refuse.
    """
    option = MAX_TOKENS if sampling.max_completion_tokens is None else MAX_COMPLETION_TOKENS
    limit: int | None = getattr(sampling, option.path[-1])
    if limit != 0:
        return limit
    return 1 if parameters.mapped(option.path, f"{option.path[-1]} 1", "the API has no limit below 1") else None


def stop_texts(sampling: Sampling, parameters: Parameters, most: int | None = None) -> list[str]:
    """Return the stop sequences, without empty ones, which every API refuses. `most`: as many as the API accepts.

    Raises `Unsupported` if there are more, and the policy is to refuse.
    """
    wanted = (sampling.stop,) if isinstance(sampling.stop, str) else sampling.stop or ()
    kept = [one for one in wanted if one]
    if most is not None and len(kept) > most:
        parameters.dropped(STOP.path, f"the API has {most} stop sequences at most, so that the others are left out")
    return kept[:most]


def adapted(request: ChatRequest, lacks: Lacks, parameters: Parameters) -> ChatRequest:
    """Return the request with only those options that the API has, or that are mapped. What changes the reply is reported.

    Raises `Unsupported` if the policy is to refuse.
    """
    for option, support in lacks.items():
        if support.is_implied or not (option.is_set or option.is_asked)(request):
            continue
        if option.is_asked(request):
            if support.to and parameters.mapped(option.path, support.to, support.reason):
                continue
            if not support.to:
                parameters.dropped(option.path, support.reason)
        elif support.to:
            continue
        request = option.without(request)
    return request
