"""Tests of counters, histograms and the text format against those of prometheus-client."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from antiphon.telemetry.children import Children, Counter, Histogram, Observable
from antiphon.telemetry.exposition import render
from antiphon.telemetry.names import Kind, Metric
from antiphon.up.families import Families, parse

BUCKETS = (0.0, 0.00001, 0.5, 1.0, 2.5, 262_144.0, 1e6, 67_108_864.0)
VALUES = st.sampled_from(BUCKETS) | st.floats(min_value=0, max_value=4)
TEXTS = st.text(max_size=3) | st.text('\\n"\n{},= ', max_size=5)


def families_of(text: str) -> Families:
    families = parse(text)
    return {name: family for name, family in families.items() if not name.endswith("_created")}


@given(st.lists(st.tuples(TEXTS, VALUES)), TEXTS)
def test_the_output_equals_that_of_prometheus_client(observations: list[tuple[str, float]], text: str) -> None:
    """The output equals that of prometheus-client, for any text, label and value. A value on a bound is in that bucket."""
    theirs = CollectorRegistry()
    took = Children(Metric("took_seconds", Kind.HISTOGRAM, text, ("a",), BUCKETS), lambda: Histogram(BUCKETS))
    calls = Children(Metric("calls_total", Kind.COUNTER, "Calls"), Counter)
    last = Observable(Metric("last", Kind.GAUGE, "Last", ("a", "b")), lambda: [((text, "x"), 1), (("", text), 2.5)])
    their_took = prometheus_client.Histogram("took_seconds", text, ["a"], buckets=BUCKETS, registry=theirs)
    their_calls = prometheus_client.Counter("calls_total", "Calls", registry=theirs)
    their_last = prometheus_client.Gauge("last", "Last", ["a", "b"], registry=theirs)
    their_last.labels(text, "x").set(1)
    their_last.labels("", text).set(2.5)
    for label, value in observations:
        took.labels(label).observe(value)
        calls.labels().inc(value)
        their_took.labels(label).observe(value)
        their_calls.inc(value)
    ours = render([took.collect(), calls.collect(), last.collect()])
    assert families_of(ours) == families_of(generate_latest(theirs).decode())


def test_sum_and_count_are_of_one_moment() -> None:
    """What is recorded while a histogram is being exported is in its sum and its count, or in neither."""
    took = Children(Metric("took_seconds", Kind.HISTOGRAM, "Time", (), BUCKETS), lambda: Histogram(BUCKETS))
    took.labels().observe(1)
    exported = {}
    for name, value in took.labels().export(took.metric, ()):
        took.labels().observe(1)
        exported[name] = value
    assert exported["took_seconds_sum"] == exported["took_seconds_count"] == 1


def test_the_same_labels_give_the_same_child() -> None:
    """The same labels give the same object, which callers may keep."""
    calls = Children(Metric("calls_total", Kind.COUNTER, "Calls", ("a", "b")), Counter)
    assert calls.labels("x", "y") is calls.labels("x", "y")
    assert calls.labels("x", "y") is not calls.labels("y", "x")
