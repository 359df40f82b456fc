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
from antiphon.domain.errors import AntiphonError, to_public_error
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


def same(path: Path) -> Path:
    """Name a field of the domain's request as the domain does."""
    return path


class Exchange(Struct, frozen=True):
    """What a dialect makes of one request: what is asked of a model, and how the answer is written."""

    request: domain.ChatRequest
    form: Writer | Callable[[Reply], bytes]
    """The writer of a stream, or what makes a whole reply the JSON of the answer."""
    late: Callable[[AntiphonError], bytes] = lambda _: b""
    """Tells a caller of a failure within a stream; empty where there is no way to."""
    record: Record | None = None
    field: Callable[[Path], Path] = same
    """What a field of the domain's request is called in the caller's body."""
    status: int | None = None
    """The HTTP status of a whole answer, if it is not 200."""


async def answer(
    chat: ChatService, call: Call, prepare: Callable[[], Awaitable[Exchange]]
) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
    """Ask what `prepare` makes of the caller's request, and yield the answer. The one way of all dialects that chat.

    Each piece of a stream goes out as soon as there is something to write; there is at least one, as it is with the first that an
    answer begins.

    Raises what `prepare` and the chat service raise. Before the first piece or heartbeat that is all, as it can be told as a
    status; after it `Exchange.late` writes what tells the caller, and what would end the stream well is left out.
    """
    exchange = await prepare()
    form, field = exchange.form, exchange.field
    async with aclosing(chat.stream(call, exchange.request, exchange.record)) as batches:
        if callable(form):
            with renaming(field):
                data = form(await collect(batches))
            if exchange.status is not None:
                call.headers["x-http-status"] = str(exchange.status)
            yield httpbody_pb2.HttpBody(content_type=JSON, data=data)
            return
        content_type = form.content_type
        beat = call.heartbeat(httpbody_pb2.HttpBody(content_type=content_type, data=form.comment))
        try:
            with renaming(field):
                async for batch in batches:
                    if data := form.write(batch):
                        yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
                        content_type = ""
                end = form.end()
        except Exception as error:
            if (beat.sent or not content_type) and (data := exchange.late(to_public_error(error))):
                yield httpbody_pb2.HttpBody(data=data)
            raise
        if end or content_type:
            yield httpbody_pb2.HttpBody(content_type=content_type, data=end)
