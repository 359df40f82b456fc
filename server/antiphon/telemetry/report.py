"""A worker's line to its supervisor: what it has counted, whenever the supervisor asks, and once more when it ends.

Each report is its length, as `LENGTH` has it, and a text of Prometheus; a length of 0 says that the worker ends because another one
has taken its place. A byte from the supervisor asks for one. It goes on in a
thread of its own, so that a worker whose event loop hangs still reports. Of the standard library alone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

LENGTH: Final = struct.Struct("!I")

LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a report, at most."""

_ENDING: Final = 2.0
"""Seconds that the thread has to end."""


class Reporter:
    """Reports to the socket at `path` what `exposition` returns, from entering to leaving."""

    def __init__(self, path: Path, exposition: Callable[[], bytes]) -> None:
        self.failure: str | None = None
        """Why the last report could not be made, or nobody takes reports. The process goes on without."""
        self.replaced = False
        """Set before leaving, if another worker has taken this one's place."""
        self._path = path
        self._exposition = exposition
        self._socket = socket.socket(socket.AF_UNIX)
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._answer, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._socket.connect(str(self._path))
            self._send()
        except OSError as error:
            self.failure = error.strerror or str(error)
        else:
            self._thread.start()
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._send()
            if self.replaced:
                self._socket.sendall(LENGTH.pack(0))
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(_ENDING)
        self._socket.close()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(4096):  # several that were not heard are one
                try:
                    self._send()
                except OSError:
                    raise
                except Exception as error:  # noqa: BLE001  # the next report may succeed, and no other thread sends any
                    self.failure = str(error)

    def _send(self) -> None:
        with self._sending:
            report = self._exposition()
            self._socket.sendall(LENGTH.pack(len(report)) + report)
