"""How every chat dialect answers a call: with one JSON object, or with a stream in pieces.

The formats belong to the dialects; this module knows none of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Protocol

from google.api import httpbody_pb2
from msgspec import Struct

from antiphon import domain
from antiphon.chat.service import ChatService
from antiphon.domain.call import Call
from antiphon.domain.errors import AntiphonError, InvalidRequest, to_public_error
from antiphon.domain.reply import Reply
from antiphon.history.recorder import Record
from antiphon.rest.shared.body import Path, option_path, renamed
from antiphon.rest.shared.json import EVENT_STREAM, JSON
from antiphon.rest.shared.warnings import write_header


class Writer(Protocol):
    """Writes a reply as a stream in the format of a dialect."""

    content_type: str
    comment: bytes
    """Bytes that readers of the stream ignore, sent as a heartbeat. Empty if the format has nothing like that."""

    def write(self, batch: domain.Batch) -> bytes:
        """Return the bytes for a batch of events. May be empty."""
        ...

    def end(self) -> bytes:
        """Return the bytes that end a stream without an error. May be empty."""
        ...


class PreparedCall(Struct, frozen=True):
    """A caller's request, converted for the chat service, and how its answer is written."""

    request: domain.ChatRequest
    writer: Writer | Callable[[Reply], bytes]
    """A writer for a stream, or a function that turns a whole reply into the JSON of the response."""
    error_event: Callable[[AntiphonError], bytes] = lambda _: b""
    """Returns the bytes that report an error after a stream has started. Empty if the format cannot report one."""
    record: Record | None = None
    body_path: Callable[[Path], Path] = option_path
    """Converts the path of a field of `request` into its path in the caller's body, for error messages and warnings."""
    status: int | None = None
    """The HTTP status of a response that is not streamed, if it is not 200."""


async def answer(
    chat: ChatService, call: Call, prepare: Callable[[], Awaitable[PreparedCall]]
) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
    """Send the request that `prepare` returns to the chat service, and yield the answer as pieces of an HTTP body.

    All dialects that chat use this function. Each piece of a stream is yielded as soon as there is something to write. At least one
    piece is yielded, because the HTTP response starts with the first.

    Raises what `prepare` and the chat service raise. Before the first piece or heartbeat an error only has to be raised, as it
    becomes an HTTP status. After it, the bytes of `PreparedCall.error_event` are yielded first, and those of `Writer.end` are left
    out.
    """
    prepared = await prepare()
    writer, body_path = prepared.writer, prepared.body_path
    call.on_warnings = partial(write_header, call.headers, body_path)
    batches = chat.stream(call, prepared.request, prepared.record)
    try:
        if callable(writer):
            try:
                reply = Reply()  # as `collect`, without its coroutine
                async for batch in batches:
                    reply.add(*batch)
                data = writer(reply)
            except InvalidRequest as error:
                raise renamed(error, body_path) from None
            if prepared.status is not None:
                call.headers["x-http-status"] = str(prepared.status)
            call.is_last = True
            yield httpbody_pb2.HttpBody(content_type=JSON, data=data)
            return
        content_type, last = writer.content_type, b""
        # Clients of other formats may take each piece of the transfer as a message.
        is_joined = content_type == EVENT_STREAM
        beat = call.heartbeat(httpbody_pb2.HttpBody(content_type=content_type, data=writer.comment))
        try:
            async for batch in batches:
                data = writer.write(batch)
                if is_joined and type(batch[-1]) is domain.Finished:
                    last = data  # sent with the end, which costs less than two messages
                elif data:
                    yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
                    content_type = ""
            last += writer.end()
        except Exception as error:
            if isinstance(error, InvalidRequest):
                renamed(error, body_path)
            if (beat.sent or not content_type) and (data := prepared.error_event(to_public_error(error))):
                yield httpbody_pb2.HttpBody(data=data)
            raise
        if last or content_type:
            call.is_last = True
            yield httpbody_pb2.HttpBody(content_type=content_type, data=last)
    finally:
        await batches.aclose()
