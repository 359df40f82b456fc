"""Tests of adding up the metrics of several processes."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from antiphon.telemetry.exposition import render
from antiphon.up.families import Families, add, parse

ODD = 'a "quoted" \\ and\nbroken, {label} 1 2'


def exposition(times: int) -> str:
    registry = CollectorRegistry()
    Counter("calls_total", "Calls", ["model"], registry=registry).labels(ODD).inc(times)
    Histogram("took_seconds", "Time", ["a", "b"], buckets=(1, 2), registry=registry).labels("x", "y").observe(times)
    Gauge("open", "Open ones", registry=registry).set(times)
    Gauge("build_info", "Version", ["version"], registry=registry).labels("1").set(1)
    return generate_latest(registry).decode()


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return the values as Prometheus' own parser reads them."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name, *s.labels.values()): s.value for s in found if not s.name.endswith("_created")}


def test_what_is_read_is_written_as_it_was() -> None:
    """Metrics that are parsed and rendered are unchanged, with any characters in labels."""
    text = exposition(2)
    assert values(render(parse(text).values())) == values(text)


def test_series_are_added_up() -> None:
    """Counters, buckets and gauges are added up; info metrics stay 1."""
    total: Families = {}
    for times in (1, 2):
        add(total, parse(exposition(times)))
    found = values(render(total.values()))
    assert found["calls_total", ODD] == 3
    assert found["took_seconds_sum", "x", "y"] == 3
    assert [found["took_seconds_bucket", "x", "y", le] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert found["open",] == 3
    assert found["build_info", "1"] == 1


def test_gauges_end_with_their_process() -> None:
    """With `gauges=False` only counters and histograms are added."""
    total: Families = {}
    add(total, parse(exposition(1)), gauges=False)
    assert {name for name, *_ in values(render(total.values()))} == {
        "calls_total",
        "took_seconds_bucket",
        "took_seconds_count",
        "took_seconds_sum",
    }


def test_a_value_that_is_not_a_number_is_refused() -> None:
    """A value that is not a number raises `ValueError`."""
    with pytest.raises(ValueError, match="could not convert"):
        parse("# TYPE a counter\na b\n")
