"""Files that nobody but their owner may read. Of the standard library alone, as the supervisor is."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path

MODE = 0o600


def open_private(path: Path) -> io.FileIO:
    """Opens a file to append to it, unbuffered, and makes it if there is none: with `MODE`, whatever the umask.

    A regular file of this user's that others may open gets that mode, too; one of another user's stays as it is, and so does what
    is no regular file, such as /dev/stderr or a pipe. Raises `OSError`.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
    found = os.fstat(descriptor).st_mode
    if stat.S_ISREG(found) and stat.S_IMODE(found) != MODE:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, MODE)
    return io.FileIO(descriptor, "ab")


def stays_open_to_others(path: Path) -> bool:
    """Whether it is a regular file that others may open, and that only somebody else can close to them."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o077) and os.geteuid() not in (0, found.st_uid)
