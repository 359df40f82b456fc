"""Traces: an observer that creates a span for each call and one for each attempt. They contain no content, key or URL.

Names and attributes are those of OpenTelemetry's semantic conventions 1.41. A call that is not sampled has no span, and its
caller's trace context is passed on unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError, Reason
from antiphon.domain.trace import TraceContext, set_outgoing_trace
from antiphon.telemetry.otlp import export, flush

SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"

_EMPTY_CONTEXT: Final = Context()
"""A context without a span: without it the SDK would search for a current span."""

_SERVER_ERRORS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that the conventions count as an error of the server; all others are errors of the caller."""

_CACHE_WRITE: Final = "cache_write_tokens"

_USAGE: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    _CACHE_WRITE: "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""The span attribute by the field of `Usage`."""


class _OpenCall(Struct):
    """The spans of a call that is being recorded."""

    span: Span
    context: Context
    """The context that contains `span`."""
    attempt: Span | None = None
    """The span of the last attempt. It is ended late, as attributes may still be added after the attempt is over."""
    attempt_end: int | None = None
    """When the attempt was over, in nanoseconds since 1970."""


class Tracing(Observer):
    """The traces of one worker. Called by the thread of the event loop only."""

    def __init__(
        self,
        provider: TracerProvider,
        url: str | None,
        servers: Mapping[str, tuple[str, int]],
        version: str,
        *,
        latest: bool = False,
    ) -> None:
        """Prepare tracing. Spans are sent to `url` once `start` is called; with None they are not sent.

        `servers` has host and port by the provider's name. `latest` selects the newest attribute names; see
        `antiphon.telemetry.names.wants_latest`.
        """
        self._provider = provider
        self._url = url
        self._servers = servers
        self._tracer = provider.get_tracer("antiphon", version, schema_url=SCHEMA)
        self._usage = {**_USAGE, _CACHE_WRITE: "gen_ai.usage.cache_write.input_tokens"} if latest else _USAGE
        self._open: dict[Call, _OpenCall] = {}

    def start(self) -> None:
        """Start the export."""
        if self._url is not None:
            export(self._provider, self._url)

    def started(self, call: Call) -> None:
        """Start the span of the call, as a child of its caller's span."""
        caller = call.trace
        parent = (
            _EMPTY_CONTEXT if caller is None else trace.set_span_in_context(NonRecordingSpan(_context_of(caller)), _EMPTY_CONTEXT)
        )
        attributes = {"rpc.system.name": "grpc", "rpc.method": call.method}
        span = self._tracer.start_span(call.method, parent, SpanKind.SERVER, attributes, start_time=_since_1970(call.started_at))
        if not span.is_recording():
            return
        span.set_attribute("antiphon.request_id", call.request_id)
        call.trace = _trace_of(span, "" if caller is None else caller.state)
        self._open[call] = _OpenCall(span, trace.set_span_in_context(span, _EMPTY_CONTEXT))

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        """Start the span of the attempt, and pass its trace context to the provider."""
        state = self._open.get(call)
        if state is None:
            set_outgoing_trace(call.trace)
            return
        _end_attempt(state)
        attributes: dict[str, AttributeValue] = {}
        if attempt.model:
            name = f"chat {attempt.model}"
            attributes["gen_ai.operation.name"] = "chat"
            attributes["gen_ai.provider.name"] = attempt.provider
            attributes["gen_ai.request.model"] = attempt.model
            attributes["gen_ai.request.stream"] = attempt.streamed
            if attempt.deployment != attempt.provider:
                attributes["antiphon.deployment"] = attempt.deployment
            if attempt.number > 1:
                attributes["antiphon.attempt"] = attempt.number
            if attempt.provider in self._servers:
                attributes["server.address"], attributes["server.port"] = self._servers[attempt.provider]
        else:  # a proxied call, of which only the target is known
            name = "POST"
            attributes["http.request.method"] = "POST"
            attributes["server.address"] = attempt.provider
        start = _since_1970(attempt.started_at)
        state.attempt = self._tracer.start_span(name, state.context, SpanKind.CLIENT, attributes, start_time=start)
        state.attempt_end = None
        set_outgoing_trace(_trace_of(state.attempt, "" if call.trace is None else call.trace.state))

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Record the outcome of the attempt. Its usage is added by `settled`, later."""
        set_outgoing_trace(None)
        state = self._open.get(call)
        if state is None or state.attempt is None:
            return
        state.attempt_end = time.time_ns()
        if attempt.streamed and call.first_token is not None:
            state.attempt.set_attribute("gen_ai.response.time_to_first_chunk", call.first_token)
        end = classify(error, has_output=call.first_token is not None)
        if end is not AttemptClass.OK:
            state.attempt.set_attribute("error.type", end.value)
            if end is not AttemptClass.GONE:
                state.attempt.set_status(StatusCode.ERROR)

    def settled(self, call: Call) -> None:
        """Record the tokens of the reply."""
        state, usage = self._open.get(call), call.usage
        if state is None or state.attempt is None or usage is None:
            return
        for field, name in self._usage.items():
            if (count := getattr(usage, field)) or field in {"input_tokens", "output_tokens"}:
                state.attempt.set_attribute(name, count)

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """End the spans of the call. An unauthenticated call is not exported: otherwise strangers could fill the collector."""
        state = self._open.pop(call, None)
        if state is None or (error is not None and error.reason is Reason.UNAUTHENTICATED):
            return
        _end_attempt(state)
        span = state.span
        span.set_attribute("rpc.response.status_code", code)
        if call.route:
            span.set_attribute("antiphon.route", call.route)
        cost = call.total_cost_usd
        if cost is not None:
            span.set_attribute("antiphon.cost_usd", cost)
        if error is not None:
            span.set_attribute("error.type", error.reason.value)
        if code in _SERVER_ERRORS:
            span.set_status(StatusCode.ERROR)
        span.end()

    def stopped(self) -> None:
        """Wait for the last spans to be exported."""
        flush(self._provider)


def _end_attempt(state: _OpenCall) -> None:
    if state.attempt is not None:
        state.attempt.end(state.attempt_end)
        state.attempt = None


def _since_1970(monotonic: float) -> int:
    """Return a time of the monotonic clock (in seconds) as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)


def _context_of(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    ids = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(context.flags), trace_state=state)


def _trace_of(span: Span, state: str) -> TraceContext:
    context = span.get_span_context()
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)
