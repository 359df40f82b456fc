"""Traces: an observer that creates a span for each call and one for each attempt. They contain no content, key or URL.

Names and attributes are those of OpenTelemetry's semantic conventions 1.41. A call that is not sampled has no span, and its
caller's trace context is passed on unchanged.

The spans are made here, and not by the library's tracer: one of its own costs 50 us, as any thread may read and change it at any
time. The spans of a call belong to one thread. Those of several calls that have ended are encoded and handed over together. That
costs less than to do it at the end of each call, as the code and its data are then in the processor's caches.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from random import getrandbits
from typing import Final

from msgspec import Struct
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Decision, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError, Reason
from antiphon.domain.events import Usage
from antiphon.domain.trace import TraceContext, set_outgoing_trace
from antiphon.telemetry.otlp import SpanPipeline, export, flush
from antiphon.telemetry.span import CLIENT, SERVER, Span, Value, encode_attribute, encode_unique

SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"

_EMPTY_CONTEXT: Final = Context()
"""A context without a span: without it the SDK would search for a current span."""

_SERVER_ERRORS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that the conventions count as an error of the server; all others are errors of the caller."""

_RANDOM: Final = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID
"""The flags of a trace that begins here."""

_MOST_TOGETHER: Final = 32
"""The most calls whose spans are encoded and handed over together."""

_LONGEST_WAIT: Final = 0.1
"""The most seconds that the spans of an ended call wait for those of others."""

_CACHE_WRITE: Final = "cache_write_tokens"

_USAGE: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    _CACHE_WRITE: "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""The span attribute by the field of `Usage`."""


class _CallSpans(Struct):
    """The spans of a call that is being recorded, until they are encoded."""

    span: Span
    attempt: Span | None = None
    """The span of the last attempt."""
    ended: bytes = b""
    """Those of the attempts before, encoded."""
    code: str = ""
    """The status of the call. It and the fields below are known once the call has ended."""
    reason: str | None = None
    route: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None


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
        self._samples_roots = provider.sampler in (ALWAYS_ON, DEFAULT_ON)  # asking them takes longer than all else of a span
        self._open: dict[Call, _CallSpans] = {}
        self._ended: deque[_CallSpans] = deque()
        """The calls that have ended and whose spans are not encoded yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Set by `start`. Without it spans are handed over at the end of each call."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the export. To be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        if self._url is not None:
            export(self._provider, self._url, self._scope)

    def started(self, call: Call) -> None:
        """Start the span of the call, as a child of its caller's span."""
        caller = call.trace
        if caller is None:
            trace_id, flags = getrandbits(128) or 1, _RANDOM
        else:
            trace_id, flags = int(caller.trace_id, 16), TraceFlags.SAMPLED | caller.flags
        attributes, state = _of_call(call.method), ""
        if caller is not None or not self._samples_roots:
            sampled = self._sample(call.method, trace_id, caller)
            if sampled.decision is not Decision.RECORD_AND_SAMPLE:
                return
            # A sampler may add attributes to those that it was given; lists of values are not exported.
            given = dict(sampled.attributes or {})
            attributes = b"".join([encode_attribute(name, value) for name, value in given.items() if isinstance(value, Value)])
            state = sampled.trace_state.to_header() if sampled.trace_state else ""
        call.trace = TraceContext(f"{trace_id:032x}", _span_id(), flags, state)
        above, is_remote = ("", False) if caller is None else (caller.span_id, True)
        attributes += encode_unique("antiphon.request_id", call.request_id)
        span = Span(call.method, SERVER, call.trace, above, time.time_ns(), is_remote, attributes=attributes)
        self._open[call] = _CallSpans(span)

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        """Start the span of the attempt, and pass its trace context to the provider."""
        state = self._open.get(call)
        if state is None:
            set_outgoing_trace(call.trace)
            return
        if state.attempt is not None:
            state.ended += state.attempt.encode()
        name, attributes = _of_attempt(
            attempt.provider,
            attempt.model,
            attempt.streamed,
            attempt.deployment,
            attempt.number,
            self._servers.get(attempt.provider),
        )
        above = state.span.context
        context = TraceContext(above.trace_id, _span_id(), above.flags, above.state)
        state.attempt = Span(name, CLIENT, context, above.span_id, time.time_ns(), attributes=attributes)
        set_outgoing_trace(context)

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Record the outcome of the attempt. Its usage is added when the call has ended."""
        set_outgoing_trace(None)
        state = self._open.get(call)
        if state is None or state.attempt is None:
            return
        state.attempt.end = time.time_ns()
        if attempt.streamed and call.first_token is not None:
            state.attempt.attributes += encode_unique("gen_ai.response.time_to_first_chunk", call.first_token)
        if error is not None:
            end = classify(error, has_output=call.first_token is not None)
            state.attempt.attributes += encode_attribute("error.type", end.value)
            if end is not AttemptClass.GONE:
                state.attempt.is_error = True

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """End the spans of the call. An unauthenticated call is not exported: otherwise strangers could fill the collector."""
        state = self._open.pop(call, None)
        if state is None or (error is not None and error.reason is Reason.UNAUTHENTICATED):
            return
        state.span.end = time.time_ns()
        state.code, state.route, state.usage, state.cost_usd = code, call.route, call.usage, call.total_cost_usd
        if error is not None:
            state.reason = error.reason.value
        self._ended.append(state)
        if self._loop is None or len(self._ended) >= _MOST_TOGETHER:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(_LONGEST_WAIT, self._hand_over)

    def stopped(self) -> None:
        """Hand over the last spans, and wait until they are exported."""
        self._hand_over()
        flush(self._provider)

    def _hand_over(self) -> None:
        """Encode the spans of the calls that have ended, and export them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ended:  # if the spans of one call cannot be encoded, those of others still are, later
            self._provider.take(self._encode(self._ended.popleft()))

    def _encode(self, state: _CallSpans) -> bytes:
        """Return the spans of a call that has ended."""
        span, attempt, usage = state.span, state.attempt, state.usage
        span.attributes += encode_attribute("rpc.response.status_code", state.code)
        if state.route:
            span.attributes += encode_attribute("antiphon.route", state.route)
        if state.cost_usd is not None:
            span.attributes += encode_unique("antiphon.cost_usd", state.cost_usd)
        if state.reason is not None:
            span.attributes += encode_attribute("error.type", state.reason)
        span.is_error = state.code in _SERVER_ERRORS
        if attempt is None:
            return span.encode()
        if usage is not None:
            for field, name in self._usage.items():
                if (count := getattr(usage, field)) or field in {"input_tokens", "output_tokens"}:
                    attempt.attributes += encode_attribute(name, count)
        return state.ended + attempt.encode() + span.encode()

    def _sample(self, method: str, trace_id: int, caller: TraceContext | None) -> SamplingResult:
        """Ask the sampler whether a call is recorded. `caller` is the trace context that it came with."""
        around = _EMPTY_CONTEXT
        if caller is not None:
            state = TraceState.from_header([caller.state]) if caller.state else None
            parent = SpanContext(trace_id, int(caller.span_id, 16), True, TraceFlags(caller.flags), state)  # noqa: FBT003  # is_remote
            around = trace.set_span_in_context(NonRecordingSpan(parent), around)
        return self._provider.sampler.should_sample(around, trace_id, method, SpanKind.SERVER, _call_attributes(method))


def _span_id() -> str:
    """Return a new id; zero is not one."""
    return f"{getrandbits(64) or 1:016x}"


@lru_cache(256)
def _of_call(method: str) -> bytes:
    """Return the attributes that all calls of a method have."""
    return b"".join([encode_attribute(name, value) for name, value in _call_attributes(method).items()])


def _call_attributes(method: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": method}


@lru_cache(1024)
def _of_attempt(
    provider: str, model: str, streamed: bool, deployment: str, number: int, server: tuple[str, int] | None
) -> tuple[str, bytes]:
    """Return the name and the attributes of an attempt's span, as far as they are known when it begins."""
    if not model:  # a proxied call, of which only the target is known
        return "POST", encode_attribute("http.request.method", "POST") + encode_attribute("server.address", provider)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.request.stream": streamed,
    }
    if deployment != provider:
        attributes["antiphon.deployment"] = deployment
    if number > 1:
        attributes["antiphon.attempt"] = number
    if server is not None:
        attributes["server.address"], attributes["server.port"] = server
    return f"chat {model}", b"".join([encode_attribute(name, value) for name, value in attributes.items()])
