"""Tests of exporting spans over a real socket."""

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.http.transport._urllib3 import Urllib3HTTPTransport
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from structlog.testing import capture_logs

from antiphon.domain.trace import TraceContext
from antiphon.telemetry.otlp import LIBRARY, EncodedSpanExporter, SpanPipeline, export, flush, make_provider
from antiphon.telemetry.span import SERVER, Span
from tests.otlp import Receiver
from tests.ports import free_port
from tests.waiting import block_until

SCOPE = InstrumentationScope("t", "1", "https://schema.example/1")


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """Restore the OpenTelemetry library's loggers after each test."""
    logger = logging.getLogger(LIBRARY)
    before = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = before


def make_spans(provider: SpanPipeline, count: int) -> None:
    for _ in range(count):
        provider.take(Span("x", SERVER, TraceContext("0a" * 16, "b7" * 8), "", 1).encode())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")


def test_a_failing_export_is_logged_once_with_its_reason(quick: None) -> None:
    """A failing export is logged once with its reason, however many batches are lost, and once when it works again."""
    port = free_port()
    provider = make_provider(None, "1")
    with capture_logs() as logged:
        export(provider, f"http://127.0.0.1:{port}/v1/traces", SCOPE)
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
        export(provider, receiver.url, SCOPE)
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
        export(provider, receiver.url, SCOPE)
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


@pytest.mark.parametrize(
    ("url", "variables", "is_lean"),
    [
        ("http://collector:4318/v1/traces", {}, True),
        ("http://collector:4318/v1/traces", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, True),
        ("http://collector:4318/v1/traces", {"HTTP_PROXY": "http://proxy:3128"}, False),
        ("http://collector:4318/v1/traces", {"all_proxy": "http://proxy:3128"}, False),
        ("http://user:password@collector:4318/v1/traces", {}, False),
        ("http://[::1/v1/traces", {}, True),  # no address: the log has why nothing is sent
        ("collector:4318", {}, False),
        ("https://collector:4318/v1/traces", {}, False),
    ],
)
def test_requests_is_used_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], is_lean: bool
) -> None:
    """The larger HTTP library is used for passwords, proxies and certificates alone."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    exporter = EncodedSpanExporter(url, make_provider(None, "1").resource, SCOPE)
    assert isinstance(exporter._client._transport, Urllib3HTTPTransport) == is_lean


def test_a_credential_provider_makes_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential provider is asked for the session; one that is not installed is an error and not ignored."""
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "absent")
    with pytest.raises(RuntimeError, match="absent"):
        EncodedSpanExporter("http://collector:4318/v1/traces", make_provider(None, "1").resource, SCOPE)
