"""Reads, sums and writes metrics of several processes, in the Prometheus text format.

https://prometheus.io/docs/instrumenting/exposition_formats, as prometheus-client writes it: the labels of a series always have the
same order, so a series is identified by its text. Uses the standard library only. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

GAUGE = "gauge"
COUNTER = "counter"


class Family(NamedTuple):
    """A metric: its HELP and TYPE lines, its type, and the values of its series by their text."""

    head: str
    kind: str
    series: dict[str, float]


Families: TypeAlias = dict[str, Family]
"""Metrics by name."""


def parse(text: str) -> Families:
    """Return the metrics in a text. Raises `ValueError` for a line that is not valid."""
    found: Families = {}
    describing = ""
    family = Family("", "", {})
    for line in text.split("\n"):  # not splitlines: a label may hold other line separators
        if line.startswith("# HELP "):
            describing = line + "\n"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            family = found[name] = Family(describing + line + "\n", kind, {})
        elif line:
            series, _, value = line.rpartition(" ")
            family.series[series] = float(value)
    return found


def add(total: Families, counted: Families, *, gauges: bool = True) -> None:
    """Add the values of `counted` to `total`. Without `gauges`, only counters and histograms, which outlive a process.

    Metrics whose name ends in `_info` describe a process, and are equal in all of them: they are copied, not added.
    """
    for name, family in counted.items():
        if family.kind == GAUGE and not gauges:
            continue
        into = total.setdefault(name, Family(family.head, family.kind, {})).series
        for series, value in family.series.items():
            into[series] = value if name.endswith("_info") else into.get(series, 0.0) + value


def render(families: Iterable[Family]) -> str:
    """Return the metrics as Prometheus text."""
    return "".join(family.head + "".join(f"{series} {value!r}\n" for series, value in family.series.items()) for family in families)
