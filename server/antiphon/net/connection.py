"""The connections of the HTTP client, and how one tells that its host had closed it before a request arrived.

Hosts close idle connections, and a request may already be on its way then. So connections are kept for less time than common hosts
keep them (`ProviderConfig.keep_alive`), and such a request is sent once more. aiohttp itself retries only GET.
"""

from __future__ import annotations

import ssl
from functools import cache, partial
from typing import Any, Final, cast

import aiohttp
import httpx2
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from antiphon.net.coalescing import Coalescer

_CLOSE_MARGIN: Final = 0.05
"""Seconds, in addition to a round trip, within which we must see a close that was sent before the request arrived."""

_MAX_CLOSE_DELAY: Final = 0.5
"""The upper limit in seconds, round trip included: connecting may have been slow for another reason."""

LOST: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
"""The exceptions of a closed or reset connection, when reading and when writing."""


class ResponseProtocol(ResponseHandler):
    """An aiohttp protocol that fails a body whose bytes are not HTTP, and records whether anything was answered.

    aiohttp raises only to a caller that waits for the head: a reader of the body would wait forever, as the read time-out is
    stopped too.
    """

    opened_in: float | None = None
    """Seconds that connecting took: at least a round trip. None until the first request."""
    acquired_at = 0.0
    """The time of the event loop when the present request got this connection."""
    was_idle = False
    """Whether the connection had been used before the present request."""
    answered = False
    """Whether a byte has arrived since then."""
    coalescer: Coalescer | None = None
    """None: every read is passed on at once."""
    coalesces = False
    """Whether reads of this body may be delayed: its first token has arrived."""
    _held = False
    """Whether reading is paused by `hold`."""

    @property
    def buffered(self) -> int:
        """Return the number of bytes of the body that arrived and were not read yet."""
        return getattr(self._payload, "_size", 0)  # there is no public way; the body of an interim answer has none

    @property
    def unsent(self) -> int:
        """Return the number of bytes of the request that are still in this process."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        self.answered = True
        ResponseHandler.data_received(self, data)
        if self.coalesces and data and self.coalescer is not None and self._payload is not None and not self._payload.is_eof():
            self.coalescer.after_read(self, len(data), self._loop)

    def was_closed_before_arrival(self, now: float) -> bool:
        """Return whether the host closed a connection that is lost now before the request reached it.

        This cannot be known for sure: a host that reads a request and dies at once looks the same. So it is assumed only if the
        connection had been idle, nothing was answered, and the close came within the time of a round trip: a close in reaction to
        the request takes longer, as the host has worked on it.
        """
        if not self.was_idle or self.answered:
            return False
        return now - self.acquired_at <= min((self.opened_in or 0.0) + _CLOSE_MARGIN, _MAX_CLOSE_DELAY)

    def hold(self) -> None:
        """Stop reading until `release`. aiohttp's own pauses work independently of this one."""
        if self.transport is not None and self.transport.is_reading():
            self.transport.pause_reading()
            self._held = True

    def release(self) -> None:
        """Continue to read, unless aiohttp itself has paused."""
        if not self._held:
            return
        self._held = False
        if self.transport is not None and not (self._reading_paused or self._buffer_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def start_timeout(self) -> None:
        """Start the read time-out anew, unless it is the reader who is slow, and not the host."""
        if not (self._reading_paused or self._buffer_paused or self._buffer):  # `_buffer` has answers that were not read yet
            super().start_timeout()

    def _on_read_timeout(self) -> None:
        if self._held:
            self.start_timeout()  # the host may have sent something
        else:
            super()._on_read_timeout()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # as in aiohttp
        if self._reading_paused:  # aiohttp calls this at every read of a body, too, which would end `hold`
            super().resume_reading(resume_parser)
        if self._payload is None or self._payload.is_eof():
            self._drop_timeout()  # otherwise it would fire in the pool, and fail the next request
            self.release()  # otherwise the next answer would wait

    def set_exception(self, exc: type[BaseException] | BaseException, *cause: Any) -> None:
        super().set_exception(cast(BaseException, exc), *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(cast(BaseException, exc))


_NEW: Final[list[Trace]] = []
"""In place of the traces, which are not used here: the pool is not asked."""


class Connector(aiohttp.TCPConnector):
    """Makes connections with `ResponseProtocol`; aiohttp has no public option for that."""

    def __init__(self, coalescer: Coalescer | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(ResponseProtocol, loop=self._loop))
        self._coalescer = coalescer

    @property
    def buffered(self) -> int:
        """Return the number of bytes of bodies that arrived and were not read yet. Thread-safe."""
        return sum(protocol.buffered for protocol in list(self._acquired) if isinstance(protocol, ResponseProtocol))

    async def open(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, *, new: bool = False) -> Connection:
        """Return a connection to the host of `request`: an idle one if there is any, unless it has to be `new`."""
        began = self._loop.time()
        connection = await self.connect(request, _NEW if new else [], timeout)
        now = self._loop.time()
        protocol: ResponseProtocol = connection.protocol  # type: ignore[assignment]  # made by `_factory`
        protocol.was_idle = protocol.opened_in is not None
        if protocol.opened_in is None:
            protocol.opened_in = now - began
            protocol.coalescer = self._coalescer
        protocol.acquired_at = now
        protocol.answered = protocol.coalesces = False
        return connection

    async def _get(self, key: Any, traces: list[Trace]) -> Connection | None:
        if traces is _NEW:
            return None
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                break
            connection.close()  # an answer that nobody had asked for has arrived meanwhile
        return connection


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that verifies hosts, one for all of them: loading it takes tens of milliseconds.

    It trusts what the system trusts, or the authorities in `SSL_CERT_FILE` or `SSL_CERT_DIR`; httpx2 finds them.
    """
    return httpx2.create_ssl_context()
