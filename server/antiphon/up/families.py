"""Metrics of several processes as one: texts of Prometheus, read, added up and written.

https://prometheus.io/docs/instrumenting/exposition_formats, as prometheus-client writes it: the labels of a series always stand in
the same order, so a series is known by its text. Of the standard library alone. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

GAUGE = "gauge"
COUNTER = "counter"


@dataclass
class Family:
    """A metric: the lines that describe it, its type, and the values of its series by their text."""

    head: str
    kind: str
    series: dict[str, float] = field(default_factory=dict)


Families: TypeAlias = dict[str, Family]
"""By name."""


def parse(text: str) -> Families:
    """Return the metrics of a text. Raises `ValueError` for a line that is none of one."""
    found: Families = {}
    describing = ""
    family = Family("", "")
    for line in text.split("\n"):  # and nothing else: a label may hold any other end of a line
        if line.startswith("# HELP "):
            describing = line + "\n"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            family = found[name] = Family(describing + line + "\n", kind)
        elif line:
            series, _, value = line.rpartition(" ")
            family.series[series] = float(value)
    return found


def add(total: Families, counted: Families, *, gauges: bool = True) -> None:
    """Add what was counted to a total. Without `gauges`, only what outlives a process: counters and histograms.

    What describes a process, which ends in `_info`, is the same of each, and not added up.
    """
    for name, family in counted.items():
        if family.kind == GAUGE and not gauges:
            continue
        into = total.setdefault(name, Family(family.head, family.kind)).series
        for series, value in family.series.items():
            into[series] = value if name.endswith("_info") else into.get(series, 0.0) + value


def render(families: Iterable[Family]) -> str:
    """Return the text of metrics."""
    return "".join(family.head + "".join(f"{series} {value!r}\n" for series, value in family.series.items()) for family in families)
