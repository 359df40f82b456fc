"""Export of spans to a collector: OTLP over HTTP, by OpenTelemetry's own exporter, in a thread of its own.

The event loop only puts the spans of a call into a bounded queue, soon after the call has ended. Spans that a slow or unreachable
collector does not accept are lost. The log reports this once, and once more when spans arrive again. The library queues and sends;
`telemetry.span` encodes (docs/adr/0009).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Sequence
from typing import Final
from urllib.request import getproxies

import structlog
from opentelemetry.exporter.http.transport._urllib3 import Urllib3HTTPTransport
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from antiphon.telemetry.redaction import redact
from antiphon.telemetry.wire import sized, tag

FLUSHING: Final = 3.0
"""Seconds that a stop waits for the last spans to arrive."""

LIBRARY: Final = "opentelemetry"
"""The name of the library's root logger."""

_PLAIN: Final = re.compile(r"http://[^@/?#]+(?:[/?#]|$)")
"""The beginning of a URL without TLS and without a password."""

_RESOURCE: Final = tag(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER)
_SCOPE: Final = tag(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER)

log = structlog.get_logger(__name__)


class SpanPipeline(TracerProvider):
    """The library's sampler, ids, resource and export, for spans that `telemetry.tracing` makes."""

    def __init__(self, sampler: Sampler | None, resource: Resource) -> None:
        self._processors = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        super().__init__(sampler, resource, shutdown_on_exit=False, active_span_processor=self._processors)

    def take(self, spans: bytes) -> None:
        """Export the spans of a call, one after the other as `Span.encode` returns them."""
        self._processors.on_end(EncodedSpans(spans))


def make_provider(sample: float | None, version: str) -> SpanPipeline:
    """Return a provider that exports nothing until `export` is called.

    `sample` is the share of calls that are traced if the caller has not decided, from 0 to 1. None leaves that to OpenTelemetry's
    environment variables, which also set the name and the attributes of the service.
    """
    ours = Resource.create({SERVICE_NAME: "antiphon", SERVICE_VERSION: version})
    sampler = None if sample is None else DEFAULT_ON if sample == 1 else ParentBased(TraceIdRatioBased(sample))
    return SpanPipeline(sampler, ours.merge(OTELResourceDetector().detect()))


def export(pipeline: SpanPipeline, url: str, scope: InstrumentationScope) -> None:
    """Send the spans that `pipeline` takes to `url` from now on. `scope` names who made them."""
    exporter = EncodedSpanExporter(url, pipeline.resource, scope)
    pipeline.add_span_processor(BatchSpanProcessor(LoggingExporter(exporter)))


def flush(provider: TracerProvider, seconds: float = FLUSHING) -> None:
    """Shut the provider down, and wait at most `seconds` for the last spans to arrive."""
    # `shutdown` itself waits for up to 30 seconds if the collector does not answer.
    shutdown = threading.Thread(target=provider.shutdown, name="traces' end", daemon=True)
    shutdown.start()
    shutdown.join(seconds)


class EncodedSpans(ReadableSpan):
    """The spans of a call as bytes. The library's queue asks only whether they are sampled; all that get there are."""

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, data: bytes) -> None:
        # The fields of the base class stay unset, as nothing reads them, and they would cost more than the rest of a span.
        self.data = data


class EncodedSpanExporter(OTLPSpanExporter):
    """The library's exporter, for encoded spans of one resource and one scope."""

    def __init__(self, url: str, resource: Resource, scope: InstrumentationScope) -> None:
        if (transport := _lean_transport(url)) is not None:
            super().__init__(endpoint=url, _transport=transport)
        else:
            super().__init__(endpoint=url)
        around = encode_spans([ReadableSpan("", EncodedSpans.context, resource=resource, instrumentation_scope=scope)])
        resource_spans = around.resource_spans[0]
        scope_spans = resource_spans.scope_spans[0]
        scope_spans.ClearField("spans")
        self._scope = scope_spans.SerializeToString()
        resource_spans.ClearField("scope_spans")
        self._resource = resource_spans.SerializeToString()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans and return the result. Raises nothing for a collector that fails."""
        # In bytes, as this thread holds up all calls while it makes objects.
        encoded = b"".join([each.data for each in spans if isinstance(each, EncodedSpans)])
        request = sized(_RESOURCE, self._resource + sized(_SCOPE, self._scope + encoded))
        return SpanExportResult.SUCCESS if self._client.export(request).success else SpanExportResult.FAILURE


def _lean_transport(url: str) -> Urllib3HTTPTransport | None:
    """Return a transport that does without `requests`, which takes 3 MB; None where `requests` is needed.

    It is needed for a password in the URL, proxies, certificates, and sessions of OpenTelemetry's credential providers.
    """
    is_plain = _PLAIN.match(url) is not None and not getproxies().keys() & {"http", "all"}
    has_session = any(name.startswith("OTEL_PYTHON_") and name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ)
    return Urllib3HTTPTransport() if is_plain and not has_session else None


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
        """Calls whose spans were dropped because the queue was full, since spans last arrived."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record. Never raises. Runs on the event loop for each call whose spans are lost, so it must stay small."""
        message = record.getMessage()
        if not message.startswith("Queue full"):
            self.last_message = message
            return
        if not self.dropped:
            log.warning("traces are lost", error="the collector takes fewer than there are")
        self.dropped += 1
