"""Tests of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.trace import TraceContext, outgoing_trace, set_outgoing_trace, trace_of

TRACE, SPAN = "4b" * 16, "0f" * 8


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3), st.sampled_from(["", "a=b", "a=b,c=d"]))
def test_what_is_written_is_read_as_it_was(trace: int, span: int, flags: int, state: str) -> None:
    """Headers made from a context are read back as the same context."""
    context = TraceContext(f"{trace:032x}", f"{span:016x}", flags, state)
    headers = context.headers()
    assert trace_of(headers["traceparent"], headers.get("tracestate", "")) == context


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01more",
    ],
)
def test_a_malformed_traceparent_is_no_context(traceparent: str) -> None:
    """A malformed `traceparent` gives None, so that the call begins a new trace, as the recommendation has it."""
    assert trace_of(traceparent) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """A `traceparent` of a later version is read without its further fields and unknown flags."""
    assert trace_of(f"cc-{TRACE}-{SPAN}-fd-what-else") == TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize("state", ["x" * 513, "a=é", "a=b\r\nx: y"])
def test_a_state_that_no_header_may_have_is_left_behind(state: str) -> None:
    """A `tracestate` that is too long or not valid in a header is dropped, and the trace is kept."""
    assert trace_of(f"00-{TRACE}-{SPAN}-01", state) == TraceContext(TRACE, SPAN)


def test_the_outgoing_trace_is_the_one_that_the_task_has_set() -> None:
    """`outgoing_trace` is the trace that the task has set, and None before and after."""
    context = TraceContext(TRACE, SPAN)
    assert outgoing_trace() is None
    set_outgoing_trace(context)
    assert outgoing_trace() is context
    set_outgoing_trace(None)
    assert outgoing_trace() is None
