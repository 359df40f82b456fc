"""Spans on their way to a collector: OTLP over HTTP, by OpenTelemetry's own exporter, in a thread of its own.

A call only puts its spans into a queue of a bounded length. What a collector that is down or slow does not take is lost; the log
tells so once, and once when spans arrive again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from antiphon.telemetry.redaction import redact

FLUSHING: Final = 3.0
"""Seconds that a stop waits for the last spans to arrive."""

LIBRARY: Final = "opentelemetry"
"""The name of its loggers."""

log = structlog.get_logger(__name__)


def make_provider(sample: float | None, version: str) -> TracerProvider:
    """Return what makes spans. Nothing is exported before `export`.

    `sample` is the share of calls that are traced where the caller has not decided; None: as OpenTelemetry's variables have it.
    These also name the service, and describe it.
    """
    ours = Resource.create({SERVICE_NAME: "antiphon", SERVICE_VERSION: version})
    sampler = None if sample is None else ParentBased(TraceIdRatioBased(sample))
    return TracerProvider(sampler=sampler, resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)


def export(provider: TracerProvider, url: str) -> None:
    """Have the spans of `provider` sent to `url`, from now on."""
    provider.add_span_processor(BatchSpanProcessor(TellingExporter(OTLPSpanExporter(endpoint=url))))


def flush(provider: TracerProvider, seconds: float = FLUSHING) -> None:
    """Wait for the last spans to arrive, no longer than so many seconds, and export nothing more."""
    # OpenTelemetry waits for up to half a minute if the collector does not answer.
    ending = threading.Thread(target=provider.shutdown, name="traces' end", daemon=True)
    ending.start()
    ending.join(seconds)


class TellingExporter(SpanExporter):
    """Hands spans on to another exporter, and tells when that begins to fail and when it succeeds again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._library = _Library()
        logger = logging.getLogger(LIBRARY)
        logger.handlers, logger.propagate = [self._library], False  # it would tell of every batch

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # its thread would tell of each
            self._library.said = str(error)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning("traces are not exported", error=redact(self._library.said))
            self._lost += len(spans)
        elif self._lost or self._library.full:
            log.warning("traces are exported again", lost=self._lost + self._library.full)
            self._lost = self._library.full = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Library(logging.Handler):
    """Takes what the library has to say, and tells once that its queue is full."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""
        self.full = 0
        """Spans that the queue had no place for since spans have arrived."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises. Called by whoever ends a span, too, so it does no more than this."""
        message = record.getMessage()
        if not message.startswith("Queue full"):
            self.said = message
            return
        if not self.full:
            log.warning("traces are lost", error="the collector takes fewer than there are")
        self.full += 1
