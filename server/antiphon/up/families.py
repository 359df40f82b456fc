"""Reads and sums the metrics of several processes.

The labels of a series always have the same order, so a series is identified by its text. No I/O.
"""

from __future__ import annotations

from typing import TypeAlias

from antiphon.telemetry.exposition import Family
from antiphon.telemetry.names import Kind

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
        if family.kind == Kind.GAUGE and not gauges:
            continue
        into = total.setdefault(name, Family(family.head, family.kind, {})).series
        for series, value in family.series.items():
            into[series] = value if name.endswith("_info") else into.get(series, 0.0) + value
