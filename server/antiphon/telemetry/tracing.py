"""Traces: a listener to calls that makes a span of each, and one of every try at a provider. No content, key or URL is in them.

Names and attributes are those of OpenTelemetry's semantic conventions 1.41. A call that is not sampled has no span, and the context
that its caller sent is passed on as it is.
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

_NOWHERE: Final = Context()
"""No span around: without it the SDK would look for one."""

_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that are an error of the server, as the conventions have it; the others are their caller's."""

_CACHE_WRITE: Final = "cache_write_tokens"

_USAGE: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    _CACHE_WRITE: "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""By the field of `Usage`."""


class _OpenCall(Struct):
    """A call that is recorded."""

    span: Span
    context: Context
    """With the span in it."""
    attempt: Span | None = None
    """Of the last try. It is ended when nothing more can be told of it."""
    attempt_end: int | None = None
    """Nanoseconds since 1970 at which it was over."""


class Tracing(Observer):
    """The traces of one worker. Told by the thread of the event loop."""

    def __init__(
        self,
        provider: TracerProvider,
        url: str | None,
        servers: Mapping[str, tuple[str, int]],
        version: str,
        *,
        latest: bool = False,
    ) -> None:
        """Spans go to `url` once `start` is called, or to nobody. `servers` are host and port by the provider's name.

        With `latest` attributes have their newest names, as `antiphon.telemetry.names.wants_latest` has it.
        """
        self._provider = provider
        self._url = url
        self._servers = servers
        self._tracer = provider.get_tracer("antiphon", version, schema_url=SCHEMA)
        self._usage = {**_USAGE, _CACHE_WRITE: "gen_ai.usage.cache_write.input_tokens"} if latest else _USAGE
        self._open: dict[Call, _OpenCall] = {}

    def start(self) -> None:
        """Begin to export."""
        if self._url is not None:
            export(self._provider, self._url)

    def started(self, call: Call) -> None:
        """Begin the span of the call, below its caller's."""
        caller = call.trace
        around = _NOWHERE if caller is None else trace.set_span_in_context(NonRecordingSpan(_context_of(caller)), _NOWHERE)
        attributes = {"rpc.system.name": "grpc", "rpc.method": call.method}
        span = self._tracer.start_span(call.method, around, SpanKind.SERVER, attributes, start_time=_since_1970(call.started_at))
        if not span.is_recording():
            return
        span.set_attribute("antiphon.request_id", call.request_id)
        call.trace = _trace_of(span, "" if caller is None else caller.state)
        self._open[call] = _OpenCall(span, trace.set_span_in_context(span, _NOWHERE))

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        """Begin the span of the try, and have the provider told of it."""
        known = self._open.get(call)
        if known is None:
            set_outgoing_trace(call.trace)
            return
        _end_attempt(known)
        attributes: dict[str, AttributeValue] = {}
        if attempt.model:
            name = f"chat {attempt.model}"
            attributes["gen_ai.operation.name"] = "chat"
            attributes["gen_ai.provider.name"] = attempt.provider
            attributes["gen_ai.request.model"] = attempt.model
            attributes["gen_ai.request.stream"] = attempt.streamed
            if attempt.provider in self._servers:
                attributes["server.address"], attributes["server.port"] = self._servers[attempt.provider]
        else:  # a proxied call, of which nothing is known but where it goes
            name = "POST"
            attributes["http.request.method"] = "POST"
            attributes["server.address"] = attempt.provider
        begun = _since_1970(attempt.started_at)
        known.attempt = self._tracer.start_span(name, known.context, SpanKind.CLIENT, attributes, start_time=begun)
        known.attempt_end = None
        set_outgoing_trace(_trace_of(known.attempt, "" if call.trace is None else call.trace.state))

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Tell how the try went. What it used is told later."""
        set_outgoing_trace(None)
        known = self._open.get(call)
        if known is None or known.attempt is None:
            return
        known.attempt_end = time.time_ns()
        if attempt.streamed and call.first_token is not None:
            known.attempt.set_attribute("gen_ai.response.time_to_first_chunk", call.first_token)
        end = classify(error, has_output=call.first_token is not None)
        if end is not AttemptClass.OK:
            known.attempt.set_attribute("error.type", end.value)
            if end is not AttemptClass.GONE:
                known.attempt.set_status(StatusCode.ERROR)

    def settled(self, call: Call) -> None:
        """Tell what the reply used."""
        known, usage = self._open.get(call), call.usage
        if known is None or known.attempt is None or usage is None:
            return
        for field, name in self._usage.items():
            if (count := getattr(usage, field)) or field in {"input_tokens", "output_tokens"}:
                known.attempt.set_attribute(name, count)

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """End the spans of the call. One without a good key leaves none: else strangers could fill the collector."""
        known = self._open.pop(call, None)
        if known is None or (error is not None and error.reason is Reason.UNAUTHENTICATED):
            return
        _end_attempt(known)
        span = known.span
        span.set_attribute("rpc.response.status_code", code)
        if call.route:
            span.set_attribute("antiphon.route", call.route)
        if call.cost_usd is not None:
            span.set_attribute("antiphon.cost_usd", call.cost_usd)
        if error is not None:
            span.set_attribute("error.type", error.reason.value)
        if code in _FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end()

    def stopped(self) -> None:
        """Have the last spans arrive."""
        flush(self._provider)


def _end_attempt(known: _OpenCall) -> None:
    if known.attempt is not None:
        known.attempt.end(known.attempt_end)
        known.attempt = None


def _since_1970(monotonic: float) -> int:
    """Return the nanoseconds since 1970 of a time of the monotonic clock."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)


def _context_of(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    ids = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(context.flags), trace_state=state)


def _trace_of(span: Span, state: str) -> TraceContext:
    context = span.get_span_context()
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)
