"""The trace context of a call, as in the headers of W3C Trace Context (https://www.w3.org/TR/trace-context/). No I/O."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
"""Data of other tracing systems: passed on unchanged, or dropped if it does not match this."""

_SAMPLED: Final = 1


class TraceContext(Struct, frozen=True):
    """A trace, and the span in it that is the parent of the next one. Ids are lower-case hexadecimal, of 32 and 16 digits."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED
    """A set of bits; the lowest one says that spans are recorded."""
    state: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that pass the context on with a request."""
        headers = {TRACEPARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        if self.state:
            headers[TRACESTATE] = self.state
        return headers


def trace_of(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the trace context in these headers, or None if there is no valid one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[5] and found[1] == "00"):  # versions after 00 may have more fields
        return None
    flags = int(found[4], 16) & (_SAMPLED | 2)  # the bits that version 00 and its second level define
    return TraceContext(found[2], found[3], flags, tracestate if _TRACESTATE.fullmatch(tracestate) else "")


_OUTGOING: ContextVar[TraceContext | None] = ContextVar("outgoing_trace", default=None)


def pass_on(trace: TraceContext | None) -> None:
    """Set the trace context of all requests that this task makes from now on; None: they have none."""
    _OUTGOING.set(trace)


def passed_on() -> TraceContext | None:
    """Return the trace context for the next request."""
    return _OUTGOING.get()
