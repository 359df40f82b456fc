"""Export of spans to a collector: OTLP over HTTP, by OpenTelemetry's own exporter, in a thread of its own.

A call only puts its spans into a bounded queue. Spans that a slow or unreachable collector does not accept are lost. The log
reports this once, and once more when spans arrive again. The library sends what is encoded here, as its own encoder takes three
times as long: attributes are the same from call to call, and are made once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from antiphon.telemetry.redaction import redact

FLUSHING: Final = 3.0
"""Seconds that a stop waits for the last spans to arrive."""

LIBRARY: Final = "opentelemetry"
"""The name of the library's root logger."""

log = structlog.get_logger(__name__)


class SpanPipeline(TracerProvider):
    """The library's sampler, ids, resource and export, for spans that `telemetry.tracing` makes."""

    def __init__(self, sampler: Sampler | None, resource: Resource) -> None:
        self._processors = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        super().__init__(sampler, _Service(resource), shutdown_on_exit=False, active_span_processor=self._processors)

    def take(self, span: ReadableSpan) -> None:
        """Export a span that is complete."""
        self._processors.on_end(span)


class _Service(Resource):
    """A resource that is hashed once: the exporter groups spans by it, and its hash is that of its JSON."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


def make_provider(sample: float | None, version: str) -> SpanPipeline:
    """Return a provider that exports nothing until `export` is called.

    `sample` is the share of calls that are traced if the caller has not decided, from 0 to 1. None leaves that to OpenTelemetry's
    environment variables, which also set the name and the attributes of the service.
    """
    ours = Resource.create({SERVICE_NAME: "antiphon", SERVICE_VERSION: version})
    sampler = None if sample is None else ParentBased(TraceIdRatioBased(sample))
    return SpanPipeline(sampler, ours.merge(OTELResourceDetector().detect()))


def export(provider: TracerProvider, url: str) -> None:
    """Send the spans of `provider` to `url` from now on."""
    provider.add_span_processor(BatchSpanProcessor(LoggingExporter(EncodingExporter(endpoint=url))))


def flush(provider: TracerProvider, seconds: float = FLUSHING) -> None:
    """Shut the provider down, and wait at most `seconds` for the last spans to arrive."""
    # `shutdown` itself waits for up to 30 seconds if the collector does not answer.
    shutdown = threading.Thread(target=provider.shutdown, name="traces' end", daemon=True)
    shutdown.start()
    shutdown.join(seconds)


class EncodingExporter(OTLPSpanExporter):
    """The library's exporter, for spans that have one resource and one scope, and neither events nor links."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans and return the result. Raises nothing for a collector that fails."""
        request = encode_spans(spans[:1])  # with the resource and the scope
        request.resource_spans[0].scope_spans[0].ClearField("spans")
        request.resource_spans[0].scope_spans[0].spans.extend(map(_encoded, spans))
        sent = self._client.export(request.SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


_STATUSES: Final = {
    StatusCode.UNSET: trace_pb2.Status(),
    StatusCode.OK: trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_OK),
    StatusCode.ERROR: trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR),
}
_KINDS: Final = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}

_LOCAL: Final = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def _encoded(span: ReadableSpan) -> trace_pb2.Span:
    context, parent = span.context, span.parent
    return trace_pb2.Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=_span_id(context),
        trace_state=context.trace_state.to_header() if context.trace_state else "",
        parent_span_id=b"" if parent is None else _span_id(parent),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=[_attribute(name, value) for name, value in (span.attributes or {}).items()],
        status=_STATUSES[span.status.status_code],
        flags=_REMOTE if parent is not None and parent.is_remote else _LOCAL,
    )


def _span_id(context: SpanContext) -> bytes:
    return context.span_id.to_bytes(8, "big")


@lru_cache(1024, typed=True)  # typed, as True equals 1
def _attribute(name: str, value: AttributeValue) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=name, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=name, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=name, value=AnyValue(double_value=value))
        case _:
            return KeyValue(key=name, value=AnyValue(string_value=str(value)))


class LoggingExporter(SpanExporter):
    """Passes spans to another exporter, and logs when exporting starts to fail and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._library_log = _LibraryLog()
        logger = logging.getLogger(LIBRARY)
        logger.handlers, logger.propagate = [self._library_log], False  # the library would log every batch

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans and return the result. Never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # else the thread of the exporter would log each one
            self._library_log.last_message = str(error)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning("traces are not exported", error=redact(self._library_log.last_message))
            self._lost += len(spans)
        elif self._lost or self._library_log.dropped:
            log.warning("traces are exported again", lost=self._lost + self._library_log.dropped)
            self._lost = self._library_log.dropped = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _LibraryLog(logging.Handler):
    """Receives the library's log records: keeps the last message, and logs only once that the queue is full."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last_message = ""
        self.dropped = 0
        """Spans dropped because the queue was full, since spans last arrived."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record. Never raises. Any thread that ends a span may call it, so it must stay this small."""
        message = record.getMessage()
        if not message.startswith("Queue full"):
            self.last_message = message
            return
        if not self.dropped:
            log.warning("traces are lost", error="the collector takes fewer than there are")
        self.dropped += 1
