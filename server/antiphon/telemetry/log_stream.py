"""Where the lines of the log go: to a file or a standard stream, as whole lines, and those of a busy server together."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from select import PIPE_BUF
from typing import Final, Protocol

PAUSE: Final = 0.01
"""The most seconds that a line of a busy server waits for others. Warnings and errors do not wait."""

BUSY: Final = 8
"""A server is busy if it has logged more lines than this within the last `PAUSE`: none that answers one call after the other."""


class RawFile(Protocol):
    """An unbuffered binary file."""

    def write(self, data: bytes, /) -> int | None: ...


class LogStream:
    """A file of whole lines that counts the lines it cannot write, and never raises `OSError`.

    It does not use `io.BufferedWriter`, which would try to write a failed line again with each later one. Lines that are written
    together have at most `PIPE_BUF` bytes: the workers of a server share a pipe, which takes as many as a whole.
    """

    def __init__(self, raw: RawFile) -> None:
        self._raw = raw
        # This thread may log while it has the lock: Python collects garbage at any time, and finalizers log.
        self._lock = threading.RLock()
        self._is_writing = False
        self._lost = 0
        self._mid_line = False
        """Whether what was written last is not the end of a line."""
        self._waiting: list[bytes] = []
        """Lines that are not written yet. Changed only with `_lock`."""
        self._loop: AbstractEventLoop | None = None
        """The event loop whose lines may wait; None outside `collecting`."""
        self._thread = 0
        """The id of the thread that it runs in. Lines of other threads do not wait, as they could not set its timer."""
        self._timer: TimerHandle | None = None
        """What writes the lines that wait."""
        self._began = 0.0
        """When the present `PAUSE` began, by the clock of the event loop."""
        self._count = 0
        """How many lines have come in it."""
        self._is_busy = False
        """Whether more than `BUSY` lines came in the one before."""

    @contextmanager
    def collecting(self, loop: AbstractEventLoop) -> Iterator[None]:
        """While the context is open, and many lines come, let them wait for up to `PAUSE` seconds, and write them together.

        `loop` is the event loop of this thread. The lines that wait at the end of the context are written then.
        """
        self._thread, self._loop = threading.get_ident(), loop
        try:
            yield
        finally:
            self._loop = None
            self._write_waiting()

    def write(self, line: bytes) -> None:
        """Write a line, which must end with a newline. It may wait for up to `PAUSE` seconds; see `collecting`."""
        loop = self._loop
        if loop is None or threading.get_ident() != self._thread:
            self.write_now(line)
            return
        now = loop.time()
        if now >= self._began + PAUSE:
            self._is_busy = self._count > BUSY and now < self._began + 2 * PAUSE
            self._began, self._count = now, 0
        self._count += 1
        if not self._is_busy:
            self.write_now(line)
            return
        with self._lock:
            self._waiting.append(line)
        if self._timer is None:
            self._timer = loop.call_later(self._began + PAUSE - now, self._write_waiting)

    def write_now(self, line: bytes) -> None:
        """Write the lines that wait and this one, which must end with a newline. Safe to call from any thread."""
        with self._lock:
            self._waiting.append(line)
            self._write_lines()

    def _write_waiting(self) -> None:
        self._timer = None
        with self._lock:
            self._write_lines()

    def _write_lines(self) -> None:
        """Write the lines that wait. The caller has the lock.

        Does nothing if this thread is in the midst of it, and only logs something more: that waits, too, and is written next.
        """
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._waiting:
                self._write_some(self._waiting)
        finally:
            self._is_writing = False

    def _write_some(self, waiting: list[bytes]) -> None:
        """Write the first lines. If lines before them were lost, the first one gets their number as the field `lost`."""
        if self._lost and waiting[0].startswith(b"{"):
            waiting[0] = b'{"lost":%d,' % self._lost + waiting[0][1:]
        count, size = 1, self._mid_line + len(waiting[0])
        while count < len(waiting) and (size := size + len(waiting[count])) <= PIPE_BUF:
            count += 1
        data = (b"\n" if self._mid_line else b"") + b"".join(waiting[:count])
        del waiting[:count]
        try:
            written = self._raw.write(data) or 0
            if 0 < written < len(data):
                written = self._write_rest(data, written)
        except (OSError, ValueError):  # ValueError: closed
            written = 0
        if written == len(data):
            self._lost, self._mid_line = 0, False
        elif written:
            complete = data.count(b"\n", 0, written) - self._mid_line
            if complete:
                self._lost = 0  # the first line has the number of those before it
            self._lost += count - complete
            self._mid_line = not data[:written].endswith(b"\n")
        else:
            self._lost += count

    def _write_rest(self, data: bytes, done: int) -> int:
        """Write as much of `data` as possible from `done` on, and return the number of bytes written in all."""
        try:
            while done < len(data):
                count = self._raw.write(data[done:])
                if not count:  # the file would block
                    break
                done += count
        except OSError:
            pass
        return done
