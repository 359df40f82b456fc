"""One server process, until it is stopped: `antiphon serve`, and each worker of `antiphon up`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import structlog
import uvloop

from antiphon.app import App, serve_until_signalled
from antiphon.config import Config
from antiphon.telemetry import log
from antiphon.telemetry.names import METRICS_SOCKET
from antiphon.telemetry.report import Reporter
from antiphon.up.addresses import unusable_addresses
from antiphon.up.heap import give_back_large_blocks
from antiphon.up.heartbeat import Heart
from antiphon.up.responder import Responder

_log = structlog.get_logger(__name__)


def serve(
    config: Config,
    environment: Mapping[str, str],
    *,
    socket: Path | None = None,
    worker: int | None = None,
    heartbeat: int | None = None,
) -> None:
    """Serve until a stop signal.

    `socket` is a unix socket to listen on, beside `grpc.listen`. `worker` is the number of a process that shares that address with
    others, and `heartbeat` the descriptor that it writes its heartbeats to. Raises `ConfigError` or `OSError`.
    """
    give_back_large_blocks()
    lines = log.configure(config.log, worker=worker or 0)
    server = App(config, environment)
    if worker is None and (unusable := unusable_addresses(config, ["grpc.listen", "metrics.listen"])):
        raise OSError(unusable[0])  # else both processes would share the port, and each would get some of the calls
    addresses = [config.grpc.listen] + ([f"unix:{socket}"] if socket else [])
    handover = None if socket is None or worker is None else socket.with_name(f"routing-{worker}.json")
    heart = Heart()

    async def run() -> None:
        with lines.collecting(asyncio.get_running_loop()):
            async with heart.beating(heartbeat):
                await serve_until_signalled(server, addresses, handover)

    with _unprinted_dropped(), _metrics_exported(server, config, None if worker is None else socket, heart):
        uvloop.run(run())


@contextmanager
def _metrics_exported(server: App, config: Config, worker_socket: Path | None, heart: Heart) -> Iterator[None]:
    """Export the metrics while the context is open. Does nothing if `metrics.listen` is not set.

    A worker of a supervisor reports over a unix socket beside `worker_socket`. A server without a supervisor answers at
    `metrics.listen`, where probes also learn that its event loop hangs. Raises `OSError` if that address is in use.
    """
    metrics = server.metrics
    if metrics is None or config.metrics.listen is None:
        yield
    elif worker_socket is None:
        responder = Responder(
            config.metrics.listen,
            metrics.exposition,
            lambda: server.missing,
            hanging=lambda: ["the event loop"] if heart.is_silent else [],
            leaving=lambda: server.leaving,
        )
        with closing(responder):
            yield
    else:
        with Reporter(worker_socket.with_name(METRICS_SOCKET), metrics.exposition) as reporter:
            if reporter.failure is not None:
                _log.warning("metrics cannot be reported", error=reporter.failure)
            yield
            reporter.replaced = server.replaced


@contextmanager
def _unprinted_dropped() -> Iterator[None]:
    """Drop output that could not be printed when the process ends: otherwise it would change the exit code."""
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
