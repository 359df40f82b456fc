"""Tests of exporting spans over a real socket."""

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState, set_span_in_context
from structlog.testing import capture_logs

from antiphon.telemetry.otlp import LIBRARY, EncodingExporter, export, flush, make_provider
from tests.otlp import Receiver
from tests.ports import free_port
from tests.waiting import block_until


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """Restore the OpenTelemetry library's loggers after each test."""
    logger = logging.getLogger(LIBRARY)
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


def make_spans(provider: TracerProvider, count: int) -> None:
    for _ in range(count):
        provider.get_tracer("t").start_span("x").end()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")


def test_a_failing_export_is_logged_once_with_its_reason(quick: None) -> None:
    """A failing export is logged once with its reason, however many batches are lost, and once when it works again."""
    port = free_port()
    provider = make_provider(None, "1")
    with capture_logs() as logged:
        export(provider, f"http://127.0.0.1:{port}/v1/traces")
        for _ in range(3):
            make_spans(provider, 1)
            provider.force_flush()
        assert [line["event"] for line in logged] == ["traces are not exported"]
        with Receiver(port) as receiver:
            make_spans(provider, 1)
            provider.force_flush()
            flush(provider)
            assert len(receiver.spans()) == 1
    assert [line["event"] for line in logged] == ["traces are not exported", "traces are exported again"]
    assert (logged[0]["error"], logged[1]["lost"]) == (logged[0]["error"], 3)
    assert logged[0]["error"]


def test_a_slow_collector_does_not_block_calls(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the collector is slow, the queue is bounded; lost spans are logged once."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    provider = make_provider(None, "1")
    with Receiver() as receiver, capture_logs() as logged:
        receiver.may_answer.clear()
        export(provider, receiver.url)
        make_spans(provider, 4)
        block_until(lambda: receiver.request_count)
        make_spans(provider, 20)
        assert [line["event"] for line in logged] == ["traces are lost"]
        receiver.may_answer.set()
        flush(provider)
        assert len(receiver.spans()) == 4 + 8


def test_a_stop_waits_no_longer_than_it_may(quick: None) -> None:
    """A stop waits for a silent collector only as long as allowed."""
    provider = make_provider(None, "1")
    with Receiver() as receiver:
        receiver.may_answer.clear()
        export(provider, receiver.url)
        make_spans(provider, 1)
        flush(provider, 0.1)
        assert receiver.spans() == []


def test_the_service_is_named_by_its_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service name is that of OpenTelemetry's variables, and else `antiphon`."""
    assert make_provider(None, "1.2.3").resource.attributes["service.name"] == "antiphon"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=chat,deployment.environment.name=prod")
    attributes = make_provider(None, "1.2.3").resource.attributes
    assert (attributes["service.name"], attributes["deployment.environment.name"]) == ("chat", "prod")
    assert attributes["service.version"] == "1.2.3"


def test_spans_are_sent_as_the_library_encodes_them() -> None:
    """A request is the one that the library's own encoder makes, with every kind of attribute, parent and status."""
    tracer = make_provider(None, "1.2.3").get_tracer("t", "1", schema_url="https://schema.example/1")
    caller = SpanContext(2**127 + 1, 2**63 + 1, True, TraceFlags(1), TraceState([("a", "b"), ("c", "d")]))
    server = tracer.start_span("call", set_span_in_context(NonRecordingSpan(caller)), SpanKind.SERVER)
    server.set_attributes({"text": "é", "int": 1, "large": 2**62, "float": 1.0, "true": True, "none": 0, "false": False})
    client = tracer.start_span("attempt", set_span_in_context(server), SpanKind.CLIENT, {"int": True, "true": 1})
    client.set_status(StatusCode.ERROR)
    root = tracer.start_span("root")
    root.set_status(StatusCode.OK)
    spans = [span for span in (client, server, root) if isinstance(span, ReadableSpan)]
    for span in (client, server, root):
        span.end()
    with Receiver() as receiver:
        EncodingExporter(endpoint=receiver.url).export(spans)
    assert ExportTraceServiceRequest.FromString(receiver.bodies[0]) == encode_spans(spans)
