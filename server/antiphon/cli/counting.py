"""Where a server process tells what it has counted."""

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
def counted(server: App, config: Config, worker_socket: Path | None, heart: Heart) -> Iterator[None]:
    """Tell the supervisor, beside `worker_socket`, or whoever asks at a port of our own. Raises `OSError` if that is taken.

    At that port it is told as well when the heart has not beaten for long.
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
