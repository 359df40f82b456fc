"""The OpenAI dialect: POST /api/v1/chat/completions and GET /api/v1/models, both also below /v1.

Its source is the OpenAI API reference, and the gateway's own document for errors: 422 as a `detail` list. What a caller sends that
is not known here goes to the provider as it is, and what a provider answers that is not known here goes to the caller.

A session is a conversation of the caller's own: what is said in it is stored, and a call that goes on with it need not repeat it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from google.api import httpbody_pb2

from antiphon.chat.service import ChatService
from antiphon.domain.call import Call, current
from antiphon.domain.reply import Reply
from antiphon.history.recorder import Record
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.errors import late
from antiphon.rest.openai.reply import completion
from antiphon.rest.openai.request import Body, include_usage, request_from_body
from antiphon.rest.shared.answer import Exchange, answer
from antiphon.rest.shared.body import parse_in_turns
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import EVENT_STREAM, JSON, dumps
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc
from antiphon.routing.router import ModelEntry, Router


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
        body = await parse_in_turns(data, Body)
        stream = _accepts_events(context) if body.stream is None else body.stream
        asked = request_from_body(body, stream=bool(stream))
        form = ChunkWriter(include_usage=include_usage(body)) if stream else _whole
        return Exchange(asked, form, late, self._record(call, body))

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
        return Record(call.caller.owner, conversation=body.session_id or None, resent=True, on_recorded=began)

    def _model(self, entry: ModelEntry) -> dict[str, Any]:
        return {"id": entry.name, "object": "model", "created": self._started, "owned_by": entry.provider}


def _accepts_events(context: Context) -> bool:
    """An addition to the API: a body without `stream`, or with null, streams to a caller that accepts events and nothing else."""
    metadata = context.invocation_metadata() or ()
    accepted = ",".join(str(value) for key, value in metadata if key == "accept").split(",")
    return all(kind.partition(";")[0].strip().lower() == EVENT_STREAM for kind in accepted)


def _whole(reply: Reply) -> bytes:
    return dumps(completion(reply))
