"""Which process this is, in words that another one on the same machine can check.

So a worker that was killed is known to be gone at once, and not only when it has been silent for long.

A number of a process is given again, so the time of its start belongs to it; and it means something only within one boot of one
machine, and one container. Where the system has no `/proc`, nothing is said, and nobody is taken for gone.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Names this process. Empty where that cannot be told."""
    try:
        return f"{_where()} {os.getpid()} {_started(os.getpid())}"
    except OSError:
        return ""


def is_gone(process: str) -> bool:
    """Whether the process that `this_process` named has ended; False where that cannot be told from here."""
    where, _, number = process.rpartition(" ")[0].rpartition(" ")
    if not number.isdigit():
        return False
    try:
        if where != _where():
            return False
        return f"{where} {number} {_started(int(number))}" != process
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


def _where() -> str:
    """The boot of this machine, and the container in it."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"


def _started(number: int) -> str:
    """When a process began, in ticks since the boot; a dead one that nobody has buried yet is gone."""
    # The name, in brackets, may hold anything.
    fields = (_PROC / str(number) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError
    return fields[19]
