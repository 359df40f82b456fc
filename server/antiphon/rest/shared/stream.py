"""A reply on its way to a caller, piece by piece: what the dialects share of that; how a piece looks is their writers' matter."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Protocol

from google.api import httpbody_pb2

from antiphon import domain
from antiphon.domain.errors import AntiphonError, told
from antiphon.rpc import heartbeat


class Writer(Protocol):
    """Writes a stream."""

    content_type: str
    comment: bytes
    """What a reader of the stream passes over. Empty where there is no such thing."""

    def write(self, batch: domain.Batch) -> bytes:
        """What a batch adds. May be empty."""
        ...

    def end(self) -> bytes:
        """What ends a stream that went well. May be empty."""
        ...


async def transfer(
    batches: AsyncIterable[domain.Batch], writer: Writer, late: Callable[[AntiphonError], bytes]
) -> AsyncGenerator[httpbody_pb2.HttpBody, None]:
    """The pieces, each as soon as there is something to write; at least one, as it is with the first that an answer begins.

    Raises what the stream raises. Before the first piece or heartbeat that is all, as it can be told as a status; after it, `late`
    writes what tells the caller, if anything can, and what would end the stream well is left out.
    """
    content_type = writer.content_type
    beat = heartbeat.start(httpbody_pb2.HttpBody(content_type=content_type, data=writer.comment))
    try:
        async for batch in batches:
            if data := writer.write(batch):
                yield httpbody_pb2.HttpBody(content_type=content_type, data=data)
                content_type = ""
        end = writer.end()
    except Exception as error:
        if (beat.sent or not content_type) and (data := late(told(error))):
            yield httpbody_pb2.HttpBody(data=data)
        raise
    if end or content_type:
        yield httpbody_pb2.HttpBody(content_type=content_type, data=end)
