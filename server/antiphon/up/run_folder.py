"""The folder of one run of `antiphon up`: the workers' sockets and Envoy's files.

The run holds a lock on its folder. The system releases the lock when the process ends, however it ends; a process id would not do,
as another process may get it later. So the next start can remove what a killed gateway left, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 103
"""The most bytes in the path of a unix socket: the smallest limit of the systems that have them."""

_PREFIX = "antiphon-"
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
"""Names as `mkdtemp` makes them."""

_SUFFIXES = (".yaml", ".json", ".lua", ".pb", ".sock", ".pressure")
"""The suffixes of the files in such a folder. A folder with other files is not removed."""


def make() -> tuple[Path, int]:
    """Make a folder that only this user can enter; return it and the descriptor that holds its lock. Raises `OSError`."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent()))
        lock = _lock(folder)
        if lock is not None:  # else another start has just removed it as left behind
            return folder, lock


def parent() -> str:
    """Return the folder for run folders: the system's temporary one, or /tmp if socket paths would be too long there."""
    name_length = len("/antiphon-12345678/worker-255-99999.sock")
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) + name_length <= MAX_SOCKET_PATH else "/tmp"  # noqa: S108  # mkdtemp is safe there


def sweep() -> None:
    """Remove the folders that killed gateways of this user left behind. What cannot be removed stays."""
    with contextlib.suppress(OSError), os.scandir(parent()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove(Path(entry.path))


def _remove(folder: Path) -> None:
    """Remove a folder if it is a run folder of this user that no run holds. Raises `OSError`."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    lock = _lock(folder)
    if lock is None:
        return
    try:
        files = list(folder.iterdir())
        if any(file.suffix not in _SUFFIXES or file.is_dir() or _is_served(file) for file in files):
            return
        for file in files:
            file.unlink()
        folder.rmdir()
    finally:
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock; None if another process holds it, or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_served(file: Path) -> bool:
    """Return True if a process listens on the socket: where the system does not kill it, a child may outlive its supervisor."""
    if not file.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(file))
        except ConnectionRefusedError:
            return False
    return True
