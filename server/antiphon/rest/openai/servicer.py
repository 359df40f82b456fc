"""The OpenAI dialect: POST /api/v1/chat/completions and GET /api/v1/models, both also below /v1.

Its source is the OpenAI API reference, and the gateway's own document for errors: 422 as a `detail` list. What a caller sends that
is not known here goes to the provider as it is, and what a provider answers that is not known here goes to the caller.

A session is a conversation of the caller's own: what is said in it is stored, and a call that goes on with it need not repeat it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeAlias

import grpc
import orjson
from google.api import httpbody_pb2
from pydantic import BeforeValidator, Field, WrapValidator
from pydantic_core import PydanticCustomError

from antiphon import domain
from antiphon.chat.service import ChatService
from antiphon.domain.call import Call, current
from antiphon.domain.errors import (
    AntiphonError,
    ConversationNotFound,
    InvalidRequest,
    ModelNotFound,
    ProviderRejected,
    Reason,
    Violation,
    field_path,
)
from antiphon.domain.reply import Reply
from antiphon.history.recorder import Record
from antiphon.rest.openai.reply import ChunkWriter, completion
from antiphon.rest.shared import body as json_body
from antiphon.rest.shared.answer import Exchange, answer
from antiphon.rest.shared.body import Fields, get, invalid
from antiphon.rest.shared.content import MessageBody, inner_extra, known, message_of, tool_of
from antiphon.rest.shared.http import headers_of, sdk_status_of
from antiphon.rest.shared.json import EVENT_STREAM, JSON, dumps, event
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc
from antiphon.routing.router import ModelEntry, Router

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Pieces: TypeAlias = AsyncGenerator[httpbody_pb2.HttpBody, None]

_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

_NAMED_VIOLATIONS = 5
"""Fields at fault that `error.message` names; `detail` has all of them."""


class OpenAIServicer(openai_pb2_grpc.OpenAIServiceServicer):
    """Serves the dialect."""

    def __init__(self, chat: ChatService, router: Router, started: int, *, automatic_sessions: bool = False) -> None:
        """`started` is the Unix time that models are said to be created at: they have no date of their own.

        `automatic_sessions`: a call that names no session begins one.
        """
        self._chat = chat
        self._automatic_sessions = automatic_sessions
        self._router = router
        self._started = started

    def CreateChatCompletion(self, request: openai_pb2.CreateChatCompletionRequest, context: Context) -> Pieces:
        """One JSON object, or events."""
        call = current()
        return answer(self._chat, call, partial(self._exchange, call, request.body.data, context))

    async def _exchange(self, call: Call, data: bytes, context: Context) -> Exchange:
        body = await json_body.parse_in_turns(data, Body)
        stream = _accepts_events(context) if body.stream is None else body.stream
        asked = request_from_body(body, stream=bool(stream))
        form = ChunkWriter(include_usage=include_usage(body)) if stream else _whole
        return Exchange(asked, form, _late, self._record(call, body))

    async def ListModels(self, request: openai_pb2.ListModelsRequest, context: Context) -> Pieces:
        """Every model that is listed by name, and that the caller may use."""
        data = [self._model(entry) for entry in self._router.models() if current().caller.may_use(entry.name, entry.provider)]
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps({"object": "list", "data": data}))

    async def GetModel(self, request: openai_pb2.GetModelRequest, context: Context) -> Pieces:
        """One model; one that the caller may not use is not there."""
        data = self._model(self._router.model(request.model, current().caller))
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(data))

    def _record(self, call: Call, body: Body) -> Record | None:
        """The session. None: nothing is stored, and the database is not asked."""
        if not body.session_id and not self._automatic_sessions:
            return None
        # A header of the response, of an error too: what was said before it is stored there.
        began = partial(call.headers.__setitem__, "x-session-id")
        return Record(call.caller.owner, conversation=body.session_id or None, resent=True, began=began)

    def _model(self, entry: ModelEntry) -> dict[str, Any]:
        return {"id": entry.name, "object": "model", "created": self._started, "owned_by": entry.provider}


def include_usage(body: Body) -> bool:
    """Whether the caller of a stream asks for the tokens used."""
    return bool((body.stream_options or {}).get("include_usage"))


def _accepts_events(context: Context) -> bool:
    """An addition to the API: a body without `stream`, or with null, streams to a caller that accepts events and nothing else."""
    metadata = context.invocation_metadata() or ()
    accepted = ",".join(str(value) for key, value in metadata if key == "accept").split(",")
    return all(kind.partition(";")[0].strip().lower() == EVENT_STREAM for kind in accepted)


def _whole(reply: Reply) -> bytes:
    return dumps(completion(reply))


# Requests.


def _as_sent(value: Any, check: Callable[[Any], Any]) -> Any:
    checked = check(value)
    return value if type(value) is int else checked


Number: TypeAlias = Annotated[float, WrapValidator(_as_sent)]
"""A number; a whole one stays one, as there are hosts that ask for it."""


def _few(biases: Any) -> Any:
    """Before they are read: pydantic counts only what it has read."""
    if isinstance(biases, dict) and len(biases) > domain.MAX_ENTRIES:
        raise PydanticCustomError("too_long", f"must not have more than {domain.MAX_ENTRIES} entries")
    return biases


class Body(Fields):
    """The body of a chat completion, as it is documented; null is the same as not sent."""

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
    logit_bias: Annotated[dict[str, Number] | None, BeforeValidator(_few)] = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    user: str | None = None
    session_id: str | None = None


def parse(data: bytes) -> Body:
    """The body, checked. Raises `InvalidRequest` with every field at fault."""
    return json_body.parse(data, Body)


def request_from_body(body: Body, *, stream: bool) -> domain.ChatRequest:
    """The domain's request; what the domain has no form for is `extra` as it was sent. Raises `InvalidRequest`."""
    extra = dict(body.model_extra or {})
    for name in ("tools", "modalities", "logit_bias"):
        if getattr(body, name) in ([], {}):
            extra[name] = getattr(body, name)
    if body.stream is False:
        extra["stream"] = False
    if body.response_format == _TEXT:
        extra["response_format"] = _TEXT
    audio_output, audio_extra = _audio_output(body.audio)
    if audio_extra:
        extra["audio"] = audio_extra
    if options := {k: v for k, v in (body.stream_options or {}).items() if k != "include_usage"}:
        extra["stream_options"] = options
    return domain.ChatRequest(
        model=body.model or "",
        messages=tuple(message_of(message, ("messages", index)) for index, message in enumerate(body.messages)),
        stream=stream,
        sampling=domain.Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
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
        tools=tuple(tool_of(tool, ("tools", index)) for index, tool in enumerate(body.tools or ())),
        tool_choice=_tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_format(body.response_format),
        reasoning=domain.Reasoning(body.reasoning_effort) if body.reasoning_effort is not None else None,
        modalities=tuple(body.modalities or ()),
        audio_output=audio_output,
        end_user=body.user,
        extra=extra,
    )


def _tool_choice(choice: str | dict[str, Any] | None) -> domain.ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return domain.ToolChoice(domain.ToolChoiceMode(choice))
        case {"type": "function", "function": {"name": str(name)}} if isinstance(choice, dict):
            plain = choice == {"type": "function", "function": {"name": name}}
            return domain.ToolChoice(domain.ToolChoiceMode.TOOL, name, None if plain else choice)
        case "any":  # Mistral's other word for it
            return domain.ToolChoice(domain.ToolChoiceMode.REQUIRED)
        case dict() if isinstance(kind := choice.get("type"), str) and kind != "function":
            return domain.ToolChoice(domain.ToolChoiceMode.AUTO, native=choice)
        case _:
            raise invalid(Violation(("tool_choice",), "must be none, auto, required, or name a function"))


_TEXT: domain.JsonObject = {"type": "text"}
"""The form of a reply that no form was asked for."""

_SCHEMA = {"name": str, "schema": dict, "description": str, "strict": bool}


def _format(form: dict[str, Any] | None) -> domain.ResponseFormat | None:
    match form:
        case None:
            return None
        case {"type": "text"} if form == _TEXT:
            return None
        case {"type": "json_object"} if len(form) == 1:
            return domain.JsonObjectFormat()
        case {"type": "json_schema", "json_schema": {"name": str(name), "schema": dict(schema)} as body}:
            return domain.JsonSchemaFormat(
                name,
                schema,
                known(body, "description", str),
                known(body, "strict", bool),
                inner_extra(form, "json_schema", **_SCHEMA),
            )
        case {"type": "json_schema", "json_schema": {"name": str()} | {"schema": dict()}} | {
            "type": "json_schema",
            "schema": dict(),
        }:
            return domain.NativeFormat(form)  # Perplexity asks for no name, Together has the schema beside the type
        case {"type": str(kind)} if kind != "json_schema":
            return domain.NativeFormat(form)
        case _:
            raise invalid(Violation(("response_format",), "must have a type, and json_schema a name and a schema"))


def _audio_output(audio: dict[str, Any] | None) -> tuple[domain.AudioOutput | None, domain.JsonObject]:
    """How an audio reply sounds, and what else is told of it. A voice of the caller's own is an object: it goes as it is."""
    if audio is None:
        return None, domain.NOTHING
    form = get(audio, "format", str, ("audio",))
    if isinstance(audio.get("voice"), dict):
        return None, audio
    made = domain.AudioOutput(get(audio, "voice", str, ("audio",)), form)
    return made, {name: value for name, value in audio.items() if name not in ("voice", "format")}


# Errors.


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """The HTTP status, headers and body of an error before the first byte."""
    made = error_object(error)
    if _violations(error):
        detail = [{"loc": ["body", *v.path], "msg": v.message, "type": v.kind} for v in _violations(error)]
        return 422, headers_of(error), orjson.dumps({"detail": detail, "error": made})
    return sdk_status_of(error), headers_of(error), orjson.dumps({"detail": made["message"], "error": made})


def _late(error: AntiphonError) -> bytes:
    return event({"error": error_object(error)})


def error_object(error: AntiphonError) -> dict[str, Any]:
    """The `error` object that the SDKs read: they show its message, and nothing of what stands beside it."""
    status = sdk_status_of(error)
    kind = _ERROR_TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    message, param = error.message, None
    match error:
        case ModelNotFound():
            param = "model"
        case ConversationNotFound():
            param = "session_id"
        case ProviderRejected():
            message, param = error.explanation or message, error.param
        case InvalidRequest(violations=(first, *_) as violations):
            lines = [f"{field_path(v.path) or 'body'}: {v.message}" for v in violations[:_NAMED_VIOLATIONS]]
            message, param = "; ".join(lines), field_path(first.path) or None
    code = error.metadata.get("code") or error.reason.lower()
    return {"message": message, "type": kind, "param": param, "code": code}


def _violations(error: AntiphonError) -> tuple[Violation, ...]:
    """The fields at fault: at least one where the request is no good, and none of any other error."""
    if isinstance(error, InvalidRequest) and error.reason is Reason.INVALID_REQUEST:
        return error.violations or (Violation((), error.message),)
    return ()
