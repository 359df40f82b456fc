"""The metrics report of a worker to its supervisor: sent whenever the supervisor requests one, and once more when the worker ends.

A byte from the supervisor requests a report. A report is its length, packed as `LENGTH`, and a text in Prometheus' format. A length
of 0 means that the worker ends because another one replaces it. Reports are sent by a thread of their own, so that a worker whose
event loop hangs still reports. May import the standard library only.
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
"""The largest size of a report, in bytes."""

_JOIN_TIMEOUT: Final = 2.0
"""Seconds to wait for the thread to end."""


class Reporter:
    """Context manager that sends what `exposition` returns to the socket at `path`, whenever a report is requested."""

    def __init__(self, path: Path, exposition: Callable[[], bytes]) -> None:
        self.failure: str | None = None
        """Why the last report failed, or why nobody receives reports. The process continues without them."""
        self.replaced = False
        """Set to True before leaving the context if another worker has replaced this one."""
        self._path = path
        self._exposition = exposition
        self._socket = socket.socket(socket.AF_UNIX)
        self._send_lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve_requests, name="metrics", daemon=True)

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
            self._thread.join(_JOIN_TIMEOUT)
        self._socket.close()

    def _serve_requests(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(4096):  # several requests that arrived together get one answer
                try:
                    self._send()
                except OSError:
                    raise
                except Exception as error:  # noqa: BLE001  # the next report may succeed, and this thread is the only one that sends them
                    self.failure = str(error)

    def _send(self) -> None:
        with self._send_lock:
            report = self._exposition()
            self._socket.sendall(LENGTH.pack(len(report)) + report)
