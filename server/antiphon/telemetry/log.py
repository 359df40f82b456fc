"""Structured logs: one JSON object per line, on a standard stream or in a file.

Every line of a call carries its request id. No key, no message of a conversation and no file path may reach a line: texts of
libraries and exceptions go through `antiphon.telemetry.redaction` first.

A line that cannot be written is lost, without any other effect. The next line that can be written has the number of lost lines in
the field `lost`.
"""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from antiphon.config import LogConfig
from antiphon.domain.call import log_fields
from antiphon.telemetry import log_file
from antiphon.telemetry.log_stream import LogStream, RawFile
from antiphon.telemetry.redaction import redact

STREAMS: Final = {"stdout": 1, "stderr": 2}

# A line of a traceback that names file and line. It is not redacted: a path looks like a key, but is needed.
_FRAME: Final = re.compile(r'[ |]*File "[^"\n]*", line \d+, in \S+')


def configure(config: LogConfig, **fields: Any) -> LogStream:
    """Set up logging for this process, with `fields` on each line, and return where the lines go.

    Raises `ConfigError` if the log file cannot be written.
    """
    level = getattr(logging, config.level.upper())
    stream = LogStream(_open(config))

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


class _Lines:
    """The logger that structlog calls with each finished line, by the name of its level."""

    def __init__(self, stream: LogStream) -> None:
        self.debug = self.info = stream.write
        self.warning = self.error = self.critical = stream.write_now


class _TextStream:
    """A text interface to a `LogStream`, for the handler of the standard library."""

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write_now(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        pass


def _open(config: LogConfig) -> RawFile:
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
