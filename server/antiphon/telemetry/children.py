"""Counters and histograms of one worker, exported through prometheus-client.

They do not use the children of prometheus-client, which take a lock and five calls for each value of a histogram: recording one
call took 9 us with those, and takes 4 us with these. Only the thread of the event loop may write. Any other thread may read; it may
see the last value of a histogram in its buckets but not yet in its sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cache
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
        """Add `amount`."""
        self.value += amount


class Histogram:
    """The values of a series by bucket. A bucket includes its upper bound; the last one has all values above the bounds."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


Child = TypeVar("Child", Counter, Histogram)


class Children(Generic[Child]):
    """A metric and its children, one for each combination of label values.

    A child is created when it is first requested; that of a metric without labels is created at once.
    """

    metric: Metric

    def __init__(self, metric: Metric, make: Callable[[], Child]) -> None:
        self.metric = metric
        self.children: dict[tuple[str, ...], Child] = {}
        self._make: Callable[[], Child] = make
        self.labels: Callable[..., Child] = cache(self._create)
        """Returns the child with these label values, in the order of `metric.labels`."""
        if not metric.labels:
            self.labels()

    def _create(self, *values: str) -> Child:
        assert len(values) == len(self.metric.labels)
        found = self.children[values] = self._make()
        return found

    def collect(self) -> Iterable[Family]:
        """Yield the metric with all its children, as prometheus-client's registry expects it."""
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
