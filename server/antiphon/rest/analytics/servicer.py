"""The analytics dialect: POST /api/v1/ai/chat.

Its specification is the gateway's own document. Messages, and the other fields of a body, are as in the OpenAI dialect, and so are
the events of a stream, which the document leaves open. Unknown fields are accepted and ignored.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import orjson
from msgspec.structs import replace

from antiphon import domain
from antiphon.chat.client_context import Contexts
from antiphon.chat.service import ChatService
from antiphon.domain.call import Call, current
from antiphon.domain.errors import DeadlineExceeded
from antiphon.domain.reply import Reply
from antiphon.rest.analytics.errors import error_event
from antiphon.rest.openai import chunks
from antiphon.rest.openai import reply as openai_reply
from antiphon.rest.openai import request as openai
from antiphon.rest.openai.delta import OpenBlock
from antiphon.rest.shared.answer import PreparedCall, answer
from antiphon.rest.shared.body import message_paths, parse_in_turns
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.reply_text import ReplyTextStream, reply_text
from antiphon.rest.v1 import analytics_pb2, analytics_pb2_grpc


class AnalyticsChatBody(openai.ChatCompletionBody):
    """The body: the four fields of the document, and those of a chat completion."""

    client_id: str | None = None


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """Serves the dialect."""

    def __init__(self, chat: ChatService, contexts: Contexts) -> None:
        self._chat = chat
        self._contexts = contexts

    def CreateAnalyticsChat(self, request: analytics_pb2.CreateAnalyticsChatRequest, context: Context) -> Pieces:
        """Answer a chat with one JSON object, or with server-sent events."""
        call = current()
        return answer(self._chat, call, partial(self._prepare, call, request.body.data))

    async def _prepare(self, call: Call, data: bytes) -> PreparedCall:
        body = await parse_in_turns(data, AnalyticsChatBody)
        chat_request = await self._with_client_context(request_from_body(body), body.client_id, call.time_left)
        body_path = message_paths("messages", len(chat_request.messages) - len(body.messages))
        writer = AnalyticsChunkWriter(include_usage=openai.include_usage(body)) if chat_request.stream else _reply_json
        return PreparedCall(chat_request, writer, error_event, body_path=body_path)

    async def _with_client_context(
        self, chat_request: domain.ChatRequest, client_id: str | None, seconds: float | None
    ) -> domain.ChatRequest:
        """Return the request with the client's context, if it has one, as a system message at the beginning.

        `seconds` is the time that may be spent on it. Raises `ContextUnavailable`, `DeadlineExceeded`.
        """
        if not client_id:
            return chat_request
        try:
            async with asyncio.timeout(seconds):
                text = await self._contexts.of(client_id)
        except TimeoutError:
            raise DeadlineExceeded from None
        if not text:
            return chat_request
        return replace(
            chat_request, messages=(domain.Message(domain.Role.SYSTEM, (domain.Text(text),)), *chat_request.messages), trusted=1
        )


def request_from_body(body: AnalyticsChatBody) -> domain.ChatRequest:
    """Return the domain request, for a single choice. Raises `InvalidRequest`."""
    chat_request = openai.request_from_body(body, stream=bool(body.stream))
    return replace(chat_request, sampling=replace(chat_request.sampling, choices=None), extra=domain.NOTHING, known_fields=True)


def reply_object(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of a whole reply. As in a chat completion, output that is not text is beside the content.

    Refusals, and the transcript of a reply of audio alone, are in the content as well: the document has no other field for them.
    """
    completion = openai_reply.completion(reply)
    message = completion["choices"][0]["message"]
    content = message["content"] if isinstance(message["content"], list) else reply_text(reply.choices[0])
    usage = completion["usage"]
    beside = {name: message[name] for name in ("refusal", "tool_calls", "function_call", "audio") if message.get(name)}
    called = beside.keys() & {"tool_calls", "function_call"}
    return {
        "success": True,
        "data": {
            "message": {"role": message["role"], "content": content or (None if called else ""), **beside},
            "usage": {
                name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens", "estimated") if name in usage
            },
        },
    }


def _reply_json(reply: Reply) -> bytes:
    return orjson.dumps(reply_object(reply))


class AnalyticsChunkWriter(chunks.ChunkWriter):
    """Writes the events of the OpenAI dialect, with refusals and transcripts in the content as well, as in a whole reply."""

    def __init__(self, *, include_usage: bool) -> None:
        super().__init__(include_usage=include_usage)
        self._text_stream = ReplyTextStream()

    def _fields_of(self, event: domain.Event) -> domain.JsonObject | None:
        """Return the fields of an event in a delta; None if it has no chunk."""
        fields = super()._fields_of(event)
        text = self._text_stream.text(event)
        return {"content": text, **(fields or {})} if text and not isinstance(event, domain.TextDelta) else fields

    def _frame(self, open_: OpenBlock) -> tuple[bytes, bytes] | None:
        """Return the bytes of a delta before and after the text of a block; None if the delta has other fields as well."""
        return None if isinstance(open_.value, domain.Refusal) else super()._frame(open_)
