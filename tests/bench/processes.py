"""CPU time and memory of other processes, as reported by the kernel."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.e2e.conftest import Gateway


def children(pid: int) -> list[int]:
    """Return the running children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(gateway: Gateway) -> list[int]:
    """Return the process ids of the gateway's workers."""
    return [pid for pid in children(gateway.process.pid) if b"serve" in _command(pid)]


def edges(gateway: Gateway) -> list[int]:
    """Return the process id of the gateway's Envoy."""
    return [pid for pid in children(gateway.process.pid) if _command(pid).split(b"\0")[0].endswith(b"envoy")]


def cpu(pids: Iterable[int]) -> int:
    """Return the CPU time of all threads of the processes, in nanoseconds."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)  # the clock of another process: clock_getcpuclockid(3)


class Clock:
    """The CPU time of processes that start and end. One that ended counts with the value last seen."""

    def __init__(self) -> None:
        self._used: dict[int, int] = {}

    def read(self, pids: Iterable[int]) -> int:
        """Return the CPU time in nanoseconds of these processes and of all earlier ones."""
        for pid in pids:
            with suppress(OSError):
                self._used[pid] = cpu([pid])
        return sum(self._used.values())


def memory(pids: Iterable[int]) -> int:
    """Return the memory of the processes in bytes; shared memory is divided among its users (PSS)."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    lines = [line.split() for rollup in rollups for line in rollup.splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0] == "Pss:")


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
