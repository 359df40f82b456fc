"""Tests of the spans of a call. The export, and the spans of a whole gateway, are tested in `tests/e2e/test_traces.py`."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from opentelemetry.context import Context
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from antiphon.domain.call import Attempt, Call
from antiphon.domain.errors import DeadlineExceeded, Internal, InvalidRequest, ProviderUnavailable, Unauthenticated
from antiphon.domain.events import Usage
from antiphon.domain.trace import TraceContext, outgoing_trace, set_outgoing_trace
from antiphon.telemetry.otlp import EncodedSpans, SpanPipeline, make_provider
from antiphon.telemetry.tracing import Tracing
from tests.otlp import Received, received

CALLER = TraceContext("0a" * 16, "b7" * 8, 1, "a=b")


class Traced:
    """A tracing observer and the spans that it has ended."""

    def __init__(self, sample: float | None = None, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = make_provider(sample, "1.2.3") if sampler is None else SpanPipeline(sampler, Resource({}))
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.listener = Tracing(provider, None, {"openai": ("api.example", 443)}, "1.2.3")

    @property
    def spans(self) -> list[Received]:
        calls = [spans for spans in self._exporter.get_finished_spans() if isinstance(spans, EncodedSpans)]
        return [received(span) for each in calls for span in ScopeSpans.FromString(each.data).spans]


@pytest.fixture(autouse=True)
def untraced() -> None:
    """Clear the outgoing trace of earlier tests."""
    set_outgoing_trace(None)


def attempt(traced: Traced, call: Call, error: BaseException | None = None) -> TraceContext | None:
    """Report one attempt. Return the trace context that its provider was sent."""
    tried = Attempt("openai", "gpt", call.started_at, streamed=True)
    traced.listener.attempt_started(call, tried)
    sent = outgoing_trace()
    traced.listener.attempt_ended(call, tried, error)
    assert outgoing_trace() is None
    return sent


def test_each_attempt_is_a_span_of_its_own() -> None:
    """Each attempt is a span of its own; the usage is on the last one."""
    traced, call = Traced(), Call(method="m", trace=CALLER)
    traced.listener.started(call)
    sent = [attempt(traced, call, ProviderUnavailable("", provider="openai")), attempt(traced, call)]
    call.usage = Usage(3, 0, 3, reasoning_tokens=2)
    traced.listener.settled(call)
    traced.listener.ended(call, "OK", None)
    first, second, server = traced.spans
    assert [one and one.span_id for one in sent] == [first.span, second.span]
    assert [one and one.state for one in sent] == ["a=b", "a=b"]
    assert (first.error, second.error) == (True, False)
    assert not [name for name in first.attributes if "usage" in name]
    usage = {name: value for name, value in second.attributes.items() if "usage" in name}
    assert usage == {
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 2,
    }
    assert [(span.kind, span.parent) for span in (first, second)] == [("CLIENT", server.span)] * 2
    assert (server.kind, server.parent) == ("SERVER", CALLER.span_id)
    assert {(span.trace, span.state) for span in traced.spans} == {(CALLER.trace_id, CALLER.state)}


def test_an_attempts_span_ends_with_the_attempt() -> None:
    """An attempt's span ends with the attempt, although its usage is known later."""
    traced, call = Traced(), Call(method="m")
    traced.listener.started(call)
    attempt(traced, call)
    traced.listener.settled(call)
    traced.listener.ended(call, "OK", None)
    client, server = traced.spans
    assert client.end < server.end


@pytest.mark.parametrize(("sample", "trace"), [(0, None), (None, TraceContext(CALLER.trace_id, CALLER.span_id, 0))])
def test_a_call_that_is_not_sampled_has_no_span(sample: float | None, trace: TraceContext | None) -> None:
    """A call that is not sampled, by our share or the caller's flag, makes no span. The caller's trace is passed on unchanged."""
    traced, call = Traced(sample), Call(method="m", trace=trace)
    traced.listener.started(call)
    assert attempt(traced, call) == trace
    traced.listener.settled(call)
    traced.listener.ended(call, "OK", None)
    assert call.trace == trace
    assert traced.spans == []


@pytest.mark.parametrize(
    ("code", "error", "kind", "failed"),
    [
        ("OK", None, None, False),
        ("INVALID_ARGUMENT", InvalidRequest("A secret."), "INVALID_REQUEST", False),
        ("INTERNAL", Internal(), "INTERNAL", True),
        ("CANCELLED", None, None, False),
    ],
)
def test_the_status_of_a_call_is_an_error_where_it_is_the_servers(
    code: str, error: InvalidRequest | Internal | None, kind: str | None, failed: bool
) -> None:
    """A span has the status ERROR only for the server's own errors.

    The reason is its `error.type`, and the message is in no span.
    """
    traced, call = Traced(), Call(method="m")
    traced.listener.started(call)
    traced.listener.ended(call, code, error)
    (span,) = traced.spans
    assert (span.attributes.get("error.type"), span.error) == (kind, failed)
    assert "secret" not in str(span)


def test_a_call_without_a_good_key_leaves_no_span() -> None:
    """A call without a valid key makes no span, because anybody could fill the collector with them."""
    traced, call = Traced(), Call(method="m", trace=CALLER)
    traced.listener.started(call)
    traced.listener.ended(call, "UNAUTHENTICATED", Unauthenticated("No."))
    assert traced.spans == []


@pytest.mark.parametrize(
    ("error", "kind", "failed"),
    [(asyncio.CancelledError(), "gone", False), (DeadlineExceeded(), "deadline", True)],
)
def test_a_cancelled_attempt_is_not_the_providers_error(error: BaseException, kind: str, failed: bool) -> None:
    """An attempt that its caller has cancelled is `gone` and no error; one that hit the deadline is an error."""
    traced, call = Traced(), Call(method="m")
    traced.listener.started(call)
    attempt(traced, call, error)
    traced.listener.ended(call, "CANCELLED", None)
    assert (traced.spans[0].attributes["error.type"], traced.spans[0].error) == (kind, failed)


class ByAttribute(Sampler):
    """A sampler of an operator's own: it decides by an attribute, and adds some."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if (attributes or {}).get("rpc.method") != "wanted":
            return SamplingResult(Decision.DROP)
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE, {**(attributes or {}), "rule": 7, "rules": (7, 8)}, TraceState([("s", "1")])
        )

    def get_description(self) -> str:
        return "by attribute"


def test_a_sampler_decides_by_attributes_and_adds_some() -> None:
    """A sampler of one's own gets the call's attributes, and what it adds is on the span and in the trace state."""
    traced = Traced(sampler=ByAttribute())
    for method in ("wanted", "unwanted"):
        call = Call(method=method)
        traced.listener.started(call)
        traced.listener.ended(call, "OK", None)
    (span,) = traced.spans
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "wanted",
        "rule": 7,
        "antiphon.request_id": "",
        "rpc.response.status_code": "OK",
    }
    assert span.state == "s=1"


async def test_spans_of_several_calls_are_handed_over_together() -> None:
    """Spans of ended calls wait for each other for a moment, and only until there are those of 32 calls."""
    traced = Traced()
    traced.listener.start()
    for number in range(1, 35):
        call = Call(method="m")
        traced.listener.started(call)
        attempt(traced, call)
        call.usage = Usage(number, 0, number)
        traced.listener.ended(call, "OK", None)
        assert len(traced.spans) == (64 if number >= 32 else 0)
    async with asyncio.timeout(10):
        while len(traced.spans) < 68:
            await asyncio.sleep(0.01)
    used = [span.attributes["gen_ai.usage.input_tokens"] for span in traced.spans if span.kind == "CLIENT"]
    assert used == list(range(1, 35))


async def test_a_span_ends_with_its_call_although_it_is_handed_over_later() -> None:
    """The time that the spans of a call wait for others is no part of them."""
    traced, call = Traced(), Call(method="m")
    traced.listener.start()
    traced.listener.started(call)
    attempt(traced, call)
    traced.listener.ended(call, "OK", None)
    ended = time.time_ns()
    traced.listener.stopped()
    client, server = traced.spans
    assert client.end <= server.end <= ended


async def test_spans_that_wait_are_handed_over_at_the_end() -> None:
    """A worker that stops exports the spans that still wait for others."""
    traced, call = Traced(), Call(method="m")
    traced.listener.start()
    traced.listener.started(call)
    traced.listener.ended(call, "OK", None)
    assert not traced.spans
    traced.listener.stopped()
    assert len(traced.spans) == 1
