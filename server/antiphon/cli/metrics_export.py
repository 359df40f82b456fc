"""The export of the metrics of a server process: to its supervisor, or at a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import structlog

from antiphon.app import App
from antiphon.config import Config
from antiphon.telemetry.names import METRICS_SOCKET
from antiphon.telemetry.report import Reporter
from antiphon.up.heartbeat import Heart
from antiphon.up.responder import Responder

log = structlog.get_logger(__name__)


@contextmanager
def metrics_exported(server: App, config: Config, worker_socket: Path | None, heart: Heart) -> Iterator[None]:
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
                log.warning("metrics cannot be reported", error=reporter.failure)
            yield
            reporter.replaced = server.replaced
