"""The table of metrics."""

from antiphon.telemetry import names
from antiphon.telemetry.names import TABLE, Kind


def test_every_metric_is_in_the_table_once() -> None:
    """And by the rules of Prometheus' names: counters end in _total, histograms have buckets."""
    declared = [value for value in vars(names).values() if isinstance(value, names.Metric)]
    assert sorted(TABLE) == sorted(declared)
    assert len({metric.name for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(metric.buckets)


def test_no_label_is_of_a_caller() -> None:
    """Owners, keys and conversations are too many, and nobody's business there."""
    labels = {label for metric in TABLE for label in metric.labels}
    assert not labels & {"owner", "key", "caller", "conversation", "request_id", "peer"}
