"""Structured logs: one JSON object a line, on a standard stream or in a file.

Every line of a call carries its request id. No key, no message of a conversation and no path reaches a line: what libraries and
exceptions say goes through `antiphon.telemetry.redaction` first.

A line that cannot be written is lost, and breaks nothing: the next one that can be written tells, in `lost`, how many were.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from typing import Any, Final, Protocol

import orjson
import structlog

from antiphon.config import ConfigError, LogConfig
from antiphon.telemetry.private_file import open_private
from antiphon.telemetry.redaction import redact

STREAMS: Final = {"stdout": 1, "stderr": 2}

# Where a frame of a traceback is: a path looks like a key, and is needed.
_FRAME: Final = re.compile(r'[ |]*File "[^"\n]*", line \d+, in \S+')


def configure(config: LogConfig, **fields: Any) -> None:
    """Sets up logging for this process; `fields` are on each of its lines. Raises `ConfigError` if the file cannot be written."""
    level = getattr(logging, config.level.upper())
    stream = Stream(_open(config))
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**event, **fields},
    ]
    failure: list[structlog.types.Processor] = [structlog.processors.format_exc_info, _redact_exception]
    structlog.configure(
        processors=[*shared, *failure, lambda _logger, _method, event: _dumps(event)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(stream),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=True,
    )
    # Lines of libraries take the same form.
    handler = logging.StreamHandler(_Text(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _redact_library, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *failure,
                lambda _logger, _method, event: _dumps(event).decode(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def check(config: LogConfig) -> None:
    """Raises `ConfigError` if the file cannot be written. Makes none."""
    if config.file is None:
        return
    if config.file.is_dir():
        raise ConfigError(f"log.file: {config.file}: is a folder")
    folder = config.file.parent
    if not folder.is_dir():
        raise ConfigError(f"log.file: {config.file}: there is no folder {folder}")
    if not os.access(config.file if config.file.exists() else folder, os.W_OK):
        raise ConfigError(f"log.file: {config.file}: may not be written")


class _Raw(Protocol):
    """What `Stream` writes to: an unbuffered file."""

    def write(self, data: bytes, /) -> int | None: ...


class Stream:
    """Writes whole lines to a file, and counts those that it cannot: never raises `OSError`.

    Nothing is buffered: what could not be written would come again with each line after it.
    """

    def __init__(self, raw: _Raw) -> None:
        self._raw = raw
        self._lock = threading.Lock()
        self._lost = 0
        self._torn = False
        """Whether what was written last is not the end of a line."""

    def write(self, line: bytes) -> None:
        """Writes a line, which ends with a newline and, if lines were lost before it, tells of them in `lost`."""
        with self._lock:
            told = line
            if self._lost and line.startswith(b"{"):
                told = b'{"lost":%d,' % self._lost + line[1:]
            if self._torn:
                told = b"\n" + told
            try:
                written = self._all_of(told)
            except ValueError:  # closed
                written = 0
            self._lost = 0 if written == len(told) else self._lost + 1
            if written:
                self._torn = not told[:written].endswith(b"\n")

    def _all_of(self, data: bytes) -> int:
        """Writes as much as can be, and returns how much that is."""
        done = 0
        try:
            while done < len(data):
                count = self._raw.write(data[done:])
                if not count:  # it would have to wait
                    break
                done += count
        except OSError:
            pass
        return done

    def flush(self) -> None:
        """There is nothing to flush."""


class _Text:
    """A text face of a stream, for the standard library's handler."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        pass


def _open(config: LogConfig) -> _Raw:
    if config.file is None:
        return io.FileIO(STREAMS[config.stream], "wb", closefd=False)
    try:
        return open_private(config.file)
    except OSError as error:
        raise ConfigError(f"log.file: {config.file}: {error.strerror}") from error


def _redact_library(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What a library says, without what it repeats of a caller's headers."""
    record: logging.LogRecord = event["_record"]
    if record.name.startswith("grpc") and str(record.msg).startswith("Invalid encoding"):
        # gRPC prints the header, and does so before the caller's key is looked at.
        return {"event": "a header of a call is not readable", "_record": record, "_from_structlog": False}
    return {
        name: value if name == "exc_info" or name.startswith("_") or isinstance(value, int | float | None) else redact(str(value))
        for name, value in event.items()
    }


def _redact_exception(_logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """The traceback, if the line has one, without what is shaped like a key in it."""
    if isinstance(exception := event.get("exception"), str):
        lines = exception.split("\n")
        event["exception"] = "\n".join(line if _FRAME.fullmatch(line) else redact(line) for line in lines)
    return event


def _dumps(event: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a number beyond 64 bits, or a text that is not Unicode
        return json.dumps(event, default=str).encode()
