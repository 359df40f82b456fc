"""The OpenAI dialect: POST /api/v1/chat/completions and GET /api/v1/models.

Its source is the OpenAI API reference, and the gateway's own document for errors: 422 as a `detail` list. What a caller sends that
is not known here goes to the provider as it is, and what a provider answers that is not known here goes to the caller.

A session is a conversation of the caller's own: what is said in it is stored, and a call that goes on with it need not repeat it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, assert_never

import grpc
import orjson
from google.api import httpbody_pb2
from pydantic import Field

from antiphon import headers
from antiphon import messages as m
from antiphon.auth.caller import caller
from antiphon.chat import ChatService
from antiphon.deadline import time_left
from antiphon.errors import AntiphonError, ConversationNotFound, InvalidRequest, ModelNotFound, Reason, Violation, told
from antiphon.history.recorder import Record
from antiphon.reply import Reply, ReplyChoice, collect
from antiphon.rest import body as json_body
from antiphon.rest.body import Fields, get, invalid
from antiphon.rest.content import MessageBody, message_of, tool_of
from antiphon.rest.http import headers_of, status_of
from antiphon.rest.json import DONE, EVENT_STREAM, JSON, dumps
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc
from antiphon.routing import ModelEntry, Router

_ERROR_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


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

    async def CreateChatCompletion(
        self, request: openai_pb2.CreateChatCompletionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        """One JSON object, or events."""
        body = parse(request.body.data)
        stream = body.stream if "stream" in body.model_fields_set else _accepts_events(context)
        asked = request_from_body(body, stream=bool(stream))
        timeout = time_left(context.time_remaining())
        async with aclosing(self._chat.stream(asked, timeout=timeout, record=self._record(body))) as batches:
            if not asked.stream:
                whole = completion(await collect(batches))
                yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(whole))
                return
            options = body.stream_options or {}
            writer = ChunkWriter(include_usage=bool(options.get("include_usage")))
            content_type = EVENT_STREAM
            try:
                async for batch in batches:
                    if data := writer.write(batch):
                        yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
                        content_type = ""
                end = writer.end() + DONE
            except Exception as error:
                if not content_type:
                    event = {"error": error_object(told(error))}
                    yield httpbody_pb2.HttpBody(data=b"data: " + orjson.dumps(event) + b"\n\n")
                raise
            yield httpbody_pb2.HttpBody(content_type=content_type, data=end)

    async def ListModels(
        self, request: openai_pb2.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        """Every model that is listed by name, and that the caller may use."""
        data = [self._model(entry) for entry in self._router.models() if caller().may_use(entry.name, entry.provider)]
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps({"object": "list", "data": data}))

    async def GetModel(
        self, request: openai_pb2.GetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        """One model; one that the caller may not use is not there."""
        data = self._model(self._router.model(request.model, caller()))
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(data))

    def _record(self, body: Body) -> Record | None:
        """The session. None: nothing is stored, and the database is not asked."""
        if not body.session_id and not self._automatic_sessions:
            return None
        return Record(caller().owner, conversation=body.session_id or None, resent=True, began=_tell_session)

    def _model(self, entry: ModelEntry) -> dict[str, Any]:
        return {"id": entry.name, "object": "model", "created": self._started, "owned_by": entry.provider}


def _accepts_events(context: grpc.aio.ServicerContext[Any, Any]) -> bool:
    """An addition to the API: a body without `stream` streams to a caller that accepts only events."""
    metadata = context.invocation_metadata() or ()
    return any(key == "accept" and EVENT_STREAM in str(value) for key, value in metadata)


def _tell_session(session_id: str) -> None:
    """A header of the response, of an error too: what was said before it is stored there."""
    headers.add("x-session-id", session_id)


# Requests.


class Body(Fields):
    """The body of a chat completion, as it is documented; null is the same as not sent."""

    model: str | None = None
    messages: list[MessageBody] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    logit_bias: dict[str, float] | None = None
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


def request_from_body(body: Body, *, stream: bool) -> m.ChatRequest:
    """The domain's request. Raises `InvalidRequest`."""
    extra = dict(body.model_extra or {})
    if options := {k: v for k, v in (body.stream_options or {}).items() if k != "include_usage"}:
        extra["stream_options"] = options
    return m.ChatRequest(
        model=body.model or "",
        messages=tuple(message_of(message, ("messages", index)) for index, message in enumerate(body.messages)),
        stream=stream,
        sampling=m.Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            max_tokens=body.max_tokens,
            max_completion_tokens=body.max_completion_tokens,
            stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop) if body.stop is not None else None,
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
        reasoning=m.Reasoning(body.reasoning_effort) if body.reasoning_effort else None,
        modalities=tuple(body.modalities or ()),
        audio_output=_audio_output(body.audio),
        end_user=body.user,
        extra=extra,
    )


def _tool_choice(choice: str | dict[str, Any] | None) -> m.ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return m.ToolChoice(m.ToolChoiceMode(choice))
        case {"type": "function", "function": {"name": str(name)}}:
            return m.ToolChoice(m.ToolChoiceMode.TOOL, name)
        case dict() if isinstance(kind := choice.get("type"), str) and kind != "function":
            return m.ToolChoice(m.ToolChoiceMode.AUTO, native=choice)
        case _:
            raise invalid(Violation(("tool_choice",), "must be none, auto, required, or name a function"))


def _format(form: dict[str, Any] | None) -> m.ResponseFormat | None:
    match form:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return m.JsonObjectFormat()
        case {"type": "json_schema", "json_schema": {"name": str(name), "schema": dict(schema)} as body}:
            return m.JsonSchemaFormat(name, schema, body.get("description"), body.get("strict"))
        case {"type": str(kind)} if kind != "json_schema":
            return m.NativeFormat(form)
        case _:
            raise invalid(Violation(("response_format",), "must have a type, and json_schema a name and a schema"))


def _audio_output(audio: dict[str, Any] | None) -> m.AudioOutput | None:
    if audio is None:
        return None
    return m.AudioOutput(get(audio, "voice", str, ("audio",)), get(audio, "format", str, ("audio",)))


# Replies.


def completion(reply: Reply) -> dict[str, Any]:
    """The `chat.completion` object of a whole reply."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    whole = {
        "id": started.id,
        "object": "chat.completion",
        "created": started.created,
        "model": started.model,
        "choices": [_choice(choice) for choice in reply.choices],
        "usage": _usage(reply.usage) if reply.usage else None,
        **started.extra,
    }
    return whole | {"session_id": started.conversation_id} if started.conversation_id else whole


def _choice(choice: ReplyChoice) -> dict[str, Any]:
    other = choice.tool_calls or choice.refusal or choice.audio
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(choice.text) if choice.text or not other else None,
        "refusal": "".join(choice.refusal) if choice.refusal else None,
    }
    if choice.thinking:
        message["reasoning_content"] = "".join(choice.thinking)
    if choice.tool_calls:
        calls = (choice.tool_calls[index].value() for index in sorted(choice.tool_calls))
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    if choice.audio:
        audio = choice.audio
        message["audio"] = {
            "id": audio.id,
            "data": "".join(audio.data),
            "expires_at": audio.expires,
            "transcript": "".join(audio.transcript),
        }
    _add_extra(message, choice.extra)
    logprobs = {"content": choice.logprobs, "refusal": None} if choice.logprobs else None
    return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason(choice)}


def _add_extra(message: dict[str, Any], extra: m.JsonObject) -> None:
    """What only the provider knows: of a tool call it joins what is known of it, of the content it comes after the text."""
    for name, value in extra.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for fields in value:
                index = fields.get("index", len(calls))
                own = {key: field for key, field in fields.items() if key != "index"}
                if index < len(calls):
                    calls[index] |= own
                else:
                    calls.append(own)
        elif name == "content" and message["content"]:
            message["content"] = [{"type": "text", "text": message["content"]}, *value]
        else:
            message[name] = value


def _usage(usage: m.Usage) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cached_prompt_tokens, "audio_tokens": usage.audio_prompt_tokens}
    completion = {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": usage.audio_completion_tokens}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **({"estimated": True} if usage.estimated else {}),
        **usage.extra,
        "prompt_tokens_details": prompt | usage.extra.get("prompt_tokens_details", {}),
        "completion_tokens_details": completion | usage.extra.get("completion_tokens_details", {}),
    }


def finish_reason(ended: m.Finished | ReplyChoice) -> str:
    """Why a choice ended, in the API's words or the provider's own."""
    return ended.provider_reason if ended.reason is m.FinishReason.OTHER else ended.reason.value


class ChunkWriter:
    """Writes the `chat.completion.chunk` events of one stream."""

    def __init__(self, *, include_usage: bool) -> None:
        """`include_usage`: the caller asked for the tokens used, which then come in a last chunk of their own."""
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._head = b""
        self._usage: m.Usage | None = None
        self._spoken: set[int] = set()

    def write(self, batch: m.Batch) -> bytes:
        """The events of a batch. May be empty: not every event has a chunk."""
        pieces: list[bytes] = []
        for event in batch:
            match event:
                case m.TextDelta(choice, text, ()):
                    if choice not in self._spoken:
                        pieces.append(self._first(choice, b'""'))
                    # The commonest by far: written without building a dictionary.
                    pieces.append(
                        b'%b%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]%b'
                        % (self._head, choice, dumps(text), self._tail)
                    )
                case m.TextDelta():
                    logprobs = {"content": event.logprobs, "refusal": None}
                    pieces.append(self._delta(event.choice, {"content": event.text}, logprobs))
                case m.ThinkingDelta():
                    if event.text:
                        pieces.append(self._delta(event.choice, {"reasoning_content": event.text}))
                case m.ToolCallDelta():
                    pieces.append(self._delta(event.choice, {"tool_calls": [tool_call_delta(event)]}))
                case m.RefusalDelta():
                    pieces.append(self._delta(event.choice, {"refusal": event.text}))
                case m.AudioDelta():
                    audio = {"id": event.id, "data": event.data, "transcript": event.transcript, "expires_at": event.expires}
                    pieces.append(self._delta(event.choice, {"audio": {k: v for k, v in audio.items() if v}}))
                case m.ExtraDelta():
                    pieces.append(self._delta(event.choice, dict(event.fields)))
                case m.Finished():
                    if event.choice not in self._spoken:
                        pieces.append(self._first(event.choice, b'""'))
                    pieces.append(self._chunk(event.choice, b"{}", b"null", dumps(finish_reason(event))))
                case m.Usage():
                    self._usage = event
                case m.Metrics():
                    pass
                case m.Started():
                    self._head = _head(event)
                case _:
                    assert_never(event)
        return b"".join(pieces)

    def end(self) -> bytes:
        """What comes after the last batch: the tokens used, if the caller asked and the provider told."""
        if not self._include_usage or self._usage is None:
            return b""
        return b'%b],"usage":%b}\n\n' % (self._head.removesuffix(b'{"index":'), dumps(_usage(self._usage)))

    def _first(self, choice: int, content: bytes) -> bytes:
        self._spoken.add(choice)
        return self._chunk(choice, b'{"role":"assistant","content":%b,"refusal":null}' % content, b"null", b"null")

    def _delta(self, choice: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> bytes:
        first = b"" if choice in self._spoken else self._first(choice, b'""' if "content" in delta else b"null")
        return first + self._chunk(choice, dumps(delta), dumps(logprobs), b"null")

    def _chunk(self, choice: int, delta: bytes, logprobs: bytes, reason: bytes) -> bytes:
        return b'%b%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head,
            choice,
            delta,
            logprobs,
            reason,
            self._tail,
        )


def _head(started: m.Started) -> bytes:
    """A chunk up to the number of its choice."""
    fields = {
        "id": started.id,
        "object": "chat.completion.chunk",
        "created": started.created,
        "model": started.model,
        **started.extra,
    }
    return b"data: " + dumps(fields)[:-1] + b',"choices":[{"index":'


def tool_call_delta(delta: m.ToolCallDelta) -> dict[str, Any]:
    """A piece of a tool call, as it stands in a chunk."""
    function: dict[str, str] = {"arguments": delta.arguments}
    if delta.name:
        function = {"name": delta.name, **function}
    call: dict[str, Any] = {"index": delta.index, "function": function}
    if delta.id:
        call = {"index": delta.index, "id": delta.id, "type": "function", "function": function}
    return call


# Errors.


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """The HTTP status, headers and body of an error before the first byte."""
    told_in_headers = headers_of(error)
    body: dict[str, Any]
    match error:
        case InvalidRequest(reason=Reason.INVALID_REQUEST):
            status = 422
            violations = error.violations or (Violation((), error.message),)
            body = {"detail": [{"loc": ["body", *v.path], "msg": v.message, "type": v.kind} for v in violations]}
        case _ if error.reason is Reason.UNAUTHENTICATED:
            status = 401
            body = {"detail": error.message}
        case _:
            status = status_of(error)
            body = {"detail": error.message, "error": error_object(error)}
    return status, told_in_headers, orjson.dumps(body)


def error_object(error: AntiphonError) -> dict[str, Any]:
    """The `error` object that the SDKs read."""
    status = status_of(error)
    kind = _ERROR_TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    param = "model" if isinstance(error, ModelNotFound) else "session_id" if isinstance(error, ConversationNotFound) else None
    code = error.metadata.get("code") or error.reason.lower()
    return {"message": error.message, "type": kind, "param": param, "code": code}
