"""A span of a trace, and its bytes in OTLP (https://opentelemetry.io/docs/specs/otlp/).

Attributes become bytes when they are added, and a span when it ends. As objects the spans that wait for their export would take
2 kB each, and slow down all other work by what they take of the processor's cache. The bytes are written here, as protobuf's
messages take three times as long (docs/adr/0009); the format is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import Final

from msgspec import Struct, field
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from antiphon.domain.trace import TraceContext

Value = str | bool | int | float

SERVER: Final = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT: Final = trace_pb2.Span.SPAN_KIND_CLIENT


class Span(Struct):
    """A span that has not ended. Times are in nanoseconds since 1970, ids in hexadecimal digits."""

    name: str
    kind: trace_pb2.Span.SpanKind.ValueType
    """`SERVER` or `CLIENT`."""
    context: TraceContext
    parent_id: str
    """The id of the span above; empty if there is none."""
    start: int
    is_parent_remote: bool = False
    is_error: bool = False
    end: int | None = None
    """None: the span ends when it is encoded."""
    attributes: list[bytes] = field(default_factory=list)
    """As returned by `encode_attribute`."""

    def add(self, name: str, value: Value) -> None:
        """Add an attribute. No name may be added twice."""
        self.attributes.append(encode_attribute(name, value))

    def encode(self) -> bytes:
        """Return the span as a message `opentelemetry.proto.trace.v1.Span`."""
        ids, times, state = self.context, _TIMES.pack(_START, self.start, _END, self.end or time.time_ns()), self.context.state
        return b"".join(
            (
                _IDS.pack(_TRACE_ID, bytes.fromhex(ids.trace_id), _SPAN_ID, bytes.fromhex(ids.span_id)),
                _sized(_PARENT_ID, bytes.fromhex(self.parent_id)) if self.parent_id else b"",
                _sized(_STATE, state.encode()) if state else b"",
                times,
                _encode_rest(self.name, self.kind, is_parent_remote=self.is_parent_remote, is_error=self.is_error),
                *self.attributes,
            )
        )


@lru_cache(1024, typed=True)  # most are the same from call to call; typed, as True equals 1
def encode_attribute(name: str, value: Value) -> bytes:
    """Return an attribute as a field of a span's message."""
    if isinstance(value, str):
        encoded = _sized(_STRING, value.encode())
    elif isinstance(value, bool):
        encoded = _BOOL + _varint(value)
    elif isinstance(value, int):
        encoded = _INT + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)  # negative ones in two's complement
    else:
        encoded = _DOUBLE + struct.pack("<d", value)
    return _sized(_ATTRIBUTE, _encode_key(name) + _sized(_VALUE, encoded))


_BYTES: Final = [bytes((value,)) for value in range(128)]


def _varint(value: int) -> bytes:
    if value < 128:
        return _BYTES[value]
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _tag(number: int, kind: int = 2) -> bytes:
    """Return what a field with this number begins with. `kind` is that of its value: 2 for what has a size in front."""
    return _varint(number << 3 | kind)


_MESSAGE: Final = trace_pb2.Span
_TRACE_ID: Final = _tag(_MESSAGE.TRACE_ID_FIELD_NUMBER) + _varint(16)
_SPAN_ID: Final = _tag(_MESSAGE.SPAN_ID_FIELD_NUMBER) + _varint(8)
_PARENT_ID: Final = _tag(_MESSAGE.PARENT_SPAN_ID_FIELD_NUMBER)
_STATE: Final = _tag(_MESSAGE.TRACE_STATE_FIELD_NUMBER)
_START: Final = _tag(_MESSAGE.START_TIME_UNIX_NANO_FIELD_NUMBER, 1)
_END: Final = _tag(_MESSAGE.END_TIME_UNIX_NANO_FIELD_NUMBER, 1)
_ATTRIBUTE: Final = _tag(_MESSAGE.ATTRIBUTES_FIELD_NUMBER)
_KEY: Final = _tag(KeyValue.KEY_FIELD_NUMBER)
_VALUE: Final = _tag(KeyValue.VALUE_FIELD_NUMBER)
_STRING: Final = _tag(AnyValue.STRING_VALUE_FIELD_NUMBER)
_BOOL: Final = _tag(AnyValue.BOOL_VALUE_FIELD_NUMBER, 0)
_INT: Final = _tag(AnyValue.INT_VALUE_FIELD_NUMBER, 0)
_DOUBLE: Final = _tag(AnyValue.DOUBLE_VALUE_FIELD_NUMBER, 1)

_IDS: Final = struct.Struct("<2s16s2s8s")
_TIMES: Final = struct.Struct("<sQsQ")


@lru_cache(1024)
def _encode_rest(name: str, kind: trace_pb2.Span.SpanKind.ValueType, *, is_parent_remote: bool, is_error: bool) -> bytes:
    """Return the fields that are the same for many spans."""
    flags: int = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    if is_parent_remote:
        flags |= trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    code = trace_pb2.Status.STATUS_CODE_ERROR if is_error else trace_pb2.Status.STATUS_CODE_UNSET
    return _MESSAGE(name=name, kind=kind, flags=flags, status=trace_pb2.Status(code=code)).SerializeToString()


@lru_cache(256)
def _encode_key(name: str) -> bytes:
    return _sized(_KEY, name.encode())
