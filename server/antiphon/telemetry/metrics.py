"""The metrics of a worker: an observer of calls, with a Prometheus metric for each row of `antiphon.telemetry.names`.

The children of each combination of labels are kept ready in dictionaries. Values that a caller invents never become a label.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Final

from msgspec import Struct

from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.errors import AntiphonError, BudgetExceeded, RateLimited, Reason
from antiphon.domain.events import Usage
from antiphon.telemetry import names
from antiphon.telemetry.children import Children, Counter, Histogram, Observable
from antiphon.telemetry.exposition import render
from antiphon.telemetry.names import OTHER, Kind, Metric

_CHAT: Final = "chat"
"""The operation name of a chat in the semantic conventions."""

_KINDS: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cached_tokens": "cached_input",
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning",
    "audio_input_tokens": "audio_input",
    "audio_output_tokens": "audio_output",
}
"""The label `kind` of `antiphon_tokens_total` by the field of `Usage`."""

_MAX_CACHED: Final = 1024
"""Names of models, also those that only a caller knows, whose children are found at once."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class _Model(Struct, frozen=True):
    """The children of one model of one provider."""

    input: Histogram
    output: Histogram
    first_token: Histogram
    output_token: Histogram
    cost: Counter
    estimated: Counter
    tokens: Callable[[str], Counter]
    """Returns the counter of a kind of tokens."""
    duration: Callable[[AttemptClass], Histogram]
    """Returns the durations of the attempts that ended in this way."""


class _OpenCall(Struct):
    """The state of a call that is kept until it ends."""

    attempted: bool = False
    attempt_seconds: float = 0.0
    """The total duration of its attempts, in seconds."""
    generation: float | None = None
    """Seconds from the first token to the end of a streamed reply that ended without an error."""


class CallMetrics(Observer):
    """The metrics of one worker. Only the thread of the event loop writes them; any thread may read them."""

    def __init__(
        self,
        models: Mapping[str, Collection[str]],
        proxies: Collection[str],
        version: str,
        buffered: Callable[[], float] = lambda: 0,
        coalescing: Callable[[], float] = lambda: 0,
        breakers: Callable[[], Mapping[tuple[str, str], int]] = dict,
        *,
        latest: bool = False,
    ) -> None:
        """Create all metrics.

        `models` are the model names that may be labels, by provider; `proxies` are the targets of the proxy paths that may be
        labels. `buffered` returns the bytes that wait for slow readers, and `coalescing` the seconds for which tokens are
        collected; `breakers` returns how many breakers there are by deployment and state. Any thread may call them. `latest`
        selects the newest names of the semantic conventions, as in `names.LATEST`.
        """
        self._models = {provider: frozenset(listed) for provider, listed in models.items()}
        self._providers = frozenset({*models, *proxies})
        self._exported: list[Children[Counter] | Children[Histogram] | Observable] = []
        self._open: dict[Call, _OpenCall] = {}
        self._model = lru_cache(_MAX_CACHED)(self._find)
        self._by_labels = cache(self._make)
        self._calls = self._histogram(names.CALL_DURATION)
        self._durations = self._histogram(names.INFERENCE_DURATION if latest else names.OPERATION_DURATION)
        self._input, self._output = self._usage(latest=latest)
        self._first_token = self._histogram(names.FIRST_CHUNK if latest else names.FIRST_TOKEN)
        self._output_token = self._histogram(names.OUTPUT_TOKEN)
        self._observable(names.IN_FLIGHT, lambda: [((), len(self._open))])
        self._observable(names.STREAM_BUFFER, lambda: [((), buffered())])
        self._observable(names.COALESCING, lambda: [((), coalescing())])
        self._observable(names.BREAKERS, lambda: breakers().items())
        self._queue = self._histogram(names.QUEUE)
        self._attempts = self._counter(names.ATTEMPTS)
        self._cancelled = self._counter(names.CANCELLED)
        self._cancel = self._histogram(names.CANCEL)
        self._cost = self._counter(names.COST)
        self._tokens = self._counter(names.TOKENS)
        self._estimated = self._counter(names.ESTIMATED)
        self._overhead = self._histogram(names.OVERHEAD).labels()
        self.lag: Callable[[float], None] = self._histogram(names.LAG).labels().observe
        """Records a lag of the event loop, in seconds."""
        self._turns = self._counter(names.TURNS)
        self._refused = self._counter(names.REFUSED)
        self._failed = self._counter(names.FAILED)
        self._observable(names.WORKERS, lambda: [((), 1)])
        self._observable(names.BUILD, lambda: [((version, platform.python_version()), 1)])
        self._observable(names.CPU, lambda: [((), time.process_time())])
        self._observable(names.MEMORY, _memory)
        # Start these series at 0: Prometheus sees no increase in a series whose first value is its first failure.
        for provider in models:
            for end in AttemptClass:
                self._attempts.labels(provider, end)
        for reason in Reason:
            self._failed.labels(reason)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return render([metric.collect() for metric in self._exported]).encode()

    def started(self, call: Call) -> None:
        """Count the call as in flight."""
        self._open[call] = _OpenCall()

    def attempt_ended(self, call: Call, attempt: Attempt, error: BaseException | None) -> None:
        """Count the attempt and its duration. A proxied call has no model, and only its attempt is counted."""
        took = time.monotonic() - attempt.started_at
        state = self._open.get(call)
        if state is not None:
            state.attempted = True
            state.attempt_seconds += took
        end = AttemptClass.OK if error is None else classify(error, has_output=call.first_token is not None)
        self._attempts.labels(self._provider(attempt.provider), end).inc()
        if attempt.waited:
            self._queue.labels(attempt.deployment).observe(attempt.waited)
        if not attempt.model:
            return
        model = self._model(attempt.provider, attempt.model)
        model.duration(end).observe(took)
        if attempt.streamed and call.first_token is not None:
            model.first_token.observe(call.first_token)
            if state is not None and error is None:
                state.generation = took - call.first_token

    def cancelled_upstream(self, call: Call, attempt: Attempt, seconds: float) -> None:
        """Count the provider call that was closed early, and the seconds that closing it took."""
        provider = self._provider(attempt.provider)
        self._cancelled.labels(provider).inc()
        self._cancel.labels(provider).observe(seconds)

    def settled(self, call: Call) -> None:
        """Count tokens and cost of the call, and the mean time per output token."""
        for each in call.failed_uses:
            model = self._model(each.provider, each.model)
            _count(each.usage, model)
            if each.cost_usd:
                model.cost.inc(each.cost_usd)
        usage = call.usage
        if usage is None or not call.model:
            return
        model = self._model(call.provider, call.model)
        model.input.observe(usage.input_tokens)
        model.output.observe(usage.output_tokens)
        _count(usage, model)
        if usage.estimated:
            model.estimated.inc()
        if call.cost_usd:
            model.cost.inc(call.cost_usd)
        state = self._open.get(call)
        if state is not None and state.generation is not None and usage.output_tokens > 1:
            model.output_token.observe(state.generation / (usage.output_tokens - 1))

    def turn_ended(self, call: Call, outcome: str) -> None:
        """Count the turn by its outcome."""
        self._turns.labels(outcome).inc()

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """Count the call by its status, and the part of its duration that was spent outside its attempts."""
        took = time.monotonic() - call.started_at
        self._calls.labels(call.method, code).observe(took)
        state = self._open.pop(call, None)
        if state is not None and state.attempted:
            self._overhead.observe(max(took - state.attempt_seconds, 0.0))
        if error is not None:
            self._failed.labels(error.reason).inc()
            if isinstance(error, RateLimited | BudgetExceeded):
                self._refused.labels(error.limit, error.scope).inc()

    def _provider(self, name: str) -> str:
        return name if name in self._providers else OTHER

    def _labels(self, provider: str, model: str) -> tuple[str, str]:
        label = self._provider(provider)
        return label, model if model in self._models.get(label, ()) else OTHER

    def _find(self, provider: str, model: str) -> _Model:
        """Return the children of a model. A provider or model that the configuration does not name is counted as `other`."""
        return self._by_labels(*self._labels(provider, model))

    def _make(self, provider: str, model: str) -> _Model:
        operation = (_CHAT, provider, model)
        return _Model(
            input=self._input(*operation),
            output=self._output(*operation),
            first_token=self._first_token.labels(*operation),
            output_token=self._output_token.labels(*operation),
            cost=self._cost.labels(provider, model),
            estimated=self._estimated.labels(provider, model),
            tokens=partial(self._tokens.labels, provider, model),
            duration=cache(lambda end: self._durations.labels(*operation, "" if end is AttemptClass.OK else end)),
        )

    def _usage(self, *, latest: bool) -> tuple[Callable[..., Histogram], Callable[..., Histogram]]:
        """Return two functions that return the histogram of a model's input tokens, and that of its output tokens."""
        if latest:
            return self._histogram(names.INPUT_TOKENS).labels, self._histogram(names.OUTPUT_TOKENS).labels
        usage = self._histogram(names.TOKEN_USAGE)
        return lambda *operation: usage.labels(*operation, "input"), lambda *operation: usage.labels(*operation, "output")

    def _counter(self, metric: Metric) -> Children[Counter]:
        assert metric.kind is Kind.COUNTER
        found = Children(metric, Counter)
        self._exported.append(found)
        return found

    def _observable(self, metric: Metric, read: Callable[[], Iterable[tuple[Sequence[str], float]]]) -> None:
        self._exported.append(Observable(metric, read))

    def _histogram(self, metric: Metric) -> Children[Histogram]:
        assert metric.kind is Kind.HISTOGRAM
        found = Children(metric, partial(Histogram, metric.buckets))
        self._exported.append(found)
        return found


def _count(usage: Usage, model: _Model) -> None:
    for field, kind in _KINDS.items():
        if count := getattr(usage, field):
            model.tokens(kind).inc(count)


def _memory() -> list[tuple[Sequence[str], float]]:
    """Return the resident memory of this process in bytes; nothing where there is no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no `Path` object for each scrape
            return [((), int(file.read().split()[1]) * _PAGE)]
    except OSError:
        return []
