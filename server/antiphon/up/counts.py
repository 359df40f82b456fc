"""What all workers have counted, as one.

Each worker connects to a unix socket and reports there (`antiphon.telemetry.report`) when it is asked, and when it ends. What is
known of one whose connection has ended stays in the sum: counters never drop, and no file outlives a process. Of the standard
library alone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from antiphon.telemetry.names import EXITS, RELOADED
from antiphon.telemetry.report import LENGTH, LONGEST
from antiphon.up.acceptor import Acceptor
from antiphon.up.families import COUNTER, GAUGE, Families, Family, add, parse, render

PATIENCE = 1.0
"""Seconds that workers have to answer: of one that does not, what it said last is taken."""

INTERVAL = 10.0
"""Seconds between two times that workers are asked, whether or not anybody wants to know. One that is killed takes with it what it
counted since. A report takes a worker 10 to 20 ms of CPU."""

MOST = 1024
"""Workers at once."""


class _Worker:
    """The connection of a worker."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.counted: Families = {}
        self.reports = 0
        self.replaced = False
        """Whether it has said that another one has taken its place, so that its end is none to count."""


class Counts:
    """Takes the reports of workers at the socket `path`, until it is closed. Raises `OSError` if it cannot listen there."""

    def __init__(self, path: Path, interval: float = INTERVAL, is_newest: Callable[[], bool] = lambda: True) -> None:
        """`is_newest` returns whether the newest configuration is in force."""
        self._is_newest = is_newest
        self._changed = threading.Condition()
        self._workers: set[_Worker] = set()
        self._gone: Families = {}
        """The counters of workers that have ended."""
        self._exits = 0
        self._closed = threading.Event()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o600)  # nobody was there in between: it takes connections only from the next line on
        listener.listen(128)
        self._acceptor = Acceptor(listener, self._serve, MOST)
        threading.Thread(target=self._keep_asking, args=(interval,), daemon=True).start()

    def close(self) -> None:
        """Take no more reports."""
        self._closed.set()
        self._acceptor.close()

    def exposition(self) -> bytes:
        """Ask every worker, and return the sum of what they and those before them have counted."""
        self._ask()
        with self._changed:
            total: Families = {}
            add(total, self._gone)
            for worker in self._workers:
                add(total, worker.counted)
            total[EXITS.name] = _family(EXITS.name, COUNTER, EXITS.help, self._exits)
            total[RELOADED.name] = _family(RELOADED.name, GAUGE, RELOADED.help, self._is_newest())
            return render(total.values()).encode()

    def _ask(self) -> None:
        """Return when every worker has reported anew, or has ended, or `PATIENCE` is over."""
        with self._changed:
            asked = {worker: worker.reports for worker in self._workers}
            for worker in asked:
                try:
                    worker.connection.send(b"?", socket.MSG_DONTWAIT)
                except OSError:
                    continue  # it has ended, or has not answered for very long
            self._changed.wait_for(
                lambda: all(worker.reports > before or worker not in self._workers for worker, before in asked.items()), PATIENCE
            )

    def _keep_asking(self, interval: float) -> None:
        while not self._closed.wait(interval):
            self._ask()

    def _serve(self, connection: socket.socket) -> None:
        """Take the reports of a worker until it ends."""
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
                add(self._gone, worker.counted, gauges=False)
                self._exits += not worker.replaced
                self._changed.notify_all()


def _family(name: str, kind: str, description: str, value: float) -> Family:
    return Family(f"# HELP {name} {description}\n# TYPE {name} {kind}\n", kind, {name: float(value)})
