"""The target that fuzzes what comes back on a connection of the HTTP client."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from antiphon.net.connection import Connection
from antiphon.net.http_errors import HTTP_ERRORS, error_for

_LOOP: Final = asyncio.new_event_loop()


class _Transport(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Found(NamedTuple):
    """What the reader of an answer gets of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    ended: bool
    failure: str


def http_answer(data: bytes) -> None:
    """Check that an answer does not depend on where it is cut, that it either ends or fails, and that its failure has a meaning."""
    size, data = 1 + (data[0] if data else 0) % 13, data[1:]

    async def read(pieces: list[bytes]) -> _Found:
        transport = _Transport()
        connection = Connection(transport, opened_in=0, read_timeout=60, coalescer=None)
        reusable: list[Connection] = []
        connection.on_reusable = reusable.append
        connection.on_lost = lambda *_: None
        response = connection.send(b"", b"")
        for piece in pieces:
            if not transport.is_closed:
                connection.data_received(piece)
        assert not reusable or response.ended, "a connection is used again whose answer has not ended"
        connection.connection_lost(None)
        assert response.ended != (response.error is not None), "it neither ends nor fails, or does both"
        assert response.connection is None
        failure = response.error
        assert failure is None or (isinstance(failure, HTTP_ERRORS) and error_for(type(failure)) is not None)
        headers = tuple(response.headers.items()) if response.begun else ()
        return _Found(response.status, headers, response.take(), response.ended, type(failure).__name__)

    whole = _LOOP.run_until_complete(read([data]))
    parts = _LOOP.run_until_complete(read([data[at : at + size] for at in range(0, len(data), size)]))
    assert parts == whole, "the answer depends on where it is cut"
