"""An answer on its way to a caller: one JSON object, or a stream piece by piece. How it looks is the dialects' matter."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from google.api import httpbody_pb2
from msgspec import Struct

from antiphon import domain
from antiphon.chat.service import ChatService
from antiphon.domain.call import Call
from antiphon.domain.errors import AntiphonError, told
from antiphon.domain.reply import Reply, collect
from antiphon.history.recorder import Record
from antiphon.rest.shared.body import Path, renaming
from antiphon.rest.shared.json import JSON


class Writer(Protocol):
    """Writes a stream."""

    content_type: str
    comment: bytes
    """What a reader of the stream passes over. Empty where there is no such thing."""

    def write(self, batch: domain.Batch) -> bytes:
        """Return what a batch adds. May be empty."""
        ...

    def end(self) -> bytes:
        """Return what ends a stream that went well. May be empty."""
        ...


def unchanged(path: Path) -> Path:
    """Name a field of the domain's request as the domain does."""
    return path


class PreparedCall(Struct, frozen=True):
    """What a dialect makes of one request: what is asked of a model, and how the answer is written."""

    request: domain.ChatRequest
    writer: Writer | Callable[[Reply], bytes]
    """The writer of a stream, or what makes a whole reply the JSON of the answer."""
    error_event: Callable[[AntiphonError], bytes] = lambda _: b""
    """Tells a caller of a failure within a stream; empty where there is no way to."""
    record: Record | None = None
    body_path: Callable[[Path], Path] = unchanged
    """What a field of the domain's request is called in the caller's body."""
    status: int | None = None
    """The HTTP status of a whole answer, if it is not 200."""


async def answer(
    chat: ChatService, call: Call, prepare: Callable[[], Awaitable[PreparedCall]]
) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
    """Ask what `prepare` makes of the caller's request, and yield the answer. The one way of all dialects that chat.

    Each piece of a stream goes out as soon as there is something to write; there is at least one, as it is with the first that an
    answer begins.

    Raises what `prepare` and the chat service raise. Before the first piece or heartbeat that is all, as it can be told as a
    status; after it `Exchange.late` writes what tells the caller, and what would end the stream well is left out.
    """
    prepared = await prepare()
    writer, body_path = prepared.writer, prepared.body_path
    async with aclosing(chat.stream(call, prepared.request, prepared.record)) as batches:
        if callable(writer):
            with renaming(body_path):
                data = writer(await collect(batches))
            if prepared.status is not None:
                call.headers["x-http-status"] = str(prepared.status)
            yield httpbody_pb2.HttpBody(content_type=JSON, data=data)
            return
        content_type = writer.content_type
        beat = call.heartbeat(httpbody_pb2.HttpBody(content_type=content_type, data=writer.comment))
        try:
            with renaming(body_path):
                async for batch in batches:
                    if data := writer.write(batch):
                        yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
                        content_type = ""
                end = writer.end()
        except Exception as error:
            if (beat.sent or not content_type) and (data := prepared.error_event(told(error))):
                yield httpbody_pb2.HttpBody(data=data)
            raise
        if end or content_type:
            yield httpbody_pb2.HttpBody(content_type=content_type, data=end)
