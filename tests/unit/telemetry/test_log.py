"""Tests of the log: what lines have, what they never have, and what happens if they cannot be written."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from antiphon.config import ConfigError, LogConfig
from antiphon.telemetry import log, log_file
from antiphon.telemetry.log_stream import BUSY, PAUSE
from tests.unit.rpc.test_server import running
from tests.unit.scripted import ScriptedProvider
from tests.unit.telemetry.test_log_stream import Disk, Loop

Lines = Callable[[], list[dict[str, Any]]]
KEY = "sk-caller-0123456789"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


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


def test_warnings_errors_and_lines_of_libraries_do_not_wait(lines: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lines above the level info, and those of libraries, are written at once, after the lines that wait."""
    with (tmp_path / "log").open("ab", buffering=0) as opened, closing(Loop()) as loop:
        monkeypatch.setattr(log, "_open", lambda _config: opened)
        stream = log.configure(LogConfig(level="debug"))
        ours = structlog.get_logger()
        with stream.collecting(loop):
            for _ in range(BUSY + 1):
                ours.info("first")
            loop.now += PAUSE
            for write in (ours.warning, ours.error, ours.critical, logging.getLogger("library").warning):
                ours.info("waits")
                ours.debug("waits")
                before = lines()
                write("does not wait")
                assert [line["event"] for line in lines()[len(before) :]] == ["waits", "waits", "does not wait"]


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
