"""Metrics in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.

Written here, as prometheus-client would bring an HTTP server and a client into each worker: 2 MB. May import the standard library
and `telemetry.names` only, as the supervisor uses it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from antiphon.telemetry.names import Metric


class Family(NamedTuple):
    """A metric: its HELP and TYPE lines, its type, and the values of its series by their text."""

    head: str
    kind: str
    series: dict[str, float]


def family(metric: Metric) -> Family:
    """Return a metric that has no series yet."""
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return Family(f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.kind}\n", metric.kind, {})


def series(name: str, labels: Sequence[str], values: Sequence[str]) -> str:
    """Return the text of a series: its name, and its labels in the order of their names."""
    if not labels:
        return name
    pairs = [f'{label}="{_escaped(value)}"' for label, value in sorted(zip(labels, values, strict=True))]
    return f"{name}{{{','.join(pairs)}}}"


@cache
def bound(value: float) -> str:
    """Return the upper bound of a bucket as the label `le` has it: from a million on with an exponent, as in Go."""
    if value < 1e6:
        return repr(value)
    mantissa, exponent = f"{value:.15e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"


def render(families: Iterable[Family]) -> str:
    """Return the metrics as Prometheus text."""
    return "".join(each.head + "".join(f"{text} {value!r}\n" for text, value in each.series.items()) for each in families)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
