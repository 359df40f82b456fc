"""The trace context of a call, in the headers of W3C Trace Context (https://www.w3.org/TR/trace-context/). No I/O."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
"""Data of other tracing systems. It is passed on unchanged, or dropped if it does not match this."""

_SAMPLED: Final = 1


class TraceContext(Struct, frozen=True):
    """A trace, and the span that is the parent of the next one. The ids are lower-case hexadecimal, of 32 and 16 digits."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED
    """Bit flags. The lowest bit means that spans are recorded."""
    state: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the context in a request."""
        headers = {TRACEPARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        if self.state:
            headers[TRACESTATE] = self.state
        return headers


def trace_of(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the trace context in these headers; None if there is no valid one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[5] and found[1] == "00"):  # versions after 00 may have more fields
        return None
    flags = int(found[4], 16) & (_SAMPLED | 2)  # the bits that version 00 and its second level define
    return TraceContext(found[2], found[3], flags, tracestate if _TRACESTATE.fullmatch(tracestate) else "")


_OUTGOING: ContextVar[TraceContext | None] = ContextVar("outgoing_trace", default=None)


def set_outgoing_trace(trace: TraceContext | None) -> None:
    """Set the trace context of all requests that this task makes from now on. None: they carry none."""
    _OUTGOING.set(trace)


def outgoing_trace() -> TraceContext | None:
    """Return the trace context for the next request of this task; None if it has none."""
    return _OUTGOING.get()
