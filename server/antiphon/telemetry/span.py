"""A span of a trace, and its bytes in OTLP (https://opentelemetry.io/docs/specs/otlp/).

Attributes become bytes when they are added, and a span soon after its call has ended. As objects the spans that wait for their
export would take 2 kB each, and slow down all other work by what they take of the processor's cache. The bytes are written here,
as protobuf's messages take three times as long (docs/adr/0009).
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import Final

from msgspec import Struct
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import (
    SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK,
    SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK,
    ScopeSpans,
    Status,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

from antiphon.domain.trace import TraceContext
from antiphon.telemetry.wire import sized, tag, varint

Value = str | bool | int | float

SERVER: Final = Message.SPAN_KIND_SERVER
CLIENT: Final = Message.SPAN_KIND_CLIENT


class Span(Struct):
    """A span that has not ended. Times are in nanoseconds since 1970, ids in hexadecimal digits."""

    name: str
    kind: Message.SpanKind.ValueType
    """`SERVER` or `CLIENT`."""
    context: TraceContext
    parent_id: str
    """The id of the span above; empty if there is none."""
    start: int
    is_parent_remote: bool = False
    is_error: bool = False
    end: int | None = None
    """None: the span ends when it is encoded."""
    attributes: bytes = b""
    """Results of `encode_attribute` and `encode_unique`, one after the other. No name may occur twice."""

    def encode(self) -> bytes:
        """Return the span as a field of the message `opentelemetry.proto.trace.v1.ScopeSpans`."""
        ids, parent_id = self.context, self.parent_id
        encoded = b"".join(
            (
                _IDS.pack(_TRACE_ID, bytes.fromhex(ids.trace_id), _SPAN_ID, bytes.fromhex(ids.span_id)),
                _PARENT_ID + bytes.fromhex(parent_id) if parent_id else b"",
                sized(_STATE, ids.state.encode()) if ids.state else b"",
                _TIMES.pack(_START, self.start, _END, self.end or time.time_ns()),
                _encode_rest(self.name, self.kind, is_parent_remote=self.is_parent_remote, is_error=self.is_error),
                self.attributes,
            )
        )
        return _SPAN + varint(len(encoded)) + encoded


@lru_cache(1024, typed=True)  # typed, as True equals 1
def encode_attribute(name: str, value: Value) -> bytes:
    """Return an attribute as a field of a span's message; `encode_unique` is for values that hardly ever recur."""
    if isinstance(value, str):
        encoded = sized(_STRING, value.encode())
    elif isinstance(value, bool):
        encoded = _BOOL + varint(value)
    elif isinstance(value, int):
        encoded = _INT + varint(value & 0xFFFF_FFFF_FFFF_FFFF)  # negative ones in two's complement
    else:
        encoded = _DOUBLE + _FLOAT.pack(value)
    return sized(_ATTRIBUTE, sized(_KEY, name.encode()) + sized(_VALUE, encoded))


def encode_unique(name: str, value: str | float) -> bytes:
    """Return the same as `encode_attribute`, and remember only what comes before the value."""
    data = value.encode() if isinstance(value, str) else _FLOAT.pack(value)
    return _before(name, len(data), is_text=isinstance(value, str)) + data


@lru_cache(1024)
def _before(name: str, size: int, *, is_text: bool) -> bytes:
    """Return an attribute up to its value, which has `size` bytes."""
    return encode_attribute(name, "x" * size if is_text else 0.0).removesuffix(b"x" * size if is_text else _FLOAT.pack(0.0))


_TRACE_ID: Final = tag(Message.TRACE_ID_FIELD_NUMBER) + varint(16)
_SPAN_ID: Final = tag(Message.SPAN_ID_FIELD_NUMBER) + varint(8)
_PARENT_ID: Final = tag(Message.PARENT_SPAN_ID_FIELD_NUMBER) + varint(8)
_STATE: Final = tag(Message.TRACE_STATE_FIELD_NUMBER)
_START: Final = tag(Message.START_TIME_UNIX_NANO_FIELD_NUMBER, 1)
_END: Final = tag(Message.END_TIME_UNIX_NANO_FIELD_NUMBER, 1)
_ATTRIBUTE: Final = tag(Message.ATTRIBUTES_FIELD_NUMBER)
_KEY: Final = tag(KeyValue.KEY_FIELD_NUMBER)
_VALUE: Final = tag(KeyValue.VALUE_FIELD_NUMBER)
_STRING: Final = tag(AnyValue.STRING_VALUE_FIELD_NUMBER)
_BOOL: Final = tag(AnyValue.BOOL_VALUE_FIELD_NUMBER, 0)
_INT: Final = tag(AnyValue.INT_VALUE_FIELD_NUMBER, 0)
_DOUBLE: Final = tag(AnyValue.DOUBLE_VALUE_FIELD_NUMBER, 1)
_SPAN: Final = tag(ScopeSpans.SPANS_FIELD_NUMBER)

_IDS: Final = struct.Struct("<2s16s2s8s")
_TIMES: Final = struct.Struct("<sQsQ")
_FLOAT: Final = struct.Struct("<d")


@lru_cache(1024)
def _encode_rest(name: str, kind: Message.SpanKind.ValueType, *, is_parent_remote: bool, is_error: bool) -> bytes:
    """Return the fields that are the same for many spans."""
    flags: int = SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    if is_parent_remote:
        flags |= SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    code = Status.STATUS_CODE_ERROR if is_error else Status.STATUS_CODE_UNSET
    return Message(name=name, kind=kind, flags=flags, status=Status(code=code)).SerializeToString()
