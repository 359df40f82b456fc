"""CPU time and memory of other processes and of the whole machine, as reported by the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.e2e.conftest import Gateway


def children(pid: int) -> list[int]:
    """Return the running children of a process, of whichever of its threads."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def tree(pid: int) -> list[int]:
    """Return a process and all its running descendants."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            found += children(each)
    return found


def workers(gateway: Gateway) -> list[int]:
    """Return the process ids of the gateway's workers."""
    return [pid for pid in children(gateway.process.pid) if b"antiphon.worker" in _command(pid)]


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


def cpu_each(pids: Iterable[int]) -> dict[int, float]:
    """Return the CPU time of each of the processes that still run, in seconds."""
    found: dict[int, float] = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = cpu([pid]) / 1e9
    return found


class Machine(NamedTuple):
    """The CPU time of the whole machine, in seconds."""

    busy: float
    stolen: float
    """In which a virtual machine wanted to run, and its host ran another one."""

    @classmethod
    def read(cls) -> Machine:
        """Return the time since the machine started."""
        with Path("/proc/stat").open(encoding="ascii") as file:
            fields = [int(word) / os.sysconf("SC_CLK_TCK") for word in file.readline().split()[1:9]]
        user, nice, system, _idle, _waiting, interrupt, soft_interrupt, stolen = fields
        return cls(user + nice + system + interrupt + soft_interrupt, stolen)


def descriptors(pids: Iterable[int]) -> int:
    """Return the number of open descriptors of the processes."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def memory(pids: Iterable[int]) -> int:
    """Return the memory of the processes in bytes; shared memory is divided among its users (PSS)."""
    rollups = []
    for pid in pids:
        with suppress(OSError):  # it has ended
            rollups.append(Path(f"/proc/{pid}/smaps_rollup").read_text())
    lines = [line.split() for rollup in rollups for line in rollup.splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0] == "Pss:")


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
