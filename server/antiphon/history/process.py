"""Names the current process so that another process on the same machine can check whether it still runs.

So a killed worker is known to be gone at once, and not only when its heartbeat is missing.

Process ids are reused, so the name has the start time too; and ids are only valid within one boot and one container, so it has
those as well. On a system without `/proc` the name is empty, and no process is ever reported as gone.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Return the name of this process, such as "<boot id> pid:[<container>] <pid> <start>"; empty if it cannot be determined."""
    try:
        return f"{_boot_and_container()} {os.getpid()} {_start_time(os.getpid())}"
    except OSError:
        return ""


def is_gone(process: str) -> bool:
    """Return whether the process named by `this_process` has ended; False if this cannot be determined from here."""
    where, _, number = process.rpartition(" ")[0].rpartition(" ")
    if not number.isdigit():
        return False
    try:
        if where != _boot_and_container():
            return False
        return f"{where} {number} {_start_time(int(number))}" != process
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


def _boot_and_container() -> str:
    """Return the id of this boot and of the process's container (its pid namespace). Raises `OSError`."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"


def _start_time(number: int) -> str:
    """Return a process's start time, in clock ticks since boot. Raises `ProcessLookupError` for a zombie, which has ended."""
    # The second field, the name in brackets, may contain spaces and brackets.
    fields = (_PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError
    return fields[19]
