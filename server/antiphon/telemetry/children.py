"""Counters and histograms of one worker, by their labels: prometheus-client writes them, and they count for themselves.

Its own children take a lock and five calls for each value of a histogram: what a call tells took 9 us with them, and takes 4 with
these. They are told by one thread, that of the event loop, and may be read by any other, which may find the last value in the count
of a histogram and not in its sum yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from antiphon.telemetry.names import Kind, Metric


class Counter:
    """A series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.value += amount


class Histogram:
    """The values of a series by buckets, each up to a bound and with it, and the last for what lies above all."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


Child = TypeVar("Child", Counter, Histogram)


class Children(Generic[Child]):
    """A metric and its children, made when they are first asked for; the one of a metric without labels is there at once."""

    metric: Metric

    def __init__(self, metric: Metric, make: Callable[[], Child]) -> None:
        self.metric = metric
        self.children: dict[tuple[str, ...], Child] = {}
        self._make: Callable[[], Child] = make
        if not metric.labels:
            self.labels()

    def labels(self, *values: str) -> Child:
        """Return the child with these labels, in the order of the table."""
        found = self.children.get(values)
        if found is None:
            assert len(values) == len(self.metric.labels)
            found = self.children[values] = self._make()
        return found

    def collect(self) -> Iterable[Family]:
        """Yield the metric, for prometheus-client."""
        metric: Metric = self.metric
        counters = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        les = [*map(floatToGoString, metric.buckets), "+Inf"]
        for values, child in list(self.children.items()):
            if isinstance(child, Counter):
                counters.add_metric(values, child.value)
            else:
                buckets = list(zip(les, map(float, accumulate(child.counts)), strict=True))
                histograms.add_metric(values, buckets, child.sum)
        yield counters if metric.kind is Kind.COUNTER else histograms
