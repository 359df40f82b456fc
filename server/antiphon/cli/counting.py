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
from antiphon.up.responder import Responder

log = structlog.get_logger(__name__)


@contextmanager
def counted(server: App, config: Config, worker_socket: Path | None) -> Iterator[None]:
    """Tell the supervisor, beside `worker_socket`, or whoever asks at a port of our own. Raises `OSError` if that is taken."""
    metrics = server.metrics
    if metrics is None or config.metrics.listen is None:
        yield
    elif worker_socket is None:
        with closing(Responder(config.metrics.listen, metrics.exposition, lambda: server.missing)):
            yield
    else:
        with Reporter(worker_socket.with_name(METRICS_SOCKET), metrics.exposition) as reporter:
            if reporter.failure is not None:
                log.warning("metrics cannot be reported", error=reporter.failure)
            yield
