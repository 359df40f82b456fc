"""The gRPC server: its options, its health service, and its shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, cast

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.rpc.acceptor import aio_server
from antiphon.rpc.handlers import CallHandlers
from antiphon.rpc.health import HealthServicer
from antiphon.rpc.receiver import DRAIN_GRACE

MAX_CONCURRENT_STREAMS = 1000
"""The most calls at once on one connection; further calls wait in the client."""

MAX_METADATA_BYTES = 64 * 1024
"""The most bytes of a call's metadata."""

MAX_IDLE_MS = 900_000
"""Milliseconds after which a connection without calls is closed; the edge has the same limit."""

MAX_AGE_MS = 3_600_000
"""Milliseconds, give or take 10%, after which a connection accepts no new calls, so that callers find new replicas.

Calls on it may go on for as long again, and in any case for as long as a call may take: gRPC would end a REST stream as if it were
complete.
"""

MOST_GRACE_MS = 2**31 - 1
"""The most milliseconds that gRPC takes: 24 days."""

PING_AFTER_MS = 10_000
"""Milliseconds after which a connection on which nothing was received is pinged.

So callers that vanished are found, and those that reset a connection right after they sent something: gRPC's older listener, which
`up/launch` chooses, reads what they sent, and not that the connection is gone. Their calls would go on, and connections stay open.
"""

PING_TIMEOUT_MS = 60_000
"""Milliseconds within which a ping has to be answered: longer than a client may be busy. A reset is noticed at once by the ping."""

HANDSHAKE_TIMEOUT_MS = 10_000
"""Milliseconds within which a new connection has to send the HTTP/2 preface, or finish its TLS handshake."""

MIN_PING_INTERVAL_MS = 10_000
"""Shortest time in milliseconds between two pings of a client on a connection without data. The third faster ping ends the
connection."""

LINGER = 2 * DRAIN_GRACE
"""Seconds that a stop waits, after the last call, for callers to read the end of their calls.

The first half of it is the time in which open calls end.
"""

END_TIME = 60.0
"""Seconds, at most, from the deadline of a call until it has ended."""

INTERRUPT_TIME = 2.5
"""Seconds that interrupted calls have to end themselves, of which the history may take two."""

LONG = 24 * 3600.0
"""Seconds that gRPC is given to stop, which is ended earlier."""

LEAVE_TIME = 1.0
"""Seconds that clients have to leave a connection that is told to end, before their health watches end."""

CHECK_INTERVAL = 0.1
"""Seconds between two checks, during a stop, of whether calls are still running."""

UNIX_PREFIX: Final = "unix:"
"""The prefix of a unix socket's address."""

log = structlog.get_logger(__name__)


class Server:
    """A grpc.aio server with health and reflection services."""

    def __init__(
        self,
        handlers: CallHandlers,
        registrations: Iterable[tuple[str, Callable[[grpc.aio.Server], None]]],
        *,
        longest: float = 600.0,
    ) -> None:
        """Register services: `registrations` are pairs of a full name and a function that adds the servicer to a server.

        `longest` is the most seconds that a call may take.
        """
        self._handlers = handlers
        age_grace = round(min(max(MAX_AGE_MS, (longest + END_TIME) * 1000), MOST_GRACE_MS))
        names = [reflection.SERVICE_NAME, health.SERVICE_NAME]
        stand_in = cast(grpc.aio.Server, handlers)
        for name, register in registrations:
            register(stand_in)
            names.append(name)
        self._health = HealthServicer(["", *names])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, stand_in)
        # Not by `enable_server_reflection`: it would take this for a server with threads.
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), stand_in)
        self._server = aio_server(
            [handlers],
            [
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # As much as Envoy accepts; the query of a proxied call is in the metadata.
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
                # A caller may send 64 KiB of a message before the server reads it. The bandwidth probe would raise that to 16 MiB
                # and more, for no gain: once the server reads a message, the window grows to its size.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
                ("grpc.max_connection_age_ms", MAX_AGE_MS),
                ("grpc.max_connection_age_grace_ms", age_grace),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.keepalive_time_ms", PING_AFTER_MS),
                ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
                ("grpc.http2.max_pings_without_data", 0),  # no limit
                # Clients may ping to keep a silent stream alive through proxies and firewalls.
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.http2.max_ping_strikes", 2),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
            handlers.methods,
        )

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Add an address: "host:port", with TLS if `credentials` are given, or "unix:/path", which only this user can open.

        Raises `OSError` if it cannot be listened on.
        """
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"{address} cannot be listened on: is it taken?") from error
        if address.startswith(UNIX_PREFIX):
            # Nobody could connect before this line: the server accepts connections only after `start`.
            Path(address.removeprefix(UNIX_PREFIX)).chmod(0o600)

    async def start(self) -> None:
        """Start to accept calls."""
        await self._server.start()

    def start_unready(self) -> None:
        """Report the server as not ready until `turn_ready` is called. Calls are accepted all the same."""
        self._health.set_not_ready()

    def turn_ready(self) -> None:
        """Report the server as ready to everybody."""
        self._health.set_ready()

    def turn_unready(self) -> None:
        """Report the server as not ready, except to the edge on this machine, as it is about to stop.

        Calls are still accepted.
        """
        self._health.set_draining()

    async def stop(self, grace: float, interrupt: Callable[[], None], *, replaced: bool = False) -> None:
        """Stop: report not ready, accept no new calls, and end open calls and calls whose request has not arrived.

        Calls that are being answered have `grace` seconds; then `interrupt` is called, which has to end them with errors. Once no
        call is left, responses that callers have not read are dropped after `LINGER` seconds.

        `replaced` is True if another server listens on the same addresses. Health watchers then see no NOT_SERVING before their
        connection ends.
        """
        if not replaced:
            self._health.stop()
        self._handlers.drain()
        stopping = asyncio.create_task(self._server.stop(grace + LONG))
        if replaced:
            await asyncio.wait([stopping], timeout=LEAVE_TIME)
            self._health.stop()
        dropping = asyncio.create_task(self._drop_unread())
        done, _ = await asyncio.wait([stopping], timeout=grace)
        if not done:
            interrupt()
            # Timed from here, and not by gRPC: its end of a call has the shape of no dialect, and ends a REST stream as if it were
            # complete. A busy server would be late for both, and leave its calls no time to end themselves.
            done, _ = await asyncio.wait([stopping], timeout=INTERRUPT_TIME)
            if not done:
                await self._server.stop(None)
        await stopping
        dropping.cancel()

    async def _drop_unread(self) -> None:
        """Wait until no call has run for `LINGER` seconds, then drop the connections of callers that do not read.

        A caller whose HTTP/2 window is full would otherwise hold up the stop for the whole grace period.
        """
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while True:
            if self._handlers.calls:
                quiet_since = loop.time()
            elif loop.time() >= quiet_since + LINGER:
                break
            await asyncio.sleep(CHECK_INTERVAL)
        await self._server.stop(None)
