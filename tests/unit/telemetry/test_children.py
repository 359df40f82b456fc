"""Tests of counters and histograms against those of prometheus-client."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from antiphon.telemetry.children import Children, Counter, Histogram
from antiphon.telemetry.names import Kind, Metric
from antiphon.up.families import Families, parse

BUCKETS = (0.0, 0.5, 1.0, 2.5)
VALUES = st.sampled_from(BUCKETS) | st.floats(min_value=0, max_value=4)


def families_of(registry: CollectorRegistry) -> Families:
    families = parse(generate_latest(registry).decode())
    return {name: family for name, family in families.items() if not name.endswith("_created")}


@given(st.lists(st.tuples(st.text(max_size=3), VALUES)))
def test_the_output_equals_that_of_prometheus_client(observations: list[tuple[str, float]]) -> None:
    """The output equals that of prometheus-client, for any labels and values. A value on a bound is in that bucket."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    took = Children(Metric("took_seconds", Kind.HISTOGRAM, "Time", ("a",), BUCKETS), lambda: Histogram(BUCKETS))
    calls = Children(Metric("calls_total", Kind.COUNTER, "Calls"), Counter)
    ours.register(took)
    ours.register(calls)
    their_took = prometheus_client.Histogram("took_seconds", "Time", ["a"], buckets=BUCKETS, registry=theirs)
    their_calls = prometheus_client.Counter("calls_total", "Calls", registry=theirs)
    for label, value in observations:
        took.labels(label).observe(value)
        calls.labels().inc(value)
        their_took.labels(label).observe(value)
        their_calls.inc(value)
    assert families_of(ours) == families_of(theirs)


def test_the_same_labels_give_the_same_child() -> None:
    """The same labels give the same object, which callers may keep."""
    calls = Children(Metric("calls_total", Kind.COUNTER, "Calls", ("a", "b")), Counter)
    assert calls.labels("x", "y") is calls.labels("x", "y")
    assert calls.labels("x", "y") is not calls.labels("y", "x")
