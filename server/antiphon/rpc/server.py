"""The gRPC server: its options, its health, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.rpc.health import HealthServicer
from antiphon.rpc.interceptor import CallInterceptor
from antiphon.rpc.receiver import DRAIN_GRACE

MAX_CONCURRENT_STREAMS = 1000
"""Calls that may go on at once on one connection; more wait in the client."""

MAX_METADATA_BYTES = 64 * 1024
"""The largest metadata of a call."""

IDLE = 900_000
"""Milliseconds without a call after which a connection is closed: as long as at the edge."""

AGE = 3_600_000
"""Milliseconds, give or take a tenth, after which a connection takes no new calls, so that callers find new replicas; those that go
on have as long again."""

HANDSHAKE = 10_000
"""Milliseconds within which a connection has to say that it speaks HTTP/2, or finish its TLS."""

PING_INTERVAL = 10_000
"""The shortest time between two pings of a client while nothing else goes on; the third that comes sooner ends the connection."""

LINGER = 2 * DRAIN_GRACE
"""Seconds for which a stop waits for callers to take the end of their calls, once none goes on: the first half ends open calls."""

GOING = 1.0
"""Seconds that clients have to leave a connection that is told to end, before their watches of the health end."""

CHECK_INTERVAL = 0.1
"""Seconds between two looks, while it stops, at whether calls go on."""

UNIX: Final = "unix:"
"""What the address of a unix socket begins with."""

log = structlog.get_logger(__name__)


class Server:
    """A grpc.aio server with health and reflection."""

    def __init__(
        self, interceptor: CallInterceptor, registrations: Iterable[tuple[str, Callable[[grpc.aio.Server], None]]]
    ) -> None:
        """`registrations` are pairs of a service's full name and what adds its servicer to a server."""
        self._interceptor = interceptor
        self._server = grpc.aio.server(
            interceptors=[interceptor],
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # The headers of a request, as much as Envoy takes: the query of a proxied call is among them.
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
                # A stream whose message is not asked for may send 64 KiB. The probe would make that 16 MiB and more, for no gain:
                # the window of a message that is asked for is as large as the message.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_connection_idle_ms", IDLE),
                ("grpc.max_connection_age_ms", AGE),
                ("grpc.max_connection_age_grace_ms", AGE),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE),
                # Clients may ping to keep a silent stream alive through what lies between.
                ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL),
                ("grpc.http2.max_ping_strikes", 2),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        names = [reflection.SERVICE_NAME, health.SERVICE_NAME]
        for name, register in registrations:
            register(self._server)
            names.append(name)
        self._health = HealthServicer(["", *names])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(names, self._server)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Adds an address: "host:port", with TLS if there are `credentials`, or "unix:/path", which only this user can open.

        Raises `OSError` if it is taken.
        """
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"{address} cannot be listened on: is it taken?") from error
        if address.startswith(UNIX):
            # Nobody was there in between: it takes connections only from `start` on.
            Path(address.removeprefix(UNIX)).chmod(0o600)

    async def start(self) -> None:
        """Starts to answer."""
        await self._server.start()

    def hold_back(self) -> None:
        """Be unready until `turn_ready`. Calls are taken all the same."""
        self._health.hold_back()

    def turn_ready(self) -> None:
        """Tell all that the server may be called."""
        self._health.ready()

    def turn_unready(self) -> None:
        """Tell all but the edge on this machine that the server is about to stop. It still takes calls."""
        self._health.leave()

    async def stop(self, grace: float, interrupt: Callable[[], None], *, replaced: bool = False) -> None:
        """Stops: not healthy from now on, no new calls. Calls without a key, and those whose request is not there, end.

        `replaced`: another server has the same addresses, so those who watch the health are not told that there is none. Their
        connections are told to end, as all are.

        Those that are being answered have `grace` seconds; then `interrupt` is called, which is to end them with an error of their
        own. When no call goes on any more, what callers have not read of theirs is dropped after `LINGER` seconds.
        """
        if not replaced:
            self._health.stop()
        self._interceptor.drain()
        stopping = asyncio.create_task(self._server.stop(grace + DRAIN_GRACE))
        if replaced:
            await asyncio.wait([stopping], timeout=GOING)
            self._health.stop()
        dropping = asyncio.create_task(self._drop_unread())
        done, _ = await asyncio.wait([stopping], timeout=grace)
        if not done:
            interrupt()
        await stopping
        dropping.cancel()

    async def _drop_unread(self) -> None:
        """Wait until no call has gone on for `LINGER` seconds, then end those of callers who do not take their end.

        Such a caller has an HTTP/2 window that is full, and else holds up the stop for all of its time.
        """
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while True:
            if self._interceptor.calls:
                quiet_since = loop.time()
            elif loop.time() >= quiet_since + LINGER:
                break
            await asyncio.sleep(CHECK_INTERVAL)
        await self._server.stop(None)
