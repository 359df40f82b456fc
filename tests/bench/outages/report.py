"""What was found about outages, in words, tables and pictures, and what of it is not as it should be. No measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tests.bench import plot
from tests.bench.outages.cancels import Cancels
from tests.bench.outages.cost import Cost
from tests.bench.outages.outage import AFTER, BEFORE, BIN, DURING, RATE, Outage
from tests.bench.plot import Points, Series

SUCCESS: Final = 0.999
AMPLIFICATION: Final = 1.1
FIRST_GOOD: Final = 1.0
CANCELLED: Final = 50.0
DEARER: Final = 1.03
NOISE: Final = 0.1
"""What is wanted: with one of two deployments, the part of the calls that succeed, calls for each call, and seconds; milliseconds;
and how many times the CPU of a plain call a name for one model may cost. Ratios whose quartiles are further apart than `NOISE` say
nothing: the machine was busy."""

_TALL: Final = 7
_WIDE: Final = 8


class Loops(msgspec.Struct):
    """Loops of tool calls with signatures and encrypted reasoning, over two deployments and two replicas."""

    loops: int
    turns: int
    out_of_order: int
    """Requests that met a deployment that was out of order."""
    refused: list[str]
    """Why a deployment refused a request."""


class Results(msgspec.Struct):
    """Everything that was found in one run."""

    date: str
    machine: str
    commit: str
    outages: list[Outage] = []
    loops: Loops | None = None
    cancels: list[Cancels] = []
    cancelled_p99: float = 0.0
    """Milliseconds, of all kinds together."""
    costs: list[Cost] = []

    @property
    def wrong(self) -> list[str]:
        """Return what is not as wanted, in words."""
        found = []
        for each in self.outages:
            if each.of_all:
                continue
            place = f"{each.setup}, one {each.fault}"
            if each.succeeded < SUCCESS * each.calls:
                found.append(f"{place}: {each.succeeded} of {each.calls} calls succeeded")
            if each.amplification > AMPLIFICATION:
                found.append(f"{place}: a deployment got {each.amplification:.2f} times the calls")
            if each.first_good > FIRST_GOOD:
                found.append(f"{place}: the first good answer came after {each.first_good:.1f} s")
        if self.loops is not None and self.loops.refused:
            found.append(f"{len(self.loops.refused)} requests of tool loops were refused: {self.loops.refused[0]}")
        if self.cancelled_p99 > CANCELLED:
            found.append(f"cancelling took {self.cancelled_p99:.0f} ms (p99)")
        found += [f"{each.kind}: {each.late} tries went on, or began too late" for each in self.cancels if each.late]
        if len(self.costs) > 1 and self.costs[1].ratio > DEARER and not is_noise(self.costs):
            found.append(f"{self.costs[1].name} costs {self.costs[1].ratio - 1:+.1%} CPU")
        return found


def markdown(results: Results, images: str = "") -> str:
    """Return the page of all that was found; the pictures are looked for in the folder `images`."""
    lines = [f"Measured on {results.date} at `{results.commit}`: {results.machine}."]
    if results.outages:
        lines.append("")
        lines += _table(
            [
                "",
                "one of two deployments",
                "succeeded",
                "failed before",
                "amplification",
                "tries a call",
                "first good answer",
                "p99 before, during",
                "calls in the first second back",
            ],
            map(_row, results.outages),
        )
        for setup in _setups(results):
            lines += [
                "",
                f"![{setup}: calls that were answered, calls of each deployment, and latency]({images}{_name(setup)}.svg)",
            ]
    if results.loops is not None:
        told = results.loops
        met = f"{told.loops} loops of {told.turns} turns in all, with {told.out_of_order} failures of a deployment on the way"
        lines += ["", f"**Tool loops.** {met}: {len(told.refused)} answers 400."]
    if results.cancels:
        rows = [[c.kind, str(c.calls), str(c.tries), f"{c.p50:.0f} ms", f"{c.p99:.0f} ms", str(c.late)] for c in results.cancels]
        lines += ["", f"**Callers that leave.** p99 of all: {results.cancelled_p99:.0f} ms.", ""]
        lines += _table(["", "left", "tries in progress", "p50", "p99", "went on"], rows)
    if results.costs:
        rows = [
            [c.name, f"{c.cpu:.3f} ms", f"{c.ratio - 1:+.1%}", f"{c.quartiles[0] - 1:+.1%} to {c.quartiles[1] - 1:+.1%}"]
            for c in results.costs
        ]
        lines += ["", "**CPU of a call**, worker and edge:", ""]
        lines += _table(["", "CPU", "median", "quartiles"], rows)
        if is_noise(results.costs):
            lines += ["", "The machine was too busy for these figures: the quartiles are too far apart."]
    lines += [f"\n**Not as wanted: {each}.**" for each in results.wrong]
    return "\n".join([*lines, ""])


def is_noise(costs: Sequence[Cost]) -> bool:
    """Return whether other load on the machine spoilt the ratios."""
    return any(each.quartiles[1] - each.quartiles[0] > NOISE for each in costs)


def pictures(results: Results) -> dict[str, str]:
    """Return a picture for each setup, by name: a row of plots over time for each outage."""
    return {_name(setup): _picture(setup, [each for each in results.outages if each.setup == setup]) for setup in _setups(results)}


def _picture(setup: str, outages: Sequence[Outage]) -> str:
    panels = []
    for row, each in enumerate(outages):
        who = "Both" if each.of_all else "One"
        fault = each.fault.removeprefix("both ")
        for column, (title, unit, series) in enumerate(
            (
                (f"{who} {fault}: answered well", "percentunit", [Series("of the calls begun", _points(each.success))]),
                ("Calls a second", "short", [Series("broken", _points(each.east)), Series("other", _points(each.west))]),
                ("Latency, p95", "s", [Series("by the calls' beginning", _points(each.latency))]),
            )
        ):
            place = {"x": _WIDE * column, "y": _TALL * row, "w": _WIDE, "h": _TALL}
            panel = {"title": title, "type": "timeseries", "gridPos": place, "fieldConfig": {"defaults": {"unit": unit}}}
            panels.append((panel, series, ""))
    title = f"Outages with {setup}: {RATE:g} calls a second; the outage is between the broken lines"
    return plot.dashboard(title, panels, BEFORE + DURING + AFTER, (BEFORE, BEFORE + DURING))


def _points(values: Sequence[float]) -> Points:
    return [((number + 0.5) * BIN, value) for number, value in enumerate(values)]


def _row(each: Outage) -> list[str]:
    return [
        each.setup,
        each.fault,
        f"{each.succeeded / each.calls:.2%} of {each.calls:,}",
        str(each.failed_early),
        f"{each.amplification:.2f}",
        f"{each.calls_per_call:.2f}",
        f"{each.first_good:.2f} s",
        f"{each.latency_before * 1000:.0f}, {each.latency_during * 1000:.0f} ms",
        f"{each.share_returned:.0%}",
    ]


def _setups(results: Results) -> list[str]:
    return list(dict.fromkeys(each.setup for each in results.outages))


def _name(setup: str) -> str:
    return f"outages-{setup.replace(' ', '-')}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
