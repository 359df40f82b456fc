"""The connections of the HTTP client: made by aiohttp, kept here while they are idle.

aiohttp's connector looks names up, tries several addresses, speaks TLS, and asks outbound proxies for tunnels. Its own pool, its
parser and its buffers are not used: they cost more than everything else of a call's HTTP (docs/adr/0010).
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final

import aiohttp
from aiohttp import http_exceptions
from aiohttp.abc import AbstractResolver

from antiphon.net.authorities import tls_context
from antiphon.net.coalescing import Coalescer
from antiphon.net.connection import Connection

_DNS_TTL: Final = 60
"""Seconds for which an address is used before the name is looked up, and its addresses checked, again."""


class Destination:
    """Where connections lead to, and how: a scheme, host and port, with a TLS context and a proxy."""

    __slots__ = ("idle", "request")

    def __init__(self, request: aiohttp.ClientRequest) -> None:
        """`request` is never sent: it tells aiohttp's connector all that is to be known."""
        self.request: Final = request
        self.idle: Final[deque[Connection]] = deque()
        """The idle connections, the one that was used last at the end."""


class ConnectionPool:
    """All connections of one client. Belongs to the running event loop."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        read_timeout: float,
        keep_alive: float,
        resolver: AbstractResolver | None,
        coalescer: Coalescer | None,
    ) -> None:
        """See `Client`."""
        # "connect" limits connecting as a whole, with the look-up of the name.
        self._timeouts = aiohttp.ClientTimeout(connect=connect_timeout, sock_connect=connect_timeout)
        self._read_timeout = read_timeout
        self._keep_alive = keep_alive
        self._coalescer = coalescer
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(ssl=tls_context(), limit=0, resolver=resolver, ttl_dns_cache=_DNS_TTL)
        self._used: set[Connection] = set()
        self._with_idle: set[Destination] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unread(self) -> int:
        """Return the number of bytes of bodies that arrived and were not read yet. Thread-safe."""
        return sum(connection.unread for connection in list(self._used))

    def take(self, destination: Destination) -> Connection | None:
        """Return the idle connection that was used last: the least likely to be closed now. None: there is none."""
        idle = destination.idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing() and self._loop.time() - connection.idle_since <= self._keep_alive:
                self._used.add(connection)
                return connection
            connection.transport.close()
        return None

    async def open(self, destination: Destination) -> Connection:
        """Make a connection. Raises what aiohttp and the resolver raise."""
        began = self._loop.time()
        made = await self._connector.connect(destination.request, [], self._timeouts)
        handler, transport = made.protocol, made.transport
        if handler is None or transport is None or transport.is_closing():
            made.close()
            raise aiohttp.ServerDisconnectedError
        if handler.should_close:
            made.close()
            raise http_exceptions.BadHttpMessage("The host answered before it was asked.")
        connection = Connection(
            transport, opened_in=self._loop.time() - began, read_timeout=self._read_timeout, coalescer=self._coalescer
        )
        connection.on_reusable = partial(self._give_back, destination)
        connection.on_lost = partial(self._forget, made)
        self._used.add(connection)
        return connection

    async def close(self) -> None:
        """Close all connections, those in use too."""
        if self._timer is not None:
            self._timer.cancel()
        await self._connector.close()

    def _give_back(self, destination: Destination, connection: Connection) -> None:
        self._used.discard(connection)
        connection.idle_since = self._loop.time()
        destination.idle.append(connection)
        self._with_idle.add(destination)
        if self._timer is None:
            self._timer = self._loop.call_later(self._keep_alive, self._close_idle)

    def _forget(self, made: aiohttp.connector.Connection, connection: Connection, error: Exception | None) -> None:
        """Tell aiohttp that a connection is closed, as its own protocol was replaced. An idle one is passed over by `take`."""
        self._used.discard(connection)
        if made.protocol is not None:
            made.protocol.connection_lost(error)
            made.close()

    def _close_idle(self) -> None:
        """Close the connections that have been idle for too long, and wait for the next one that will have been."""
        self._timer = None
        now = self._loop.time()
        oldest: list[float] = []
        for destination in list(self._with_idle):
            idle = destination.idle
            while idle and (idle[0].transport.is_closing() or now - idle[0].idle_since >= self._keep_alive):
                idle.popleft().transport.close()
            if idle:
                oldest.append(idle[0].idle_since)
            else:
                self._with_idle.discard(destination)
        if oldest:
            self._timer = self._loop.call_later(max(min(oldest) + self._keep_alive - now, 0.001), self._close_idle)
