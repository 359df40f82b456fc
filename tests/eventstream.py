"""Writes messages of Amazon's binary event streams, as Bedrock sends them."""

import json
import struct
from typing import Any
from zlib import crc32

STRING = 7


def header(name: str, value: bytes | str, kind: int = STRING) -> bytes:
    """Return a header. Bytes are the value in its own form, a text is a string with its length."""
    written = value if isinstance(value, bytes) else struct.pack(">H", len(value.encode())) + value.encode()
    return bytes([len(name)]) + name.encode() + bytes([kind]) + written


def message(headers: bytes, payload: bytes) -> bytes:
    """Return a message with its checksums."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    data = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return data + struct.pack(">I", crc32(data))


def event(kind: str, fields: Any) -> bytes:
    """Return an event. Its fields are JSON, unless they are bytes already."""
    payload = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    headers = header(":event-type", kind) + header(":content-type", "application/json") + header(":message-type", "event")
    return message(headers, payload)


def exception(kind: str, fields: dict[str, Any]) -> bytes:
    """Return an exception within a stream."""
    headers = header(":exception-type", kind) + header(":content-type", "application/json")
    return message(headers + header(":message-type", "exception"), json.dumps(fields).encode())


def stream(*events: dict[str, Any]) -> bytes:
    """Return events, each given as an object of one field, whose name is that of the event."""
    return b"".join(event(kind, fields) for one in events for kind, fields in one.items())
