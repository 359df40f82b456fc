"""JSON as the dialects write it, alone and in events."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"
COMMENT: Final = b": waiting\n\n"
"""An event stream's sign of life; its readers pass over it."""


def dumps(value: Any) -> bytes:
    """JSON in which no character can be taken for the end of a line: some readers split at more of them than the standard has."""
    try:
        data = orjson.dumps(value)
    except orjson.JSONEncodeError:
        data = msgspec.json.encode(value)  # an integer of more than 64 bits
    if not data.isascii():
        for raw, escaped in ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029")):
            data = data.replace(raw, escaped)
    return data


def event(value: Any) -> bytes:
    """One server-sent event. What a model says cannot end it, nor begin another."""
    return b"data: " + dumps(value) + b"\n\n"
