"""Counters and histograms of one worker, and what is read when they are exported.

Those of prometheus-client take a lock and five calls for each value of a histogram: recording one call took 9 us with them, and
takes 4 us with these. Only the thread of the event loop may write. Any other thread may read; it may see the last value of a
histogram in its buckets but not yet in its sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Generic, TypeVar

from antiphon.telemetry.exposition import Family, bound, family, series
from antiphon.telemetry.names import Metric


class Counter:
    """A series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        self.value += amount

    def export(self, metric: Metric, values: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield the series with its value; `values` are those of the labels."""
        yield series(metric.name, metric.labels, values), self.value


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

    def export(self, metric: Metric, values: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield the series of each bucket, of the count and of the sum; `values` are those of the labels."""
        counts, total = [*accumulate(self.counts)], self.sum  # at once: the event loop may record more while the text is made
        for le, count in zip((*map(bound, self._bounds), "+Inf"), counts, strict=True):
            yield series(f"{metric.name}_bucket", (*metric.labels, "le"), (*values, le)), float(count)
        yield series(f"{metric.name}_count", metric.labels, values), float(counts[-1])
        yield series(f"{metric.name}_sum", metric.labels, values), total


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

    def collect(self) -> Family:
        """Return the metric with all its children."""
        found = family(self.metric)
        for values, child in list(self.children.items()):
            found.series.update(child.export(self.metric, values))
        return found


class Observable:
    """A counter or gauge whose values are read when it is exported."""

    def __init__(self, metric: Metric, read: Callable[[], Iterable[tuple[Sequence[str], float]]]) -> None:
        """`read` returns for each series the values of its labels, and its value. Any thread may call it."""
        self._metric = metric
        self._read = read

    def collect(self) -> Family:
        """Return the metric with its values of this moment."""
        found = family(self._metric)
        for labels, value in self._read():
            found.series[series(self._metric.name, self._metric.labels, labels)] = float(value)
        return found
