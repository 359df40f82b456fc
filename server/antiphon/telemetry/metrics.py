"""What a worker counts: a listener to calls, with a Prometheus metric for each row of `antiphon.telemetry.names`.

A call looks up ready children in dictionaries, one for each set of labels, and no child is made for what a caller invents.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError, BudgetExceeded, RateLimited, Reason
from antiphon.domain.events import Usage
from antiphon.telemetry import names
from antiphon.telemetry.children import Children, Counter, Histogram
from antiphon.telemetry.names import OTHER, Kind, Metric

_CHAT: Final = "chat"
"""The operation, as the semantic conventions name it."""

_KINDS: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cached_tokens": "cached_input",
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning",
    "audio_input_tokens": "audio_input",
    "audio_output_tokens": "audio_output",
}
"""By the field of `Usage`."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class _Model(Struct, frozen=True):
    """The children of one model of one provider."""

    input: Histogram
    output: Histogram
    first_token: Histogram
    output_token: Histogram
    cost: Counter
    estimated: Counter
    duration: dict[AttemptClass, Histogram]


class _OpenCall(Struct):
    """What has to be kept of a call until it ends."""

    asked: bool = False
    attempts: float = 0.0
    """Seconds that its attempts took."""
    generation: float | None = None
    """Seconds from the first token to the end of a streamed reply that ended well."""


class Metrics(Observer):
    """The metrics of one worker. Read by any thread, told by that of the event loop."""

    def __init__(
        self,
        models: Mapping[str, Collection[str]],
        proxies: Collection[str],
        version: str,
        buffered: Callable[[], float] = lambda: 0,
        *,
        latest: bool = False,
    ) -> None:
        """`models` are the names that may be labels, by provider; `proxies` are targets of the proxy that may.

        `buffered` tells the bytes that wait for slow readers; it is asked by any thread. With `latest` the newest names of the
        conventions are used, as `names.LATEST` has them.
        """
        self._models = {provider: frozenset(listed) for provider, listed in models.items()}
        self._providers = frozenset({*models, *proxies})
        self._registry = CollectorRegistry()
        self._open: dict[Call, _OpenCall] = {}
        self._by_model: dict[tuple[str, str], _Model] = {}
        self._calls = self._histogram(names.CALL_DURATION)
        self._durations = self._histogram(names.INFERENCE_DURATION if latest else names.OPERATION_DURATION)
        self._input, self._output = self._usage(latest=latest)
        self._first_token = self._histogram(names.FIRST_CHUNK if latest else names.FIRST_TOKEN)
        self._output_token = self._histogram(names.OUTPUT_TOKEN)
        self._gauge(names.IN_FLIGHT).set_function(lambda: len(self._open))
        self._gauge(names.STREAM_BUFFER).set_function(buffered)
        self._attempts = self._counter(names.ATTEMPTS)
        self._cancelled = self._counter(names.CANCELLED)
        self._cancel = self._histogram(names.CANCEL)
        self._cost = self._counter(names.COST)
        self._tokens = self._counter(names.TOKENS)
        self._estimated = self._counter(names.ESTIMATED)
        self._overhead = self._histogram(names.OVERHEAD).labels()
        self.lag: Callable[[float], None] = self._histogram(names.LAG).labels().observe
        """Takes seconds by which the event loop was late."""
        self._turns = self._counter(names.TURNS)
        self._refused = self._counter(names.REFUSED)
        self._failed = self._counter(names.FAILED)
        self._gauge(names.WORKERS).set(1)
        self._gauge(names.BUILD).labels(version, platform.python_version()).set(1)
        self._registry.register(_Process())
        # From zero: Prometheus sees no increase in a series that begins with its first failures.
        for provider in models:
            for end in AttemptClass:
                self._attempts.labels(provider, end)
        for reason in Reason:
            self._failed.labels(reason)

    def exposition(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)

    def started(self, call: Call) -> None:
        """Count the call among those that go on."""
        self._open[call] = _OpenCall()

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Count the attempt, and how long it took. Proxied calls have no model, and are attempts alone."""
        took = time.monotonic() - attempt.started_at
        known = self._open.get(call)
        if known is not None:
            known.asked = True
            known.attempts += took
        end = classify(error, has_output=call.first_token is not None)
        self._attempts.labels(self._provider(attempt.provider), end).inc()
        if not attempt.model:
            return
        model = self._model(attempt.provider, attempt.model)
        duration = model.duration.get(end)
        if duration is None:
            duration = self._duration(model, end, attempt)
        duration.observe(took)
        if attempt.streamed and call.first_token is not None:
            model.first_token.observe(call.first_token)
            if known is not None and error is None:
                known.generation = took - call.first_token

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        """Count it, and how long it took."""
        provider = self._provider(attempt.provider)
        self._cancelled.labels(provider).inc()
        self._cancel.labels(provider).observe(seconds)

    def settled(self, call: Call) -> None:
        """Count tokens and cost, and the time that a token took."""
        usage = call.usage
        if usage is None or not call.model:
            return
        model = self._model(call.provider, call.model)
        model.input.observe(usage.input_tokens)
        model.output.observe(usage.output_tokens)
        self._count(usage, *self._labels(call.provider, call.model))
        if usage.estimated:
            model.estimated.inc()
        if call.cost_usd:
            model.cost.inc(call.cost_usd)
        known = self._open.get(call)
        if known is not None and known.generation is not None and usage.output_tokens > 1:
            model.output_token.observe(known.generation / (usage.output_tokens - 1))

    def turn_ended(self, call: Call, outcome: str) -> None:
        """Count it."""
        self._turns.labels(outcome).inc()

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """Count the call by its end, and what of its time was the gateway's own."""
        took = time.monotonic() - call.started_at
        self._calls.labels(call.method, code).observe(took)
        known = self._open.pop(call, None)
        if known is not None and known.asked:
            self._overhead.observe(max(took - known.attempts, 0.0))
        if error is not None:
            self._failed.labels(error.reason).inc()
            if isinstance(error, RateLimited | BudgetExceeded):
                self._refused.labels(error.limit, error.scope).inc()

    def _count(self, usage: Usage, provider: str, model: str) -> None:
        for field, kind in _KINDS.items():
            if count := getattr(usage, field):
                self._tokens.labels(provider, model, kind).inc(count)

    def _provider(self, name: str) -> str:
        return name if name in self._providers else OTHER

    def _labels(self, provider: str, model: str) -> tuple[str, str]:
        known = self._provider(provider)
        return known, model if model in self._models.get(known, ()) else OTHER

    def _model(self, provider: str, model: str) -> _Model:
        """Return the children of a model. By the caller's words only those are kept that the configuration has."""
        found = self._by_model.get((provider, model))
        if found is None:
            labels = self._labels(provider, model)
            found = self._by_model.get(labels) or self._by_model.setdefault(labels, self._make(*labels))
        return found

    def _make(self, provider: str, model: str) -> _Model:
        operation = (_CHAT, provider, model)
        return _Model(
            input=self._input(*operation),
            output=self._output(*operation),
            first_token=self._first_token.labels(*operation),
            output_token=self._output_token.labels(*operation),
            cost=self._cost.labels(provider, model),
            estimated=self._estimated.labels(provider, model),
            duration={},
        )

    def _duration(self, model: _Model, end: AttemptClass, attempt: Attempt) -> Histogram:
        error_type = "" if end is AttemptClass.OK else end
        found = self._durations.labels(_CHAT, *self._labels(attempt.provider, attempt.model), error_type)
        model.duration[end] = found
        return found

    def _usage(self, *, latest: bool) -> tuple[Callable[..., Histogram], Callable[..., Histogram]]:
        """Return what makes the children of a model for tokens that are asked, and for those that are answered."""
        if latest:
            return self._histogram(names.INPUT_TOKENS).labels, self._histogram(names.OUTPUT_TOKENS).labels
        usage = self._histogram(names.TOKEN_USAGE)
        return lambda *operation: usage.labels(*operation, "input"), lambda *operation: usage.labels(*operation, "output")

    def _counter(self, metric: Metric) -> Children[Counter]:
        assert metric.kind is Kind.COUNTER
        found = Children(metric, Counter)
        self._registry.register(found)
        return found

    def _gauge(self, metric: Metric) -> Gauge:
        assert metric.kind is Kind.GAUGE
        return Gauge(metric.name, metric.help, metric.labels, registry=self._registry)

    def _histogram(self, metric: Metric) -> Children[Histogram]:
        assert metric.kind is Kind.HISTOGRAM
        found = Children(metric, partial(Histogram, metric.buckets))
        self._registry.register(found)
        return found


class _Process:
    """What the system tells of this process, when it is asked for."""

    def collect(self) -> Iterable[Family]:
        """Yield CPU time and resident memory."""
        used = os.times()
        yield CounterMetricFamily(names.CPU.name, names.CPU.help, value=used.user + used.system)
        try:
            with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no path is kept
                pages = int(file.read().split()[1])
        except OSError:
            return  # no Linux
        yield GaugeMetricFamily(names.MEMORY.name, names.MEMORY.help, value=pages * _PAGE)
