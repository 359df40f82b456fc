"""Structured logs: one JSON object per line, on a standard stream or in a file.

Every line of a call carries its request id. No key, no message of a conversation and no file path may reach a line: texts of
libraries and exceptions go through `antiphon.telemetry.redaction` first.

A line that cannot be written is lost, without any other effect. The next line that can be written has the number of lost lines in
the field `lost`.

A busy server writes the lines of several calls together, as each write takes longer than all else of a line (`Stream.collecting`).
"""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any, Final, Protocol

import orjson
import structlog

from antiphon.config import LogConfig
from antiphon.domain.call import log_fields
from antiphon.telemetry import log_file
from antiphon.telemetry.redaction import redact

STREAMS: Final = {"stdout": 1, "stderr": 2}

PAUSE: Final = 0.01
"""Seconds between two writes of a server, unless there is a warning or an error to write."""

# A line of a traceback that names file and line. It is not redacted: a path looks like a key, but is needed.
_FRAME: Final = re.compile(r'[ |]*File "[^"\n]*", line \d+, in \S+')


def configure(config: LogConfig, **fields: Any) -> Stream:
    """Set up logging for this process, with `fields` on each line, and return where the lines go.

    Raises `ConfigError` if the log file cannot be written.
    """
    level = getattr(logging, config.level.upper())
    stream = Stream(_open(config))

    def with_context(_logger: Any, level: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        """Return the event with what every line says: of its call, and of this process."""
        event = {**log_fields(), **event, "level": _LEVELS.get(level, level), "timestamp": datetime.now(UTC), **fields}
        return _with_traceback(event) if "exc_info" in event else event

    structlog.configure(
        processors=[with_context, _line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_names: _Lines(stream),
        cache_logger_on_first_use=True,
    )
    # Lines of libraries, which use the standard `logging`, get the same form.
    handler = logging.StreamHandler(_TextStream(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _redact_library, with_context],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda logger, level, event: _line(logger, level, event).decode().removesuffix("\n"),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return stream


_LEVELS: Final = {"warn": "warning", "exception": "error"}
"""Methods of a logger that are not named as their level."""


class _RawFile(Protocol):
    """An unbuffered binary file, as `Stream` needs it."""

    def write(self, data: bytes, /) -> int | None: ...


class Stream:
    """A file of whole lines that counts the lines it cannot write, and never raises `OSError`.

    It has no buffer of the library, which would try to write a failed line again with each later one. Lines written together
    have at most `PIPE_BUF` bytes: a pipe takes those as a whole, and the workers of a server share one.
    """

    def __init__(self, raw: _RawFile) -> None:
        self._raw = raw
        # This thread may log while it has the lock: Python collects garbage at any time, and finalizers log.
        self._lock = threading.RLock()
        self._is_writing = False
        self._lost = 0
        self._mid_line = False
        """Whether what was written last is not the end of a line."""
        self._waiting: list[bytes] = []
        self._loop: AbstractEventLoop | None = None
        """The event loop whose lines may wait."""
        self._thread = 0
        """The thread that it runs in."""
        self._timer: TimerHandle | None = None
        self._written_at = 0.0

    @contextmanager
    def collecting(self, loop: AbstractEventLoop) -> Iterator[None]:
        """Write at most every `PAUSE` seconds what the thread of `loop`, this one, logs: the first line at once, more together."""
        self._thread, self._loop = threading.get_ident(), loop
        try:
            yield
        finally:
            with self._lock:
                self._loop = None
            self._write_waiting()

    def write(self, line: bytes) -> None:
        """Write a line, which must end with a newline. It may wait for a moment; see `collecting`."""
        loop = self._loop
        if loop is None or threading.get_ident() != self._thread:
            self.write_now(line)
            return
        left = self._written_at + PAUSE - loop.time()
        if left <= 0:
            self.write_now(line)
            return
        with self._lock:
            self._waiting.append(line)
        if self._timer is None:
            self._timer = loop.call_later(left, self._write_waiting)

    def write_now(self, line: bytes) -> None:
        """Write a line, which must end with a newline, after those that wait."""
        with self._lock:
            self._waiting.append(line)
            self._write_all()

    def _write_waiting(self) -> None:
        self._timer = None
        with self._lock:
            self._write_all()

    def _write_all(self) -> None:
        """Write what waits. Does nothing if this thread is in the midst of it, as that takes the new line, too."""
        if self._is_writing or not self._waiting:
            return
        self._is_writing = True
        try:
            while self._waiting:
                self._write_lines(self._take())
        finally:
            self._is_writing = False
        if self._loop is not None:
            self._written_at = self._loop.time()

    def _take(self) -> list[bytes]:
        """Return the next lines to write. If lines before them were lost, add their number to the first one as the field `lost`."""
        waiting = self._waiting
        if self._lost and waiting[0].startswith(b"{"):
            waiting[0] = b'{"lost":%d,' % self._lost + waiting[0][1:]
        count, size = 1, self._mid_line + len(waiting[0])
        while count < len(waiting) and (size := size + len(waiting[count])) <= PIPE_BUF:
            count += 1
        lines = waiting[:count]
        del waiting[:count]
        return lines

    def _write_lines(self, lines: list[bytes]) -> None:
        data = (b"\n" if self._mid_line else b"") + b"".join(lines)
        try:
            written = self._raw.write(data) or 0
            if 0 < written < len(data):
                written = self._write_rest(data, written)
        except (OSError, ValueError):  # ValueError: closed
            written = 0
        if written == len(data):
            self._lost, self._mid_line = 0, False
        elif written:
            whole = data.count(b"\n", 0, written) - self._mid_line
            self._lost = len(lines) - whole + (0 if whole else self._lost)  # the first line says how many were lost before
            self._mid_line = not data[:written].endswith(b"\n")
        else:
            self._lost += len(lines)

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


class _Lines:
    """The logger that structlog calls with each finished line, by the name of its level."""

    def __init__(self, stream: Stream) -> None:
        self.debug = self.info = stream.write
        self.warning = self.error = self.critical = stream.write_now


class _TextStream:
    """A text interface to a `Stream`, for the handler of the standard library."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write_now(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        pass


def _open(config: LogConfig) -> _RawFile:
    if config.file is None:
        return io.FileIO(STREAMS[config.stream], "wb", closefd=False)
    return log_file.open_(config.file)


def _redact_library(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Return the event of a library with its texts redacted: they may repeat a caller's headers."""
    record: logging.LogRecord = event["_record"]
    if record.name.startswith("grpc") and str(record.msg).startswith("Invalid encoding"):
        # gRPC logs the whole header, before the caller's key is checked.
        return {"event": "a header of a call is not readable", "_record": record, "_from_structlog": False}
    return {
        name: value if name == "exc_info" or name.startswith("_") or isinstance(value, int | float | None) else redact(str(value))
        for name, value in event.items()
    }


def _with_traceback(event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Replace the exception of an event by its traceback, redacted but for the lines that name a file and a line number."""
    event = structlog.processors.format_exc_info(None, "", event)
    if isinstance(exception := event.get("exception"), str):
        lines = exception.split("\n")
        event["exception"] = "\n".join(line if _FRAME.fullmatch(line) else redact(line) for line in lines)
    return event


_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


def _line(_logger: Any, _level: str, event: structlog.types.EventDict) -> bytes:
    """Return the line of an event."""
    try:
        return orjson.dumps(event, default=str, option=_OPTIONS)
    except TypeError:  # a number beyond 64 bits, or a text that is not Unicode
        event["timestamp"] = event["timestamp"].isoformat().replace("+00:00", "Z")
        return json.dumps(event, default=str).encode() + b"\n"
