"""Tests of where the lines of the log go: which are written when, and what happens if they cannot be."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import pytest

from antiphon.telemetry.log_stream import BUSY, PAUSE, LogStream


class Disk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.text = b""
        self.writes: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = data[: self.room]
        self.room -= len(written)
        self.text += written
        self.writes.append(written)
        return len(written)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that is not run, with a clock and at most one timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.timer: tuple[float, Callable[[], object]] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.TimerHandle:
        assert self.timer is None
        self.timer = self.now + delay, lambda: callback(*args)
        return asyncio.TimerHandle(self.now + delay, callback, args, self, context)

    def wait(self) -> float:
        """Go on to the time of the timer, run it, and return how long that took."""
        assert self.timer is not None
        (at, run), self.timer = self.timer, None
        waited, self.now = at - self.now, at
        run()
        return waited


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_lines_that_cannot_be_written_are_counted() -> None:
    """The next line that can be written has the number of lost lines and begins on a new line."""
    disk = Disk(20)
    stream = LogStream(disk)
    stream.write(b'{"n":1}\n')
    for number in range(2, 5):
        stream.write(b'{"n":%d,"long":true}\n' % number)
    disk.room = 1000
    stream.write(b'{"n":5}\n')
    stream.write(b'{"n":6}\n')
    first, _, *rest = disk.text.decode().splitlines()
    assert [json.loads(line) for line in (first, *rest)] == [{"n": 1}, {"lost": 3, "n": 5}, {"n": 6}]


def busy(disk: Disk, loop: Loop) -> LogStream:
    """Return a stream that has logged so much that its lines wait. The disk is empty."""
    stream, room = LogStream(disk), disk.room
    disk.room = 1000
    stream._thread, stream._loop = threading.get_ident(), loop
    for _ in range(BUSY + 1):
        stream.write(b"\n")
    loop.now += PAUSE
    disk.text, disk.writes, disk.room = b"", [], room
    return stream


def test_lines_of_a_busy_server_are_written_together(loop: Loop) -> None:
    """They wait until the end of the pause."""
    disk = Disk(1000)
    stream = busy(disk, loop)
    stream.write(b"1\n")
    loop.now += PAUSE / 4
    stream.write(b"2\n")
    stream.write(b"3\n")
    assert disk.writes == []
    assert loop.wait() == pytest.approx(PAUSE * 3 / 4)
    assert disk.writes == [b"1\n2\n3\n"]


def test_lines_that_wait_are_written_at_the_end(loop: Loop) -> None:
    """No line is lost when the server stops, and lines after that do not wait."""
    disk = Disk(1000)
    stream = busy(disk, loop)
    with stream.collecting(loop):
        stream.write(b"1\n")
        assert disk.writes == []
    stream.write(b"2\n")
    assert disk.writes == [b"1\n", b"2\n"]


def test_a_server_that_is_not_busy_writes_each_line_at_once(loop: Loop) -> None:
    """Whoever has got the answer to a call finds its line in the log, unless there are hundreds of calls a second."""
    disk = Disk(1000)
    stream = busy(disk, loop)
    with stream.collecting(loop):
        loop.now += 2 * PAUSE
        for number in range(100):
            stream.write(b"1\n")
            assert len(disk.writes) == number + 1
            loop.now += 1.1 * PAUSE / BUSY


def test_a_line_of_another_thread_is_written_at_once(loop: Loop) -> None:
    """Another thread's line is written at once, after the lines that wait."""
    disk = Disk(1000)
    stream = busy(disk, loop)
    with stream.collecting(loop):
        stream.write(b"2\n")
        other = threading.Thread(target=stream.write, args=(b"3\n",))
        other.start()
        other.join(10)
        assert disk.writes == [b"2\n3\n"]


def test_of_lines_that_are_written_together_those_that_are_not_whole_are_counted(loop: Loop) -> None:
    """If only a part of several lines can be written, the lines that are not whole are lost."""
    disk = Disk(len(b'{}\n{"n":0}\n{"n":'))
    stream = busy(disk, loop)
    with stream.collecting(loop):
        stream.write(b"{}\n")
        for number in range(4):
            stream.write(b'{"n":%d}\n' % number)
    disk.room = len(b'\n{"')
    stream.write(b'{"m":1}\n')
    disk.room = 1000
    stream.write(b'{"m":2}\n')
    assert disk.text.decode().splitlines() == ["{}", '{"n":0}', '{"n":', '{"', '{"lost":4,"m":2}']


def test_lost_lines_are_reported_once(loop: Loop) -> None:
    """Lost lines that a line has reported are not counted again if the line after it, in the same write, is lost."""
    disk = Disk(0)
    stream = busy(disk, loop)
    with stream.collecting(loop):
        for _ in range(3):
            stream.write_now(b'{"n":1}\n')
        stream.write(b'{"n":2}\n')
        stream.write(b'{"n":3}\n')
        disk.room = len(b'{"lost":3,"n":2}\n{"')
    disk.room = 1000
    stream.write(b'{"n":4}\n')
    assert disk.text.decode().splitlines() == ['{"lost":3,"n":2}', '{"', '{"lost":1,"n":4}']


def test_lines_that_are_written_together_fit_into_one_write_to_a_pipe(loop: Loop) -> None:
    """The processes that share a pipe do not tear each other's lines, which the system guarantees up to `PIPE_BUF` bytes."""
    disk = Disk(100_000)
    stream = busy(disk, loop)
    lines = [b'{"n":%d,"text":"%s"}\n' % (number, b"x" * (number * 37 % 500)) for number in range(100)]
    with stream.collecting(loop):
        for line in lines:
            stream.write(line)
    assert disk.text == b"".join(lines)
    assert all(len(write) <= PIPE_BUF and write.endswith(b"\n") for write in disk.writes)
    assert len(disk.writes) < 12


def test_a_line_that_is_logged_while_another_is_written_comes_after_it() -> None:
    """A finalizer may log whenever Python collects garbage: within a write, too."""

    class LoggingDisk(Disk):
        def write(self, data: bytes, /) -> int:
            written = super().write(data)
            if data == b"1\n":
                stream.write_now(b"2\n")
            return written

    disk = LoggingDisk(1000)
    stream = LogStream(disk)
    writer = threading.Thread(target=stream.write, args=(b"1\n",), daemon=True)
    writer.start()
    writer.join(10)
    assert disk.text == b"1\n2\n"
    assert not writer.is_alive()


def test_a_line_of_a_closed_file_is_lost(tmp_path: Path) -> None:
    """Writing to a closed file, as at the end of a process, does not raise."""
    file = (tmp_path / "log").open("ab", buffering=0)
    file.close()
    LogStream(file).write(b"{}\n")
