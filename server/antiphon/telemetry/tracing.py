"""Traces: an observer that creates a span for each call and one for each attempt. They contain no content, key or URL.

Names and attributes are those of OpenTelemetry's semantic conventions 1.41. A call that is not sampled has no span, and its
caller's trace context is passed on unchanged.

The spans are made here, and not by the library's tracer: one of its own costs 50 us, as any thread may read and change it at any
time. A span of a call belongs to one thread, and is handed over when it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError, Reason
from antiphon.domain.trace import TraceContext, set_outgoing_trace
from antiphon.telemetry.otlp import SpanPipeline, export, flush
from antiphon.telemetry.span import Kind, Span

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
    attempt: Span | None = None
    """The span of the last attempt."""


class Tracing(Observer):
    """The traces of one worker. Called by the thread of the event loop only."""

    def __init__(
        self,
        provider: SpanPipeline,
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
        self._scope = InstrumentationScope("antiphon", version, SCHEMA)
        self._usage = {**_USAGE, _CACHE_WRITE: "gen_ai.usage.cache_write.input_tokens"} if latest else _USAGE
        self._open: dict[Call, _OpenCall] = {}

    def start(self) -> None:
        """Start the export."""
        if self._url is not None:
            export(self._provider, self._url, self._scope)

    def started(self, call: Call) -> None:
        """Start the span of the call, as a child of its caller's span."""
        ids, caller = self._provider.id_generator, call.trace
        if caller is None:
            around, trace_id, is_random = _EMPTY_CONTEXT, ids.generate_trace_id(), ids.is_trace_id_random()
        else:
            parent = _context_of(caller)
            around = trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY_CONTEXT)
            trace_id, is_random = parent.trace_id, parent.trace_flags.random_trace_id
        attributes: dict[str, Any] = {"rpc.system.name": "grpc", "rpc.method": call.method}
        sampled = self._provider.sampler.should_sample(around, trace_id, call.method, SpanKind.SERVER, attributes)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return
        call.trace = TraceContext(
            f"{trace_id:032x}",
            f"{ids.generate_span_id():016x}",
            TraceFlags.SAMPLED | (TraceFlags.RANDOM_TRACE_ID if is_random else 0),
            sampled.trace_state.to_header() if sampled.trace_state else "",
        )
        attributes = {**sampled.attributes, "antiphon.request_id": call.request_id}
        start, above = _since_1970(call.started_at), "" if caller is None else caller.span_id
        span = Span(call.method, Kind.SERVER, call.trace, above, start, attributes, is_parent_remote=caller is not None)
        self._open[call] = _OpenCall(span)

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        """Start the span of the attempt, and pass its trace context to the provider."""
        state = self._open.get(call)
        if state is None:
            set_outgoing_trace(call.trace)
            return
        self._end_attempt(state)
        attributes: dict[str, Any] = {}
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
        above = state.span.context
        context = TraceContext(above.trace_id, f"{self._provider.id_generator.generate_span_id():016x}", above.flags, above.state)
        state.attempt = Span(name, Kind.CLIENT, context, above.span_id, _since_1970(attempt.started_at), attributes)
        set_outgoing_trace(context)

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Record the outcome of the attempt. Its usage is added by `settled`, later."""
        set_outgoing_trace(None)
        state = self._open.get(call)
        if state is None or state.attempt is None:
            return
        state.attempt.end = time.time_ns()
        if attempt.streamed and call.first_token is not None:
            state.attempt.attributes["gen_ai.response.time_to_first_chunk"] = call.first_token
        end = classify(error, has_output=call.first_token is not None)
        if end is not AttemptClass.OK:
            state.attempt.attributes["error.type"] = end.value
            if end is not AttemptClass.GONE:
                state.attempt.is_error = True

    def settled(self, call: Call) -> None:
        """Record the tokens of the reply."""
        state, usage = self._open.get(call), call.usage
        if state is None or state.attempt is None or usage is None:
            return
        for field, name in self._usage.items():
            if (count := getattr(usage, field)) or field in {"input_tokens", "output_tokens"}:
                state.attempt.attributes[name] = count

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """End the spans of the call. An unauthenticated call is not exported: otherwise strangers could fill the collector."""
        state = self._open.pop(call, None)
        if state is None or (error is not None and error.reason is Reason.UNAUTHENTICATED):
            return
        self._end_attempt(state)
        span = state.span
        span.attributes["rpc.response.status_code"] = code
        if call.route:
            span.attributes["antiphon.route"] = call.route
        cost = call.total_cost_usd
        if cost is not None:
            span.attributes["antiphon.cost_usd"] = cost
        if error is not None:
            span.attributes["error.type"] = error.reason.value
        if code in _SERVER_ERRORS:
            span.is_error = True
        self._provider.take(span.encode())

    def stopped(self) -> None:
        """Wait for the last spans to be exported."""
        flush(self._provider)

    def _end_attempt(self, state: _OpenCall) -> None:
        if state.attempt is not None:
            self._provider.take(state.attempt.encode())
            state.attempt = None


def _since_1970(monotonic: float) -> int:
    """Return a time of the monotonic clock (in seconds) as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)


def _context_of(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    ids = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(context.flags), trace_state=state)
