"""The connections of the HTTP client, and the single retry of a request whose idle connection the host had closed.

Hosts close idle connections, and a request may already be on its way then. So connections are kept for less time than common hosts
keep them (`ProviderConfig.keep_alive`), and such a request is sent once more. aiohttp itself retries only GET.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import aiohttp
import httpx2
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

_CLOSE_MARGIN: Final = 0.05
"""Seconds, in addition to a round trip, within which we must see a close that was sent before the request arrived."""

_MAX_CLOSE_DELAY: Final = 0.5
"""The upper limit in seconds, round trip included: connecting may have been slow for another reason."""

_LOST: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
"""The exceptions of a closed or reset connection, when reading and when writing."""


class ResponseProtocol(ResponseHandler):
    """An aiohttp protocol that fails a body whose bytes are not HTTP, and records whether anything was answered.

    aiohttp raises only to a caller that waits for the head: a reader of the body would wait forever, as the read time-out is
    stopped too.
    """

    opened_in: float | None = None
    """Seconds that connecting took: at least a round trip. None until the first request."""
    answered = False
    """Whether a byte has arrived since the last request was begun."""

    @property
    def buffered(self) -> int:
        """Return the number of bytes of the body that arrived and were not read yet."""
        return getattr(self._payload, "_size", 0)  # there is no public way; the body of an interim answer has none

    def data_received(self, data: bytes) -> None:
        self.answered = True
        ResponseHandler.data_received(self, data)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # as in aiohttp
        super().resume_reading(resume_parser)
        if self._payload is None or self._payload.is_eof():
            self._drop_timeout()  # otherwise it would fire in the pool, and fail the next request

    def set_exception(self, exc: type[BaseException] | BaseException, *cause: Any) -> None:
        super().set_exception(cast(BaseException, exc), *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(cast(BaseException, exc))


class ConnectionUse:
    """How one request uses a connection. The connector fills it in."""

    def __init__(self) -> None:
        self.must_be_new = False
        """Whether it must be a new one."""
        self._protocol: ResponseProtocol | None = None
        self._reused = False
        self._begun = 0.0

    def begin(self, protocol: ResponseProtocol, now: float) -> None:
        """Note the connection on which the request is about to be sent."""
        self._protocol, self._reused, self._begun = protocol, protocol.opened_in is not None, now

    def was_closed_before_arrival(self, now: float) -> bool:
        """Return whether the host closed a connection that is lost now before the request reached it.

        This cannot be known for sure: a host that reads a request and dies at once looks the same. So it is assumed only if the
        connection had been idle, nothing was answered, and the close came within the time of a round trip: a close in reaction to
        the request takes longer, as the host has worked on it.
        """
        protocol = self._protocol
        if protocol is None or not self._reused or protocol.answered:
            return False
        return now - self._begun <= min((protocol.opened_in or 0.0) + _CLOSE_MARGIN, _MAX_CLOSE_DELAY)


_CURRENT_USE: Final[ContextVar[ConnectionUse | None]] = ContextVar("connection_use", default=None)

_T = TypeVar("_T")


async def send_with_retry(send: Callable[[], Awaitable[_T]]) -> _T:
    """Send one request by `send`, which waits for the head of the answer and returns it.

    A request that met the close of an idle connection is sent once more on a new connection. No other is: a model call costs money.
    `send` is then called a second time, so its body must still be there. Raises what `send` raises.
    """
    use = ConnectionUse()
    token = _CURRENT_USE.set(use)
    try:
        try:
            return await send()
        except _LOST:
            if not use.was_closed_before_arrival(asyncio.get_running_loop().time()):
                raise
        use.must_be_new = True
        return await send()
    finally:
        _CURRENT_USE.reset(token)


class Connector(aiohttp.TCPConnector):
    """Makes connections with `ResponseProtocol`; aiohttp has no public option for that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(ResponseProtocol, loop=self._loop))

    @property
    def buffered(self) -> int:
        """Return the number of bytes of bodies that arrived and were not read yet. Thread-safe."""
        return sum(protocol.buffered for protocol in list(self._acquired) if isinstance(protocol, ResponseProtocol))

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        began = self._loop.time()
        connection = await super().connect(req, traces, timeout)
        now = self._loop.time()
        protocol = cast(ResponseProtocol, connection.protocol)
        if (use := _CURRENT_USE.get()) is not None:
            use.begin(protocol, now)
        if protocol.opened_in is None:
            protocol.opened_in = now - began
        protocol.answered = False
        return connection

    async def _get(self, key: Any, traces: list[Trace]) -> Connection | None:
        use = _CURRENT_USE.get()
        return None if use is not None and use.must_be_new else await super()._get(key, traces)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that verifies hosts, one for all of them: loading it takes tens of milliseconds.

    It trusts what the system trusts, or the authorities in `SSL_CERT_FILE` or `SSL_CERT_DIR`; httpx2 finds them.
    """
    return httpx2.create_ssl_context()
