"""Tests of the table of metrics."""

import pytest

from antiphon.telemetry import names
from antiphon.telemetry.names import LATEST, TABLE, Kind, wants_latest


def test_every_metric_is_in_the_table_once() -> None:
    """Every metric is in the table once, and is named by Prometheus' rules.

    Counters end in `_total`, and only histograms have buckets.
    """
    declared = [value for value in vars(names).values() if isinstance(value, names.Metric)]
    latest = [metric for metrics in LATEST.values() for metric in metrics]
    assert sorted([*TABLE, *latest]) == sorted(declared)
    assert len({metric.name for metric in declared}) == len(declared)
    for metric in declared:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(metric.buckets)


def test_no_label_names_a_caller() -> None:
    """No label has an owner, key or conversation: they are too many, and are private."""
    labels = {label for metric in TABLE for label in metric.labels}
    assert not labels & {"owner", "key", "caller", "conversation", "request_id", "peer"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("", False), ("http", False), ("gen_ai_latest_experimental", True), ("http/dup, gen_ai_latest_experimental", True)],
)
def test_the_latest_names_are_enabled_by_opentelemetrys_variable(value: str, wanted: bool) -> None:
    """The newest names are enabled by OTEL_SEMCONV_STABILITY_OPT_IN, which may list more values."""
    assert wants_latest({"OTEL_SEMCONV_STABILITY_OPT_IN": value}) is wanted
    assert not wants_latest({})
