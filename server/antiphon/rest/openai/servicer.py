"""The OpenAI dialect: POST /api/v1/chat/completions and GET /api/v1/models, both also below /v1.

Its specification is the OpenAI API reference, and for errors the gateway's own document: 422 with a `detail` list. Unknown fields
of a request are passed on to the provider, and unknown fields of the provider's reply to the caller.

A session is a conversation of the caller. Its messages are stored, and a call that continues it need not repeat them.
"""

from __future__ import annotations

from functools import partial

import orjson
from google.api import httpbody_pb2

from antiphon.chat.catalog import Catalog
from antiphon.chat.service import ChatService
from antiphon.domain.call import Call, current
from antiphon.domain.reply import Reply
from antiphon.history.recorder import Record
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.errors import error_event
from antiphon.rest.openai.models import model_json
from antiphon.rest.openai.plain import PlainBody, read_plain
from antiphon.rest.openai.reply import completion
from antiphon.rest.openai.request import ChatCompletionBody, include_usage, request_from_body
from antiphon.rest.shared.answer import PreparedCall, answer
from antiphon.rest.shared.body import parse_in_turns
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import EVENT_STREAM, JSON, dumps
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc


class OpenAIServicer(openai_pb2_grpc.OpenAIServiceServicer):
    """Serves the dialect."""

    def __init__(
        self, chat: ChatService, catalog: Catalog, started: int, *, automatic_sessions: bool = False, sole: str = ""
    ) -> None:
        """Take `started`, the Unix time given as the creation time of models that have none of their own.

        `automatic_sessions`: a call that names no session starts one. `sole` is explained at `written_origin`.
        """
        self._chat = chat
        self._sole = sole
        self._automatic_sessions = automatic_sessions
        self._catalog = catalog
        self._started = started

    def CreateChatCompletion(self, request: openai_pb2.CreateChatCompletionRequest, context: Context) -> Pieces:
        """Answer with one JSON object, or with server-sent events."""
        call = current()
        return answer(self._chat, call, partial(self._prepare, call, request.body.data))

    async def _prepare(self, call: Call, data: bytes) -> PreparedCall:
        body = read_plain(data) or await parse_in_turns(data, ChatCompletionBody)
        stream = _accepts_only_events(call.accept) if body.stream is None else body.stream
        chat_request = body.to_request(stream=stream) if isinstance(body, PlainBody) else request_from_body(body, stream=stream)
        writer = ChunkWriter(include_usage=include_usage(body), sole=self._sole) if stream else self._completion_json
        record = self._record(call, body) if body.session_id or self._automatic_sessions else None
        return PreparedCall(chat_request, writer, error_event, record)

    async def ListModels(self, request: openai_pb2.ListModelsRequest, context: Context) -> Pieces:
        """Yield the models of the catalogue that the caller may use."""
        call = current()
        data = [model_json(entry, self._started) for entry in await self._catalog.models(call.caller, call.time_left)]
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps({"object": "list", "data": data}))

    async def GetModel(self, request: openai_pb2.GetModelRequest, context: Context) -> Pieces:
        """Yield one model. A model that the caller may not use is not found."""
        call = current()
        data = model_json(await self._catalog.model(request.model, call.caller, call.time_left), self._started)
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(data))

    def _completion_json(self, reply: Reply) -> bytes:
        return dumps(completion(reply, self._sole))

    def _record(self, call: Call, body: ChatCompletionBody | PlainBody) -> Record:
        """Return the session in which the turn is stored."""
        # The header is also set in an error response, because what came before the error is stored in this session.
        began = partial(call.headers.__setitem__, "x-session-id")
        return Record(call.caller.owner, conversation=body.session_id or None, resent=True, on_recorded=began)


def _accepts_only_events(accept: str) -> bool:
    """Return whether the header `accept` names `text/event-stream` and nothing else.

    Then a body without `stream`, or with null, asks for a stream. This is an addition to the API.
    """
    return all(kind.partition(";")[0].strip().lower() == EVENT_STREAM for kind in accept.split(","))
