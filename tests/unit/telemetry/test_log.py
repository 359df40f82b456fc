"""Tests of the log: what lines have, what they never have, and what happens if they cannot be written."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import pytest
import structlog

from antiphon.config import ConfigError, LogConfig
from antiphon.telemetry import log, log_file
from antiphon.telemetry.log import Stream
from tests.unit.rpc.test_server import running
from tests.unit.scripted import ScriptedProvider

Lines = Callable[[], list[dict[str, Any]]]
KEY = "sk-caller-0123456789"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


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


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Configure the log for a file, and yield a function that returns its lines. Restore the log afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    file = tmp_path / "log"
    root.handlers[:] = []  # pytest's own handlers would be closed
    with file.open("ab", buffering=0) as opened:
        monkeypatch.setattr(log, "_open", lambda _file: opened)
        log.configure(LogConfig(level="debug", file=file), worker=3)
        structlog.configure(cache_logger_on_first_use=False)  # other tests use the same loggers
        yield lambda: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def headers(**fields: bytes) -> bytes:
    """Return an HTTP/2 HEADERS frame that calls a method with these headers added, without header compression."""
    known = {":method": b"POST", ":scheme": b"http", ":path": b"/antiphon.v1.ModelService/ListModels", ":authority": b"x"}
    grpc = {"te": b"trailers", "content-type": b"application/grpc"}
    block = b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value for name, value in {**known, **grpc, **fields}.items()
    )
    return len(block).to_bytes(3, "big") + bytes([1, 0x4, 0, 0, 0, 1]) + block


def data() -> bytes:
    """Return an HTTP/2 DATA frame with an empty message that ends the request."""
    return bytes([0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0])


async def test_a_header_that_is_not_readable_is_not_logged(lines: Lines, unused_tcp_port: int) -> None:
    """A header that is not readable is logged without its name and value."""
    async with running(ScriptedProvider(), unused_tcp_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        sent = headers(authorization=f"Bearer {KEY}".encode() + b"\xa0", cookie=b"session=TopSecret\xff")
        writer.write(PREFACE + SETTINGS + sent + data())
        async with asyncio.timeout(10):
            while not any(line["event"] == "call" for line in lines()):
                assert await reader.read(65536)
        writer.close()
        await writer.wait_closed()
    found = [line for line in lines() if line["event"] == "a header of a call is not readable"]
    assert found
    assert set(found[0]) == {"event", "level", "timestamp", "worker"}
    text = json.dumps(lines())
    assert not [secret for secret in (KEY, "TopSecret", "Bearer") if secret in text]


@pytest.mark.parametrize("name", ["grpc._cython.cygrpc", "asyncio", "aiohttp.client"])
def test_a_librarys_log_line_is_redacted(name: str, lines: Lines) -> None:
    """Secrets are removed from a library's log line, its extra fields and its traceback; file names stay."""
    try:
        int(f"Bearer {KEY}")
    except ValueError:
        logging.getLogger(name).exception("Unexpected %s", f"api_key={KEY}", extra={"header": ("authorization", f"Bearer {KEY}")})
    (line,) = lines()
    assert KEY not in json.dumps(line)
    assert line["event"] == "Unexpected api_key=[redacted]"
    assert (line["level"], line["worker"]) == ("error", 3)
    assert f'File "{__file__}"' in line["exception"]


def test_an_exception_on_a_line_of_ours_is_redacted(lines: Lines) -> None:
    """Secrets are removed from exceptions on our own log lines, because a library's error may repeat its input."""
    structlog.get_logger().error("call_failed", exc_info=ValueError(f"Illegal header value b'Bearer {KEY}'"))
    (line,) = lines()
    assert line["exception"] == "ValueError: Illegal header value b'Bearer [redacted]'"


def test_a_line_with_any_value_is_written(lines: Lines) -> None:
    """Values that JSON has no form for are written as text."""
    structlog.get_logger().info("odd", text="\ud800", number=2**70, path=Path("x"))
    (line,) = lines()
    assert (line["text"], line["number"], line["path"]) == ("\ud800", 2**70, "x")


def test_lines_that_cannot_be_written_are_counted() -> None:
    """The next line that can be written has the number of lost lines and begins on a new line."""
    disk = Disk(20)
    stream = Stream(disk)
    stream.write(b'{"n":1}\n')
    for number in range(2, 5):
        stream.write(b'{"n":%d,"long":true}\n' % number)
    disk.room = 1000
    stream.write(b'{"n":5}\n')
    stream.write(b'{"n":6}\n')
    first, _, *rest = disk.text.decode().splitlines()
    assert [json.loads(line) for line in (first, *rest)] == [{"n": 1}, {"lost": 3, "n": 5}, {"n": 6}]


async def test_lines_of_a_busy_server_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line is written at once, later ones together after a pause; an error, or another thread, lets none wait."""
    monkeypatch.setattr(log, "PAUSE", 0.02)
    disk = Disk(1000)
    stream = Stream(disk)
    with stream.collecting(asyncio.get_running_loop()):
        stream.write(b"1\n")
        assert disk.writes == [b"1\n"]
        stream.write(b"2\n")
        stream.write(b"3\n")
        assert len(disk.writes) == 1
        async with asyncio.timeout(10):
            while len(disk.writes) < 2:
                await asyncio.sleep(0.001)
        stream.write(b"4\n")
        stream.write_now(b"5\n")
        stream.write(b"6\n")
        await asyncio.to_thread(stream.write, b"7\n")
        stream.write(b"8\n")
    assert disk.writes == [b"1\n", b"2\n3\n", b"4\n5\n", b"6\n7\n", b"8\n"]
    stream.write(b"9\n")
    assert disk.text.endswith(b"9\n")


async def test_lines_that_were_to_be_written_together_are_counted_if_they_cannot() -> None:
    """Of lines that are written together, those are counted as lost that are not written whole."""
    disk = Disk(2 + 10 + 4)
    stream = Stream(disk)
    with stream.collecting(asyncio.get_running_loop()):
        stream.write(b"{}\n")
        for number in range(4):
            stream.write(b'{"n":%d}\n' % number)
    disk.room = 3
    stream.write(b'{"m":1}\n')
    disk.room = 1000
    stream.write(b'{"m":2}\n')
    found = disk.text.decode().splitlines()
    assert [found[0], found[1], found[-1]] == ["{}", '{"n":0}', '{"lost":4,"m":2}']


async def test_lost_lines_are_reported_once() -> None:
    """Of lines that are written together only the first may be whole: it says what was lost before, and the next line does not."""
    disk = Disk(3)
    stream = Stream(disk)
    with stream.collecting(asyncio.get_running_loop()):
        stream.write(b"{}\n")
        stream.write_now(b'{"n":1}\n')
        stream.write(b'{"n":2}\n')
        stream.write(b'{"n":3}\n')
        disk.room = len(b'{"lost":1,"n":2}\n{"n"')
    disk.room = 1000
    stream.write(b'{"n":4}\n')
    assert disk.text.decode().splitlines() == ["{}", '{"lost":1,"n":2}', '{"n"', '{"lost":1,"n":4}']


async def test_lines_that_are_written_together_fit_into_one_write_to_a_pipe() -> None:
    """The processes that share a pipe do not tear each other's lines, which the system guarantees up to `PIPE_BUF` bytes."""
    disk = Disk(100_000)
    stream = Stream(disk)
    lines = [b'{"n":%d,"text":"%s"}\n' % (number, b"x" * (number * 37 % 500)) for number in range(100)]
    with stream.collecting(asyncio.get_running_loop()):
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
    stream = Stream(disk)
    writer = threading.Thread(target=stream.write, args=(b"1\n",), daemon=True)
    writer.start()
    writer.join(10)
    assert disk.text == b"1\n2\n"
    assert not writer.is_alive()


def test_a_full_disk_breaks_neither_our_lines_nor_those_of_libraries(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a full disk logging neither raises nor prints anything."""
    disk = Disk(0)
    monkeypatch.setattr(log, "_open", lambda _file: disk)
    log.configure(LogConfig())
    structlog.configure(cache_logger_on_first_use=False)
    structlog.get_logger().info("one")
    logging.getLogger("asyncio").error("two")
    disk.room = 1000
    logging.getLogger("asyncio").error("three")
    line = json.loads(disk.text)
    assert (line["lost"], line["event"]) == (2, "three")
    assert capfd.readouterr() == ("", "")


def test_a_line_of_a_closed_file_is_lost(tmp_path: Path) -> None:
    """Writing to a closed file, as at the end of a process, does not raise."""
    file = (tmp_path / "log").open("ab", buffering=0)
    file.close()
    Stream(file).write(b"{}\n")


@pytest.mark.parametrize("path", ["nowhere/log", ".", "file/log"])
def test_a_log_file_that_cannot_be_opened_is_refused(path: str, tmp_path: Path) -> None:
    """A log file that cannot be opened is a `ConfigError` that names the setting, both when checked and when opened."""
    (tmp_path / "file").touch()
    config = LogConfig(file=tmp_path / path)
    for ask in (log_file.check, log.configure):
        with pytest.raises(ConfigError, match=r"^log\.file: /"):
            ask(config)


def test_a_check_makes_no_file(tmp_path: Path) -> None:
    """Checking the log's settings creates no file."""
    log_file.check(LogConfig(file=tmp_path / "log"))
    log_file.check(LogConfig())
    assert not list(tmp_path.iterdir())
