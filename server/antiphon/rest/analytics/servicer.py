"""The analytics dialect: POST /api/v1/ai/chat.

Its source is the gateway's own document. A message, and what else a body may hold, is as in the OpenAI dialect, and so are the
events of a stream, which the document leaves open. What is not known is accepted, and goes nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import orjson
from google.api import httpbody_pb2
from msgspec.structs import replace

from antiphon import domain
from antiphon.chat.client_context import Contexts
from antiphon.chat.service import ChatService
from antiphon.domain.deadline import time_left
from antiphon.domain.errors import DeadlineExceeded
from antiphon.domain.reply import Reply, collect
from antiphon.rest.analytics.errors import late
from antiphon.rest.openai import reply as openai_reply
from antiphon.rest.openai import request as openai
from antiphon.rest.shared.body import messages_as, parse_in_turns, renaming
from antiphon.rest.shared.json import JSON
from antiphon.rest.shared.shown import Shown, shown
from antiphon.rest.shared.stream import transfer
from antiphon.rest.v1 import analytics_pb2, analytics_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Body(openai.Body):
    """The body: the document's four fields, and those of a chat completion beside them."""

    client_id: str | None = None


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """Serves the dialect."""

    def __init__(self, chat: ChatService, contexts: Contexts) -> None:
        self._chat = chat
        self._contexts = contexts

    async def CreateAnalyticsChat(
        self, request: analytics_pb2.CreateAnalyticsChatRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        """One JSON object, or events."""
        body = await parse_in_turns(request.body.data, Body)
        asked = await self._scoped(request_from_body(body), body.client_id, context)
        with renaming(messages_as("messages", len(asked.messages) - len(body.messages))):
            async with aclosing(self._answer(asked, body, context)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _answer(self, asked: domain.ChatRequest, body: Body, context: Context) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
        async with aclosing(self._chat.stream(asked, timeout=time_left(context.time_remaining()))) as batches:
            if not asked.stream:
                yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(answer(await collect(batches))))
                return
            writer = ChunkWriter(include_usage=openai.include_usage(body))
            async with aclosing(transfer(batches, writer, late)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _scoped(self, asked: domain.ChatRequest, client_id: str | None, context: Context) -> domain.ChatRequest:
        """With what the client's conversations begin with. Raises `ContextUnavailable`, `DeadlineExceeded`."""
        if not client_id:
            return asked
        try:
            async with asyncio.timeout(time_left(context.time_remaining())):
                text = await self._contexts.of(client_id)
        except TimeoutError:
            raise DeadlineExceeded from None
        if not text:
            return asked
        return replace(asked, messages=(domain.Message(domain.Role.SYSTEM, (domain.Text(text),)), *asked.messages), trusted=1)


def request_from_body(body: Body) -> domain.ChatRequest:
    """The domain's request. There is room for one reply only. Raises `InvalidRequest`."""
    asked = openai.request_from_body(body, stream=bool(body.stream))
    return replace(asked, sampling=replace(asked.sampling, choices=None), extra=domain.NOTHING, known_fields=True)


def answer(reply: Reply) -> dict[str, Any]:
    """The JSON object of a whole reply. What is no text stands beside the content, as in a chat completion.

    A refusal is content as well, and so is what is said in a reply of sound alone: the document knows of no other field.
    """
    completion = openai_reply.completion(reply)
    said = completion["choices"][0]["message"]
    content = said["content"] if isinstance(said["content"], list) else shown(reply.choices[0])
    usage = completion["usage"]
    beside = {name: said[name] for name in ("refusal", "tool_calls", "function_call", "audio") if said.get(name)}
    called = beside.keys() & {"tool_calls", "function_call"}
    return {
        "success": True,
        "data": {
            "message": {"role": said["role"], "content": content or (None if called else ""), **beside},
            "usage": {
                name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens", "estimated") if name in usage
            },
        },
    }


class ChunkWriter(openai_reply.ChunkWriter):
    """Writes the same events as the OpenAI dialect, with what is content as well, as in a whole reply."""

    def __init__(self, *, include_usage: bool) -> None:
        super().__init__(include_usage=include_usage)
        self._shown = Shown()

    def write(self, batch: domain.Batch) -> bytes:
        """The events of a batch. May be empty."""
        events: domain.Batch = []
        at = count = left = 0  # where the group is whose events come now, how many they are, and how many of them are left
        for happened in batch:
            if isinstance(happened, domain.DeltaGroup):
                at, count, left = len(events), happened.count, happened.count + 1
            elif isinstance(happened, domain.RefusalDelta | domain.AudioDelta):
                if text := self._shown.text(happened):
                    if left > 0:
                        count += 1
                        events[at] = domain.DeltaGroup(happened.choice, count)
                    else:
                        events.append(domain.DeltaGroup(happened.choice, 2))
                    events.append(domain.TextDelta(happened.choice, text))
            elif isinstance(happened, domain.TextDelta):
                self._shown.text(happened)
            events.append(happened)
            left -= 1
        return super().write(events)
