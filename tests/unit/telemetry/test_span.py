"""Tests of the bytes of a span."""

from collections.abc import Callable

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from antiphon.domain.trace import TraceContext
from antiphon.telemetry import span
from antiphon.telemetry.otlp import EncodedSpanExporter, EncodedSpans
from antiphon.telemetry.span import Span
from tests.otlp import Receiver

TRACE, CALLER, SERVER, CLIENT = 2**127 + 1, 2**63 + 1, 1, 2**40
STATE = TraceState([("a", "b"), ("c", "d")])
ATTRIBUTES: dict[str, span.Value] = {
    "text": "é",
    "empty": "",
    "same": "xxé",
    "int": 1,
    "large": 2**62,
    "negative": -1,
    "long": "x" * 300,
    "float": 1.0,
    "true": True,
    "zero": 0,
    "false": False,
}


def context(span_id: int, state: TraceState = STATE) -> tuple[SpanContext, TraceContext]:
    """Return a context of the library's and the same as one of ours."""
    theirs = SpanContext(TRACE, span_id, is_remote=span_id == CALLER, trace_flags=TraceFlags(1), trace_state=state)
    return theirs, TraceContext(f"{TRACE:032x}", f"{span_id:016x}", 1, state.to_header())


def encode_unique(name: str, value: span.Value) -> bytes:
    """Encode in the way for values that hardly ever recur, if it takes this one."""
    return span.encode_unique(name, value) if isinstance(value, str | float) else span.encode_attribute(name, value)


@pytest.mark.parametrize("encode", [span.encode_attribute, encode_unique])
@pytest.mark.parametrize("state", [STATE, TraceState()])
def test_spans_are_sent_as_the_library_encodes_them(state: TraceState, encode: Callable[[str, span.Value], bytes]) -> None:
    """A request is the one that the library's own encoder makes, with every kind of attribute, parent and status."""
    (caller, _), (server, ours), (client, attempt) = (context(span_id, state) for span_id in (CALLER, SERVER, CLIENT))
    resource, scope = Resource({"service.name": "s"}), InstrumentationScope("t", "1", "https://schema.example/1")
    unset = Status(StatusCode.UNSET)
    theirs = [
        ReadableSpan(
            name, of, above, resource, attributes, kind=kind, status=status, start_time=5, end_time=9, instrumentation_scope=scope
        )
        for name, of, above, attributes, kind, status in (
            ("root", server, None, ATTRIBUTES, SpanKind.SERVER, unset),
            ("call", server, caller, {}, SpanKind.SERVER, unset),
            ("attempt", client, server, {}, SpanKind.CLIENT, Status(StatusCode.ERROR)),
        )
    ]
    spans = [
        Span("root", span.SERVER, ours, "", 5, end=9),
        Span("call", span.SERVER, ours, f"{CALLER:x}", 5, is_parent_remote=True, end=9),
        Span("attempt", span.CLIENT, attempt, ours.span_id, 5, is_error=True, end=9),
    ]
    spans[0].attributes = b"".join(map(encode, ATTRIBUTES, ATTRIBUTES.values()))
    with Receiver() as receiver:
        EncodedSpanExporter(receiver.url, resource, scope).export(
            [EncodedSpans(spans[0].encode() + spans[1].encode()), EncodedSpans(spans[2].encode())]
        )
    assert ExportTraceServiceRequest.FromString(receiver.bodies[0]) == encode_spans(theirs)
