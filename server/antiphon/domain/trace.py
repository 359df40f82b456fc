"""The trace that a call belongs to, as W3C Trace Context writes it into headers (https://www.w3.org/TR/trace-context/). No I/O."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
"""What other systems wrote there is theirs: it is passed on as it is, or not at all."""

_SAMPLED: Final = 1


class TraceContext(Struct, frozen=True):
    """A trace, and the span in it that is the parent of what comes next. Ids are in lower-case hexadecimal digits, 32 and 16."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED
    """A bit set; the lowest bit tells that spans are recorded."""
    state: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that tell whom a request goes to."""
        told = {TRACEPARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        if self.state:
            told[TRACESTATE] = self.state
        return told


def trace_of(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the context that these headers tell, or None where they tell none that can be read."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[5] and found[1] == "00"):  # versions after 00 may have more fields
        return None
    flags = int(found[4], 16) & (_SAMPLED | 2)  # the bits that version 00 and its second level define
    return TraceContext(found[2], found[3], flags, tracestate if _TRACESTATE.fullmatch(tracestate) else "")


_OUTGOING: ContextVar[TraceContext | None] = ContextVar("outgoing_trace", default=None)


def pass_on(trace: TraceContext | None) -> None:
    """Have the requests that this task makes from now on belong to `trace`; None: to no trace."""
    _OUTGOING.set(trace)


def passed_on() -> TraceContext | None:
    """Return what the request that is about to be made belongs to."""
    return _OUTGOING.get()
