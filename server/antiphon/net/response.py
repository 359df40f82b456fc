"""The answer to one HTTP request: its head, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import StreamReader
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDictProxy

from antiphon.net.connection import ResponseProtocol


class ClientResponse:
    """A status, headers and a body in `content`. A body that is read to its end gives the connection back to the pool."""

    def __init__(
        self, message: RawResponseMessage, content: StreamReader, connection: Connection, upload: asyncio.Task[None] | None
    ) -> None:
        """Take the parsed head. `upload` still sends the body of the request, if it is a large one."""
        self.status: Final = message.code
        self.headers: Final[CIMultiDictProxy[str]] = message.headers
        self.content: Final = content
        self._connection: Connection | None = connection
        self._upload = upload
        content.on_eof(self._finish)  # called at once if there is no body

    @property
    def closed(self) -> bool:
        """Whether the connection was given back or dropped."""
        return self._connection is None

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the body has ended, and the connection is free."""
        self.content.on_eof(callback)

    def coalesce(self) -> None:
        """Allow several reads of the rest to be joined into one while this process is busy."""
        if self._connection is not None and isinstance(protocol := self._connection.protocol, ResponseProtocol):
            protocol.coalesces = True

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end. A reader that waits gets `aiohttp.ClientConnectionError`."""
        if self._connection is not None:
            drop(self._connection, self._upload)
            self._connection = None
            if self.content.exception() is None:
                self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))

    def _finish(self) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        is_sending = self._upload is not None and not self._upload.done()
        protocol: ResponseProtocol = connection.protocol  # type: ignore[assignment]  # made by `Connector`
        if not is_sending and not protocol.unsent:
            connection.release()
        else:  # the host answered without having read the request
            drop(connection, self._upload)


def drop(connection: Connection, upload: asyncio.Task[None] | None) -> None:
    """Close a connection at once.

    What is not sent yet is given up: a close that sends it first would wait forever for a host that does not read.
    """
    if upload is not None:
        upload.cancel()
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()
