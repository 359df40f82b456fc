"""A chat completion of the OpenAI dialect, converted to a domain request.

The specification is the one that `antiphon.rest.openai.servicer` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, WrapValidator
from pydantic_core import PydanticCustomError

from antiphon import domain
from antiphon.domain.errors import Violation
from antiphon.rest.openai.plain import PlainBody
from antiphon.rest.shared.body import Fields, invalid, required_field
from antiphon.rest.shared.content import MessageBody, inner_extra, message_of, optional_field, tool_of


def _keep_integer(value: Any, check: Callable[[Any], Any]) -> Any:
    """Check a number, and return it; an integer is returned as one."""
    checked = check(value)
    return value if type(value) is int else checked


Number: TypeAlias = Annotated[float, WrapValidator(_keep_integer)]
"""A number. An integer stays an integer, because some hosts require one."""


def _limit_entries(biases: Any) -> Any:
    """Refuse too many entries before pydantic reads them: it counts only what it has read."""
    if isinstance(biases, dict) and len(biases) > domain.MAX_ENTRIES:
        raise PydanticCustomError("too_long", f"must not have more than {domain.MAX_ENTRIES} entries")
    return biases


class ChatCompletionBody(Fields):
    """The body of a chat completion, as documented; null is the same as not sent."""

    model: str | None = None
    messages: list[MessageBody] = Field(min_length=1)
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    logit_bias: Annotated[dict[str, Number] | None, BeforeValidator(_limit_entries)] = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    user: str | None = None
    session_id: str | None = None


def include_usage(body: ChatCompletionBody | PlainBody) -> bool:
    """Return whether the caller of a stream asks for the token usage."""
    return bool((body.stream_options or {}).get("include_usage"))


def request_from_body(body: ChatCompletionBody, *, stream: bool) -> domain.ChatRequest:
    """Return the domain request. Fields that the domain does not have are in `extra`, as sent. Raises `InvalidRequest`."""
    extra = dict(body.model_extra or {})
    top_k = extra.pop("top_k") if type(extra.get("top_k")) is int else None  # not of the API, but many hosts have it
    for name in ("tools", "modalities", "logit_bias"):
        if getattr(body, name) in ([], {}):
            extra[name] = getattr(body, name)
    if body.stream is False:
        extra["stream"] = False
    if body.response_format == _TEXT_FORMAT:
        extra["response_format"] = _TEXT_FORMAT
    audio_output = None
    if body.audio is not None:
        audio_output, audio_extra = _audio_output(body.audio)
        if audio_extra:
            extra["audio"] = audio_extra
    if body.stream_options and (options := {k: v for k, v in body.stream_options.items() if k != "include_usage"}):
        extra["stream_options"] = options
    return domain.ChatRequest(
        model=body.model or "",
        messages=tuple([message_of(message, ("messages", index)) for index, message in enumerate(body.messages)]),
        stream=stream,
        sampling=domain.Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=top_k,
            max_tokens=body.max_tokens,
            max_completion_tokens=body.max_completion_tokens,
            stop=tuple(body.stop) if isinstance(body.stop, list) else body.stop,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            seed=body.seed,
            choices=body.n,
            logprobs=body.logprobs,
            top_logprobs=body.top_logprobs,
            logit_bias=body.logit_bias,
        ),
        tools=tuple([tool_of(tool, ("tools", index)) for index, tool in enumerate(body.tools)]) if body.tools else (),
        tool_choice=None if body.tool_choice is None else _tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=None if body.response_format is None else _response_format(body.response_format),
        reasoning=domain.Reasoning(body.reasoning_effort) if body.reasoning_effort is not None else None,
        modalities=tuple(body.modalities or ()),
        audio_output=audio_output,
        end_user=body.user,
        extra=extra,
    )


def _tool_choice(choice: str | dict[str, Any]) -> domain.ToolChoice:
    match choice:
        case "auto" | "none" | "required":
            return domain.ToolChoice(domain.ToolChoiceMode(choice))
        case {"type": "function", "function": {"name": str(name)}} if isinstance(choice, dict):
            plain = choice == {"type": "function", "function": {"name": name}}
            return domain.ToolChoice(domain.ToolChoiceMode.TOOL, name, None if plain else choice)
        case "any":  # Mistral's word for required
            return domain.ToolChoice(domain.ToolChoiceMode.REQUIRED)
        case dict() if isinstance(kind := choice.get("type"), str) and kind != "function":
            return domain.ToolChoice(domain.ToolChoiceMode.AUTO, native=choice)
        case _:
            raise invalid(Violation(("tool_choice",), "must be none, auto, required, or name a function"))


_TEXT_FORMAT: domain.JsonObject = {"type": "text"}
"""The response format that is the default."""

_SCHEMA_FIELDS = {"name": str, "schema": dict, "description": str, "strict": bool}


def _response_format(form: dict[str, Any]) -> domain.ResponseFormat | None:
    match form:
        case {"type": "text"} if form == _TEXT_FORMAT:
            return None
        case {"type": "json_object"} if len(form) == 1:
            return domain.JsonObjectFormat()
        case {"type": "json_schema", "json_schema": {"name": str(name), "schema": dict(schema)} as body}:
            return domain.JsonSchemaFormat(
                name,
                schema,
                optional_field(body, "description", str),
                optional_field(body, "strict", bool),
                inner_extra(form, "json_schema", **_SCHEMA_FIELDS),
            )
        case {"type": "json_schema", "json_schema": {"name": str()} | {"schema": dict()}} | {
            "type": "json_schema",
            "schema": dict(),
        }:
            return domain.NativeFormat(form)  # Perplexity needs no name; Together has the schema beside the type
        case {"type": str(kind)} if kind != "json_schema":
            return domain.NativeFormat(form)
        case _:
            raise invalid(Violation(("response_format",), "must have a type, and json_schema a name and a schema"))


def _audio_output(audio: dict[str, Any]) -> tuple[domain.AudioOutput | None, domain.JsonObject]:
    """Return the voice and format of an audio reply, and the other fields of `audio`. Raises `InvalidRequest`.

    A custom voice is an object. Then the first result is None, and the second has all the fields as they were sent.
    """
    form = required_field(audio, "format", str, ("audio",))
    if isinstance(audio.get("voice"), dict):
        return None, audio
    output = domain.AudioOutput(required_field(audio, "voice", str, ("audio",)), form)
    return output, {name: value for name, value in audio.items() if name not in ("voice", "format")}
