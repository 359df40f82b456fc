"""The connections of the HTTP client: those in use, and those that are kept while they are idle."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final

from antiphon.net.coalescing import Coalescer
from antiphon.net.connection import Connection
from antiphon.net.connector import ConnectOptions, Connector, Resolver


class Destination:
    """Where connections lead to, and those that are idle."""

    __slots__ = ("idle", "options")

    def __init__(self, options: ConnectOptions) -> None:
        self.options: Final = options
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
        resolver: Resolver | None,
        coalescer: Coalescer | None,
    ) -> None:
        """See `Client`."""
        self._read_timeout = read_timeout
        self._keep_alive = keep_alive
        self._coalescer = coalescer
        self._loop = asyncio.get_running_loop()
        self._connector = Connector(timeout=connect_timeout, resolver=resolver)
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
        """Make a connection. Raises what `Connector.connect` raises."""
        began = self._loop.time()
        transport = await self._connector.connect(destination.options)
        connection = Connection(
            transport, opened_in=self._loop.time() - began, read_timeout=self._read_timeout, coalescer=self._coalescer
        )
        connection.on_reusable = partial(self._give_back, destination)
        connection.on_lost = self._used.discard
        self._used.add(connection)
        return connection

    async def close(self) -> None:
        """Close all connections, those in use too."""
        if self._timer is not None:
            self._timer.cancel()
        idle = [connection for destination in self._with_idle for connection in destination.idle]
        for connection in (*self._used, *idle):
            connection.transport.abort()  # `close` would wait for hosts that do not answer
        await self._connector.close()

    def _give_back(self, destination: Destination, connection: Connection) -> None:
        self._used.discard(connection)
        connection.idle_since = self._loop.time()
        destination.idle.append(connection)
        self._with_idle.add(destination)
        if self._timer is None:
            self._timer = self._loop.call_later(self._keep_alive, self._close_idle)

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
