"""The results of `compare` as tables and plots, and where results are written. No measurement."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.bench import plot
from tests.bench.features import Feature
from tests.bench.plot import Bar
from tests.bench.scenarios import BY_NAME, Scenario

OURS: Final = "antiphon"
DIRECT: Final = "direct"
QUIET: Final = 0.3
"""Cores of other load: samples with more are left out where there are better ones."""

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "guide" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"
IMAGES_OF_PAGE: Final = "../images/"
README: Final = ROOT / "README.md"


def progress() -> Progress:
    """Return a progress display on standard error. Each of its tasks has a field `what`: the step that runs now."""
    columns = TextColumn("{task.description:>12}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, TextColumn("{task.fields[what]}"), console=Console(stderr=True))


class Sample(msgspec.Struct, frozen=True):
    """What callers found during one load of one gateway, in milliseconds, and what was used meanwhile, in seconds and cores."""

    round: int
    scenario: str
    gateway: str
    ok: int
    failed: int
    """Calls with another status than 200."""
    broken: int
    """Calls whose connection failed."""
    unfinished: int
    short: int
    """Streams without all of their tokens."""
    tokens: int
    seconds: float
    calls_per_second: float
    tokens_per_second: float
    latency_p50: float
    latency_p99: float
    first_p50: float
    first_p99: float
    transit_p50: float
    transit_p99: float
    cpu: float
    callers_cpu: float
    foreign: float
    steal: float
    sample: str = ""
    """The first answer that was no success."""

    @property
    def cost(self) -> float:
        """Return the CPU of a call in milliseconds, or of a token in microseconds; 0 if there was none."""
        if BY_NAME[self.scenario].stream:
            return self.cpu / self.tokens * 1e6 if self.tokens else 0.0
        return self.cpu / self.ok * 1e3 if self.ok else 0.0

    @property
    def rate(self) -> float:
        """Return the calls or tokens a second."""
        return self.tokens_per_second if BY_NAME[self.scenario].stream else self.calls_per_second


class Start(msgspec.Struct, frozen=True):
    """A start: seconds until it listens and answers; MB, processes and cores when idle."""

    gateway: str
    listened: float
    answered: float
    memory: float
    processes: int
    idle: float


class Held(msgspec.Struct, frozen=True):
    """MB before and with so many silent streams."""

    gateway: str
    streams: int
    before: float
    during: float


class Cancel(msgspec.Struct, frozen=True):
    """Milliseconds from a caller's leaving until the provider's stream ended; None: it did not."""

    gateway: str
    taken: float | None


class Failed(msgspec.Struct, frozen=True):
    """What could not be measured of a gateway, and why."""

    gateway: str
    what: str
    reason: str


class Results(msgspec.Struct):
    """Everything that was measured in one run."""

    date: str
    machine: str
    commit: str
    rounds: int
    seconds: float
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    left_out: dict[str, str] = msgspec.field(default_factory=dict)
    starts: list[Start] = msgspec.field(default_factory=list)
    samples: list[Sample] = msgspec.field(default_factory=list)
    loaded: dict[str, float] = msgspec.field(default_factory=dict)
    """MB after silent streams and a load of JSON calls, by gateway."""
    held: list[Held] = msgspec.field(default_factory=list)
    cancels: list[Cancel] = msgspec.field(default_factory=list)
    features: list[Feature] = msgspec.field(default_factory=list)
    failed: list[Failed] = msgspec.field(default_factory=list)


class Summary:
    """Medians and ratios of the samples."""

    def __init__(self, results: Results) -> None:
        self._samples: dict[tuple[str, str], list[Sample]] = {}
        for sample in results.samples:
            self._samples.setdefault((sample.scenario, sample.gateway), []).append(sample)
        self.gateways = list(dict.fromkeys(sample.gateway for sample in results.samples))
        self.scenarios = [BY_NAME[name] for name in dict.fromkeys(sample.scenario for sample in results.samples)]

    def samples(self, scenario: Scenario, gateway: str) -> list[Sample]:
        """Return the samples that count: the quiet ones, or else all."""
        found = self._samples.get((scenario.name, gateway), [])
        return [sample for sample in found if sample.foreign + sample.steal <= QUIET] or found

    def median(self, scenario: Scenario, gateway: str, of: Callable[[Sample], float]) -> float | None:
        """Return the median of a figure, or None if nothing succeeded."""
        found = [of(sample) for sample in self.samples(scenario, gateway) if sample.ok]
        return statistics.median(found) if found else None

    def ratio(self, scenario: Scenario, gateway: str, of: Callable[[Sample], float]) -> float | None:
        """Return the median of a gateway's figure by Antiphon's, each of one round."""
        own = {sample.round: of(sample) for sample in self.samples(scenario, OURS) if sample.ok}
        found = [
            of(sample) / own[sample.round] for sample in self.samples(scenario, gateway) if sample.ok and own.get(sample.round)
        ]
        return statistics.median(found) if found else None


def markdown(results: Results, images: str = "") -> str:
    """Return all tables; the plots are looked for in the folder `images`."""
    summary = Summary(results)
    how = f"Medians of {results.rounds} rounds of {results.seconds:g} s; ratios are taken within a round."
    lines = [f"Measured on {results.date} at `{results.commit}`: {results.machine}. {how}"]
    if results.versions:
        lines.append(f"Versions: {', '.join(f'{name} {version}' for name, version in results.versions.items())}.")
    lines += [f"Left out: {name}, which {reason}." for name, reason in results.left_out.items()]
    if loud := _loud(results):
        lines.append(
            f"**{loud:.0%} of the samples were disturbed** by more than {QUIET} cores of other load: take only ratios from these."
        )
    for name in pictures(results):
        lines += ["", f"![{name.replace('-', ' ')}]({images}{name}.svg)"]
    for title, table in (
        ("CPU of a call or token, and how many times Antiphon's that is", _costs(summary)),
        ("Calls and tokens a second", _rates(summary)),
        ("Latency, p50 / p99 in ms: of a call, or of a token on its way through the gateway", _latencies(summary)),
        ("Start, memory, cancelling", _needs(results)),
        ("What features cost a JSON call of Antiphon", _features(results)),
        ("Failures", _failures(results)),
    ):
        if rows := list(table):
            lines += ["", f"### {title}", "", *rows]
    return "\n".join([*lines, ""])


def pictures(results: Results) -> dict[str, str]:
    """Return the plots as SVG, by name."""
    summary = Summary(results)
    shown = [name for name in summary.gateways if name != DIRECT]
    found: dict[str, str] = {}
    for name, scenario_name, unit in (
        ("bench-json", "json-64", "ms"),
        ("bench-stream", "paced-64", "µs"),
    ):
        scenario = BY_NAME[scenario_name]
        values = [(gateway, summary.median(scenario, gateway, lambda sample: sample.cost)) for gateway in shown]
        bars = [Bar(gateway, value, gateway == OURS) for gateway, value in values if value]
        if bars:
            found[name] = plot.bars(f"CPU of a {scenario.unit}: {scenario.title}", unit, bars)
    idle = {name: statistics.median(s.memory for s in results.starts if s.gateway == name) for name in _started(results)}
    if idle:
        found["bench-memory"] = plot.bars(
            "Memory when idle", "MB", [Bar(name, value, name == OURS) for name, value in idle.items()]
        )
    return found


def brief(results: Results) -> str:
    """Return the figures for a README: CPU of calls and tokens, and memory, each as a ratio to Antiphon's."""
    summary = Summary(results)
    shown = [name for name in summary.gateways if name != DIRECT]
    wanted = [scenario for scenario in summary.scenarios if scenario.name in {"json-64", "burst-16", "paced-256", "paced-1000"}]
    rows = [[f"CPU of a {s.unit}: {s.title}", *(_cost(summary, s, name) for name in shown)] for s in wanted]
    idle = {name: statistics.median(s.memory for s in results.starts if s.gateway == name) for name in _started(results)}
    first = {name: statistics.median(s.answered for s in results.starts if s.gateway == name) for name in _started(results)}
    if OURS in idle:
        rows.append(["first answer after a start", *(f"{first[name]:.1f} s" if name in first else "-" for name in shown)])
        rows.append(["memory when idle", *(f"{idle[name]:.0f} MB" if name in idle else "-" for name in shown)])
    return "\n".join([*_table(["", *shown], rows), "", f"Measured on {results.date}: {results.machine}.", ""])


def write(name: str, results: Any, text: str, plots: Mapping[str, str], folder: Path) -> None:
    """Write results as JSON, their page of tables, and their plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    for picture, content in plots.items():
        (folder / f"{picture}.svg").write_text(content, encoding="utf-8")


def publish(name: str, text: str, plots: Mapping[str, str], page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write tables into a page of the documentation, and the plots beside its pictures."""
    page.write_text(replace(page.read_text(encoding="utf-8"), name, text), encoding="utf-8")
    for picture, content in plots.items():
        (images / f"{picture}.svg").write_text(content, encoding="utf-8")


def replace(page: str, name: str, text: str) -> str:
    """Return a page with what is between the marks of `name` replaced. Raises `ValueError` if it has no such marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"has no {begin} … {end}")
    return f"{before}{begin}\n{text}{end}{after}"


def _loud(results: Results) -> float:
    """Return the share of samples that were disturbed."""
    loud = [sample for sample in results.samples if sample.foreign + sample.steal > QUIET]
    return len(loud) / len(results.samples) if results.samples else 0.0


def _started(results: Results) -> list[str]:
    return list(dict.fromkeys(start.gateway for start in results.starts))


def _costs(summary: Summary) -> Iterator[str]:
    shown = [name for name in summary.gateways if name != DIRECT]

    return _by_scenario(summary, shown, partial(_cost, summary))


def _cost(summary: Summary, scenario: Scenario, gateway: str) -> str:
    cost = summary.median(scenario, gateway, lambda sample: sample.cost)
    if cost is None:
        return "-"
    ratio = summary.ratio(scenario, gateway, lambda sample: sample.cost)
    told = f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"
    told = f"{told} {'µs' if scenario.stream else 'ms'}"
    return told if ratio is None or gateway == OURS else f"{told} ({ratio:.2g}x)"


def _rates(summary: Summary) -> Iterator[str]:
    def cell(scenario: Scenario, gateway: str) -> str:
        rate = summary.median(scenario, gateway, lambda sample: sample.rate)
        return "-" if rate is None else f"{rate:,.0f}"

    return _by_scenario(summary, summary.gateways, cell)


def _latencies(summary: Summary) -> Iterator[str]:
    def cell(scenario: Scenario, gateway: str) -> str:
        middle = summary.median(scenario, gateway, lambda s: s.transit_p50 if scenario.stream else s.latency_p50)
        worst = summary.median(scenario, gateway, lambda s: s.transit_p99 if scenario.stream else s.latency_p99)
        return "-" if middle is None or worst is None else f"{middle:.3g} / {worst:.3g}"

    return _by_scenario(summary, summary.gateways, cell)


def _by_scenario(summary: Summary, gateways: Sequence[str], cell: Callable[[Scenario, str], str]) -> Iterator[str]:
    if not summary.scenarios:
        return iter(())
    return _table(["", *gateways], [[s.title, *(cell(s, gateway) for gateway in gateways)] for s in summary.scenarios])


def _needs(results: Results) -> Iterator[str]:
    rows = []
    for name in _started(results):
        starts = [start for start in results.starts if start.gateway == name]
        held = [each for each in results.held if each.gateway == name]
        cancels = [each.taken for each in results.cancels if each.gateway == name]
        taken = [each for each in cancels if each is not None]
        rows.append(
            [
                name,
                f"{statistics.median(start.answered for start in starts):.1f} s",
                f"{statistics.median(start.memory for start in starts):.0f} MB",
                f"{results.loaded[name]:.0f} MB" if name in results.loaded else "-",
                f"{max(0.0, held[0].during - held[0].before) / held[0].streams * 1000:.0f} kB" if held else "-",
                f"{statistics.median(start.idle for start in starts):.1%}",
                f"{statistics.median(taken):.1f} / {max(taken):.1f} ms" if taken else "never" if cancels else "-",
            ]
        )
    head = [
        "",
        "start until the first answer",
        "idle",
        "after loads",
        "a silent stream",
        "CPU when idle",
        "cancelled in, p50 / max",
    ]
    return _table(head, rows) if rows else iter(())


def _features(results: Results) -> Iterator[str]:
    rows = [
        [
            each.name,
            f"{each.off:.2f} ms",
            f"{each.on:.2f} ms",
            f"{each.ratio - 1:+.0%}",
            f"{each.quartiles[0] - 1:+.0%} to {each.quartiles[1] - 1:+.0%}",
        ]
        for each in results.features
    ]
    return _table(["", "without", "with", "median", "quartiles"], rows) if rows else iter(())


def _failures(results: Results) -> Iterator[str]:
    rows = [[each.gateway, each.what, each.reason] for each in results.failed]
    sums: dict[tuple[str, str], list[int]] = {}
    samples: dict[tuple[str, str], str] = {}
    for sample in results.samples:
        counts = (sample.failed, sample.broken, sample.unfinished, sample.short)
        if any(counts):
            place = (sample.gateway, BY_NAME[sample.scenario].title)
            before = sums.get(place, [0] * 4)
            sums[place] = [one + other for one, other in zip(before, counts, strict=True)]
            samples[place] = samples.get(place) or sample.sample.replace("|", " ")[:120]
    for place, (failed, broken, unfinished, short) in sums.items():
        rows.append(
            [
                *place,
                f"{failed} failed, {broken} broken, {unfinished} unfinished, {short} without all tokens. {samples[place]}".strip(),
            ]
        )
    return _table(["", "", ""], rows) if rows else iter(())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
