"""The answer to one HTTP request: its head, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from multidict import CIMultiDictProxy

from antiphon.net.exceptions import ConnectionDropped


class Source(Protocol):
    """The connection of an answer."""

    def resume(self) -> None:
        """Continue to read, as the body that arrived was read."""

    def coalesce(self) -> None:
        """Allow reads of this body to be delayed from now on."""

    def abort(self) -> None:
        """Close at once."""


class ClientResponse:
    """A status, headers and a body. Its connection is free for the next request once the body has ended.

    `begin`, `receive` and `fail` are for the connection, which puts here what arrives; the rest is for the reader.
    """

    __slots__ = (
        "_loop",
        "_on_end",
        "_pieces",
        "_waiter",
        "arrival",
        "begun",
        "connection",
        "ended",
        "error",
        "headers",
        "size",
        "status",
    )

    def __init__(self, connection: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: CIMultiDictProxy[str]
        """Set with the status."""
        self.connection: Source | None = connection
        """None once the body has ended, or the connection is lost or dropped."""
        self.arrival: asyncio.Future[None] = loop.create_future()
        """Done when the head has arrived, or the request has failed with `error`."""
        self.begun = False
        """Whether the head has arrived."""
        self.ended = False
        """Whether the whole body has arrived."""
        self.error: Exception | None = None
        """What the answer has failed with."""
        self.size = 0
        """The number of bytes of the body that arrived and were not read yet."""
        self._pieces: list[bytes] = []
        self._waiter = self.arrival
        self._on_end: Callable[[], None] | None = None
        self._loop = loop

    def begin(self, status: int, headers: CIMultiDictProxy[str]) -> None:
        """Take the head."""
        self.status = status
        self.headers = headers
        self.begun = True
        if not self._waiter.done():
            self._waiter.set_result(None)

    def receive(self, data: bytes, *, ended: bool) -> None:
        """Take the next bytes of the body; `ended`: the last ones. There may be none."""
        if data:
            self._pieces.append(data)
            self.size += len(data)
        if not self._waiter.done():
            self._waiter.set_result(None)
        if ended:
            self.ended = True
            self.connection = None
            if self._on_end is not None:
                self._on_end()
                self._on_end = None  # it may refer to this answer

    def fail(self, error: Exception) -> None:
        """End the answer with an error, which the reader gets after what arrived before."""
        self.error = error
        self.connection = None
        self._on_end = None
        if not self._waiter.done():
            self._waiter.set_result(None)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the whole body has arrived. There is one callback at most."""
        self._on_end = callback

    def take(self) -> bytes:
        """Return what of the body has arrived and was not read yet; may be empty."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces.pop() if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        if self.connection is not None:
            self.connection.resume()
        return data

    async def read_any(self) -> bytes:
        """Return the next bytes of the body as soon as there are any; empty at its end. Raises `http_errors.HTTP_ERRORS`."""
        while (waiter := self.wait()) is not None:
            await waiter
        return self.take()

    def wait(self) -> asyncio.Future[None] | None:
        """Return what is done when more of the body arrives; None if some has, or if it has ended.

        Call it again then: nothing may have arrived but the end, or an error. Raises `http_errors.HTTP_ERRORS`.
        """
        if self._pieces:
            return None
        if self.error is not None:
            raise self.error
        if self.ended:
            return None
        self._waiter = self._loop.create_future()
        return self._waiter

    async def read(self) -> bytes:
        """Return the whole rest of the body, without a limit. Raises `http_errors.HTTP_ERRORS`."""
        pieces: list[bytes] = []
        while piece := await self.read_any():
            pieces.append(piece)
        return b"".join(pieces)

    def coalesce(self) -> None:
        """Allow several reads of the rest to be joined into one while this process is busy."""
        if self.connection is not None:
            self.connection.coalesce()

    def close(self) -> None:
        """Drop the connection, unless the body has ended. A reader that waits gets `ConnectionDropped`."""
        if self.connection is not None:
            self.connection.abort()
            self._pieces.clear()
            self.size = 0
            self.fail(ConnectionDropped("The connection was closed by its reader."))
