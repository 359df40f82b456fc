"""A gateway of `peers` that runs, and what the kernel says of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from tests.bench import processes
from tests.bench.native import Upstream
from tests.bench.peers import Peer, Place, port_printed
from tests.ports import free_port

PATIENCE: Final = 120.0
"""Seconds that a start may take."""


class DidNotStart(Exception):
    """Says why, with the last line that the gateway printed."""


class Running:
    """A gateway that has answered its first call."""

    def __init__(self, peer: Peer, folder: Path, upstream: Upstream) -> None:
        self.peer = peer
        self.place = Place(folder, free_port(), (free_port(), free_port()), upstream)
        self.port = self.place.port
        self.headers = list(peer.headers(self.place))
        self.listened = self.answered = 0.0
        """Seconds from the start to the first connection, and to the first answer."""
        self._process: subprocess.Popen[bytes] | None = None
        self._output = folder / "output.txt"
        folder.mkdir(parents=True, exist_ok=True)
        if command := peer.command(self.place):
            self._start([str(word) for word in command])
        else:
            self.port = upstream.port

    def _start(self, command: list[str]) -> None:
        began = time.monotonic()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.place.folder), "PYTHONUNBUFFERED": "1", **self.peer.environment}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self.place.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            while not self._answers(began):
                self._check(began)
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise

    def _check(self, began: float) -> None:
        assert self._process is not None
        if self._process.poll() is not None or time.monotonic() - began > PATIENCE:
            raise DidNotStart(f"did not start: {self.last_line}")

    def _answers(self, began: float) -> bool:
        if self.peer.listens_at:
            self.port = port_printed(self.peer, self._output.read_text(errors="replace")) or 0
        if not self.port:
            return False
        body = {"model": self.peer.model.format("mock-d0"), "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
        headers = dict(header.split(": ", 1) for header in ["content-type: application/json", *self.headers])
        asked = Request(f"http://127.0.0.1:{self.port}{self.peer.path}", msgspec.json.encode(body), headers)  # loopback
        try:
            with urlopen(asked, timeout=30) as answer:  # noqa: S310
                good = b"token" in answer.read()
        except HTTPError:
            good = False
        except OSError:
            return False
        self.listened = self.listened or time.monotonic() - began
        self.answered = time.monotonic() - began
        return good

    @property
    def last_line(self) -> str:
        """Return the last line that it printed."""
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"

    @property
    def pids(self) -> list[int]:
        """Return its processes."""
        return [] if self._process is None else processes.tree(self._process.pid)

    @property
    def memory(self) -> float:
        """Return its memory in MB (PSS)."""
        return processes.memory(self.pids) / 1e6

    def stop(self) -> None:
        """End its processes: politely, then those that are left."""
        if self._process is None:
            return
        known = self.pids
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        for pid in known:
            with suppress(OSError):
                if os.getpgid(pid) == self._process.pid or pid == self._process.pid:  # not a number that is another's by now
                    os.kill(pid, signal.SIGKILL)
        self._process.wait(15)
        self._process = None


@contextmanager
def running(peer: Peer, folder: Path, upstream: Upstream) -> Iterator[Running]:
    """Run a gateway during the block. Raises `DidNotStart`."""
    made = Running(peer, folder, upstream)
    try:
        yield made
    finally:
        made.stop()


class Use:
    """What was used from its creation until `read`: by a gateway, and by the machine beside it.

    `others` are processes of the benchmark; this one is among them.
    """

    def __init__(self, gateway: Running, *others: int) -> None:
        self._gateway = gateway
        self._others = others
        self._before = processes.cpu_each(gateway.pids)
        self._before_others = processes.cpu_each(others)
        self._machine = processes.Machine.read()
        self._began = time.monotonic()

    def read(self, callers: float) -> dict[str, Any]:
        """Return the seconds of CPU of the gateway, and the cores that others used meanwhile.

        `callers` are seconds of CPU of the callers. `foreign` are cores used by what does not belong to the benchmark.
        """
        after = processes.cpu_each(self._gateway.pids)
        used = sum(seconds - self._before.get(pid, 0.0) for pid, seconds in after.items())
        beside = processes.cpu_each(self._others)
        others = sum(seconds - self._before_others.get(pid, 0.0) for pid, seconds in beside.items())
        machine, taken = processes.Machine.read(), time.monotonic() - self._began
        foreign = (machine.busy - self._machine.busy - used - others - callers) / taken
        return {
            "cpu": used,
            "foreign": max(0.0, round(foreign, 2)),
            "steal": round((machine.stolen - self._machine.stolen) / taken, 2),
        }
