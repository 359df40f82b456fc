"""Files that only their owner may read. May import the standard library only, as the supervisor uses it."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path

MODE = 0o600


def open_private(path: Path) -> io.FileIO:
    """Open a file for appending, unbuffered. A new file gets `MODE`, whatever the umask is.

    An existing regular file of this user is set to that mode as well. A file of another user keeps its mode, and so does anything
    that is not a regular file, such as /dev/stderr or a pipe. Raises `OSError`.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
    found = os.fstat(descriptor).st_mode
    if stat.S_ISREG(found) and stat.S_IMODE(found) != MODE:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, MODE)
    return io.FileIO(descriptor, "ab")


def stays_open_to_others(path: Path) -> bool:
    """Return whether others may open a regular file and `open_private` cannot change that, as the file belongs to another user."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o077) and os.geteuid() not in (0, found.st_uid)
