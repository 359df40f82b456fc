"""The connections of the HTTP client, and the one retry of a request whose idle connection the host closed meanwhile.

Hosts close connections that are idle, and a request may already be on its way then. So connections are kept for less time than
common hosts keep them (`ProviderConfig.keep_alive`), and such a request is sent once more. aiohttp itself does so for GET alone.
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

_AT_ONCE: Final = 0.05
"""Seconds, beside a round trip, within which a close that was sent before the request came must be seen here."""

_AT_ONCE_MOST: Final = 0.5
"""The most seconds, round trip included: connecting may have been slow for another reason."""

_LOST: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
"""What a closed or reset connection raises, when read from and when written to."""


class Protocol(ResponseHandler):
    """Fails a body whose bytes are not HTTP, and knows whether anything was answered.

    aiohttp raises only where the head is awaited: a reader of the body would wait for ever, as the read timeout is stopped too.
    """

    opened_in: float | None = None
    """Seconds that it took to open: a round trip at least. None until its first request."""
    answered = False
    """Whether a byte has come since the last request was begun."""

    @property
    def buffered(self) -> int:
        """Bytes of a body that have come, and were not read yet."""
        return 0 if self._payload is None else self._payload._size  # noqa: SLF001  # nothing public tells

    def data_received(self, data: bytes) -> None:
        self.answered = True
        ResponseHandler.data_received(self, data)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # as aiohttp has it
        super().resume_reading(resume_parser)
        if self._payload is None or self._payload.is_eof():
            self._drop_timeout()  # it would fire in the pool, and fail the next request

    def set_exception(self, exc: type[BaseException] | BaseException, *cause: Any) -> None:
        super().set_exception(cast(BaseException, exc), *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(cast(BaseException, exc))


class ConnectionUse:
    """How one request uses a connection; the connector fills it in."""

    def __init__(self) -> None:
        self.fresh = False
        """Whether it must be a new one."""
        self._protocol: Protocol | None = None
        self._reused = False
        self._begun = 0.0

    def begin(self, protocol: Protocol, now: float) -> None:
        """The request is about to be sent."""
        self._protocol, self._reused, self._begun = protocol, protocol.opened_in is not None, now

    def met_a_close(self, now: float) -> bool:
        """Whether a connection that is lost now was closed by its host before the request came to it.

        Nobody can know for sure: a host that has read a request and dies at that moment looks the same. So it is only taken for one
        where the connection had been idle, nothing was answered, and the close came within the time of a round trip: a close that
        answers to the request takes longer, by all that the host did for it.
        """
        protocol = self._protocol
        if protocol is None or not self._reused or protocol.answered:
            return False
        return now - self._begun <= min((protocol.opened_in or 0.0) + _AT_ONCE, _AT_ONCE_MOST)


_USE: Final[ContextVar[ConnectionUse | None]] = ContextVar("connection_use", default=None)

_T = TypeVar("_T")


async def send_past_a_close(send: Callable[[], Awaitable[_T]]) -> _T:
    """Send one request by `send`, which waits for the head of the answer and returns it.

    A request that met the close of an idle connection is sent once more, on a new one, and no other is: a model call costs money.
    `send` is called again for that, so its body must be there again. Raises what `send` raises.
    """
    use = ConnectionUse()
    token = _USE.set(use)
    try:
        try:
            return await send()
        except _LOST:
            if not use.met_a_close(asyncio.get_running_loop().time()):
                raise
        use.fresh = True
        return await send()
    finally:
        _USE.reset(token)


class Connector(aiohttp.TCPConnector):
    """Makes connections with `Protocol`; aiohttp has no public option for that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(Protocol, loop=self._loop))

    @property
    def buffered(self) -> int:
        """Bytes of bodies that have come, and were not read yet. May be asked by any thread."""
        return sum(protocol.buffered for protocol in list(self._acquired) if isinstance(protocol, Protocol))

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        began = self._loop.time()
        connection = await super().connect(req, traces, timeout)
        now = self._loop.time()
        protocol = cast(Protocol, connection.protocol)
        if (use := _USE.get()) is not None:
            use.begin(protocol, now)
        if protocol.opened_in is None:
            protocol.opened_in = now - began
        protocol.answered = False
        return connection

    async def _get(self, key: Any, traces: list[Trace]) -> Connection | None:
        use = _USE.get()
        return None if use is not None and use.fresh else await super()._get(key, traces)


@cache
def tls_context() -> ssl.SSLContext:
    """Return what hosts' certificates are checked with, one for all: reading it takes tens of milliseconds.

    It is what the system trusts, wherever that keeps it, or what `SSL_CERT_FILE` or `SSL_CERT_DIR` names; httpx2 knows the places.
    """
    return httpx2.create_ssl_context()
