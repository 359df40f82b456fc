"""The sum of what all workers have counted.

Each worker connects to a unix socket, and reports there when it is asked and when it ends (`antiphon.telemetry.report`). The
counters of a worker whose connection has ended stay in the sum, so counters never drop, and no file outlives a process. Uses the
standard library only.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from antiphon.telemetry.exposition import family, render
from antiphon.telemetry.names import EXITS, RELOADED
from antiphon.telemetry.report import LENGTH, LONGEST
from antiphon.up.acceptor import Acceptor
from antiphon.up.families import Families, add, parse

ANSWER_TIMEOUT = 1.0
"""Seconds that workers have to answer. For one that does not, its last report is used."""

INTERVAL = 10.0
"""Seconds between two reports that are asked for even if nobody wants the metrics.

A worker that is killed loses what it counted since its last report. A report takes a worker 10 to 20 ms of CPU.
"""

MAX_WORKERS = 1024
"""The most workers connected at once."""


class _Worker:
    """The connection of one worker, and its last report."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.counted: Families = {}
        self.reports = 0
        self.replaced = False
        """True once the worker reports that another one has replaced it: its end is then not counted as an exit."""


class Counts:
    """Collects the reports of workers at the socket `path`, until closed. Raises `OSError` if it cannot listen there."""

    def __init__(self, path: Path, interval: float = INTERVAL, is_newest: Callable[[], bool] = lambda: True) -> None:
        """Start to listen. `interval` is in seconds. `is_newest` returns True while the newest configuration is in force."""
        self._is_newest = is_newest
        self._changed = threading.Condition()
        self._workers: set[_Worker] = set()
        self._ended_counters: Families = {}
        """The counters of workers that have ended."""
        self._exits = 0
        self._closed = threading.Event()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o600)  # nobody could connect before this line: the socket accepts connections only after `listen`
        listener.listen(128)
        self._acceptor = Acceptor(listener, self._serve, MAX_WORKERS)
        threading.Thread(target=self._keep_asking, args=(interval,), daemon=True).start()

    def close(self) -> None:
        """Accept no more reports."""
        self._closed.set()
        self._acceptor.close()

    def exposition(self) -> bytes:
        """Ask all workers for a report; return the sum over them and earlier workers, as Prometheus text."""
        self._ask()
        with self._changed:
            total: Families = {}
            add(total, self._ended_counters)
            for worker in self._workers:
                add(total, worker.counted)
            for metric, value in ((EXITS, self._exits), (RELOADED, self._is_newest())):
                total[metric.name] = own = family(metric)
                own.series[metric.name] = float(value)
            return render(total.values()).encode()

    def _ask(self) -> None:
        """Ask all workers for a report, and wait until each has reported or ended, at most `ANSWER_TIMEOUT` seconds."""
        with self._changed:
            reports_before = {worker: worker.reports for worker in self._workers}
            for worker in reports_before:
                try:
                    worker.connection.send(b"?", socket.MSG_DONTWAIT)
                except OSError:
                    continue  # it has ended, or its receive buffer is full
            self._changed.wait_for(
                lambda: all(worker.reports > before or worker not in self._workers for worker, before in reports_before.items()),
                ANSWER_TIMEOUT,
            )

    def _keep_asking(self, interval: float) -> None:
        while not self._closed.wait(interval):
            self._ask()

    def _serve(self, connection: socket.socket) -> None:
        """Read the reports of one worker until its connection ends."""
        worker = _Worker(connection)
        with self._changed:
            self._workers.add(worker)
        try:
            with connection.makefile("rb") as file:
                while len(head := file.read(LENGTH.size)) == LENGTH.size:
                    (length,) = LENGTH.unpack(head)
                    if not length:
                        worker.replaced = True
                        continue
                    if length > LONGEST or len(report := file.read(length)) < length:
                        break
                    counted = parse(report.decode())
                    with self._changed:
                        worker.counted = counted
                        worker.reports += 1
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._workers.discard(worker)
                add(self._ended_counters, worker.counted, gauges=False)
                self._exits += not worker.replaced
                self._changed.notify_all()
