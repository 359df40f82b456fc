"""A span of a trace: its fields while it is being recorded, and its bytes in OTLP.

The format is that of https://opentelemetry.io/docs/specs/otlp/. A span becomes bytes at once when it ends: as objects, spans that
wait for their export would take 2 kB each, and slow down all other work by what they take of the processor's cache.
"""

from __future__ import annotations

import time
from enum import IntEnum
from functools import lru_cache
from typing import Final

from msgspec import Struct
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from antiphon.domain.trace import TraceContext

_ERROR: Final = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR)
_UNSET: Final = trace_pb2.Status()

_LOCAL: Final = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _LOCAL | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Kind(IntEnum):
    """Whose work a span is: ours for a caller, or a provider's for us."""

    SERVER = trace_pb2.Span.SPAN_KIND_SERVER
    CLIENT = trace_pb2.Span.SPAN_KIND_CLIENT


class Span(Struct):
    """A span that has not been exported. Times are in nanoseconds since 1970."""

    name: str
    kind: Kind
    context: TraceContext
    parent_id: str
    """The id of the span above, in hexadecimal digits; empty if there is none."""
    start: int
    attributes: dict[str, bool | int | float | str]
    is_parent_remote: bool = False
    is_error: bool = False
    end: int | None = None
    """None: the span ends when it is encoded."""

    def encode(self) -> bytes:
        """Return the span as a message `opentelemetry.proto.trace.v1.Span`."""
        head = trace_pb2.Span(
            trace_id=bytes.fromhex(self.context.trace_id),
            span_id=bytes.fromhex(self.context.span_id),
            trace_state=self.context.state,
            parent_span_id=bytes.fromhex(self.parent_id),
            name=self.name,
            kind=self.kind,  # type: ignore[arg-type]  # the stubs know no IntEnum
            start_time_unix_nano=self.start,
            end_time_unix_nano=self.end or time.time_ns(),
            status=_ERROR if self.is_error else _UNSET,
            flags=_REMOTE if self.is_parent_remote else _LOCAL,
        )
        # Bytes of messages in a row are one message with the fields of all.
        return head.SerializeToString() + b"".join([_encode(name, value) for name, value in self.attributes.items()])


@lru_cache(1024, typed=True)  # nearly all are the same from call to call; typed, as True equals 1
def _encode(name: str, value: bool | float | str) -> bytes:
    """Return the bytes of a span that has only this attribute."""
    match value:
        case bool():
            encoded = AnyValue(bool_value=value)
        case int():
            encoded = AnyValue(int_value=value)
        case float():
            encoded = AnyValue(double_value=value)
        case _:
            encoded = AnyValue(string_value=str(value))
    return trace_pb2.Span(attributes=[KeyValue(key=name, value=encoded)]).SerializeToString()
