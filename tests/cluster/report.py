"""The results of a run, as figures and as text, and whether they meet the requirements."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from tests.cluster.faults import CALM_NAME, Window
from tests.cluster.journal import WINDOW, Call, Journal, Outcome, most_in_window
from tests.cluster.load import AT_ONCE, RATE, RATE_KEYS

FAILURES = (Outcome.FAILED, Outcome.CUT, Outcome.CUT_SILENTLY)


@dataclass(frozen=True)
class Verdict:
    """One requirement: `found` may be at most `most`."""

    what: str
    found: int
    most: int = 0

    @property
    def ok(self) -> bool:
        return self.found <= self.most


@dataclass(frozen=True)
class Findings:
    """What was read from the cluster at the end."""

    turns: Sequence[tuple[str, str, str]]
    """The request id, message id and state of each reply in the database."""
    replies: Mapping[str, str]
    """The text of each message in the history, by message id."""
    request_counts: Mapping[str, int]
    """How often the provider received each call, by the call's name."""
    cancelled: int
    """The number of calls whose client left, as the provider saw it."""
    at_once: Sequence[tuple[float, int]]
    """Pairs of a time and the number of calls at once at the provider, for the key with the limit `AT_ONCE`."""
    exit_codes: Sequence[int]
    """The exit codes of the servers that were asked to end."""


class Report:
    """The figures of one run."""

    def __init__(self, journal: Journal, windows: Sequence[Window], found: Findings, seconds: float, replicas: int) -> None:
        self._journal = journal
        self._windows = windows
        self._found = found
        self._seconds = seconds
        self._replicas = replicas
        self._by_window = _by_window(journal.calls, windows)

    @property
    def verdicts(self) -> list[Verdict]:
        """Return all requirements with what was found."""
        planned = [call for window in self._windows if window.planned for call in self._by_window[window.name]]
        stored = Counter(request for request, _, _ in self._found.turns)
        states = Counter(state for _, _, state in self._found.turns)
        return [
            Verdict("calls failed in planned windows", _failed(planned)),
            Verdict("calls failed while all was calm", _failed(self._by_window[CALM_NAME])),
            Verdict("streams cut without an error", _count(self._journal.calls, Outcome.CUT_SILENTLY)),
            Verdict("acknowledged turns lost", len(self.lost)),
            Verdict("turns stored twice", sum(number > 1 for number in stored.values())),
            Verdict("calls that the provider received more often than they were sent", len(self.received_too_often)),
            Verdict("turns left in progress", states["in_progress"]),
            *(Verdict(f"calls of {name} over {most} a minute", over, 0) for name, most, over in self.rates),
            Verdict(f"more calls at once than {AT_ONCE}", self.at_once_over),
            Verdict("servers that did not stop with exit code 0", sum(code != 0 for code in self._found.exit_codes)),
        ]

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts)

    @property
    def lost(self) -> list[str]:
        """Return the request ids of turns whose reply a client received, but that are not stored like that."""
        complete = {(request, message) for request, message, state in self._found.turns if state == "complete"}
        return [
            turn.request
            for turn in self._journal.turns
            if (turn.request, turn.message) not in complete or self._found.replies.get(turn.message) != turn.reply
        ]

    @property
    def received_too_often(self) -> list[str]:
        """Return the names of calls that the provider received more often than a client sent them."""
        return [name for name, number in self._found.request_counts.items() if number > self._journal.sent.get(name, 0)]

    @property
    def rates(self) -> list[tuple[str, int, int]]:
        """Return each limited key's name, its limit per minute, and the number of calls beyond it in the busiest window.

        While Redis is unreachable each replica counts for itself, so in those minutes the limit is that of all replicas together.
        """
        found = []
        for name in RATE_KEYS:
            let_through = [call for call in self._journal.calls if call.kind == name and call.outcome is Outcome.DONE]
            calm = [call for call in let_through if not self._counted_apart(call.began, call.ended)]
            found.append((name, RATE, max(most_in_window(calm)[0] - RATE, 0)))
            if len(calm) < len(let_through):
                most = RATE * self._replicas
                found.append((f"{name} without Redis", most, max(most_in_window(let_through)[0] - most, 0)))
        return found

    @property
    def at_once_over(self) -> int:
        """Return how many more calls than allowed were at the provider at once, outside outages of Redis."""
        most = max((number for when, number in self._found.at_once if not self._counted_apart(when, when)), default=0)
        return max(most - AT_ONCE, 0)

    def _counted_apart(self, began: float, ended: float) -> bool:
        """Return whether replicas may have counted separately at that time: Redis was down, or one of them could not reach it."""
        apart = [
            window for window in self._windows if "Redis" in window.name or "stores" in window.name or "cut off" in window.name
        ]
        return any(began <= window.ended + WINDOW and ended >= window.began for window in apart)

    def figures(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        calls = self._journal.calls
        return {
            "ok": self.ok,
            "seconds": round(self._seconds, 1),
            "verdicts": [{**asdict(verdict), "ok": verdict.ok} for verdict in self.verdicts],
            "kinds": {kind: _figures(found) for kind, found in _grouped(calls).items()},
            "windows": [
                {
                    "name": name,
                    "seconds": None if window is None else round(window.ended - window.began, 1),
                    "last_failure_after": None if window is None else _last_failure(window, self._by_window[name]),
                    **_figures(self._by_window[name]),
                    "causes": _causes(self._by_window[name]),
                }
                for name, window in [(CALM_NAME, None), *((window.name, window) for window in self._windows)]
            ],
            "turns": {
                "acknowledged": len(self._journal.turns),
                "lost": self.lost,
                "given_up": len(self._journal.given_up),
                "stored": dict(Counter(state for _, _, state in self._found.turns)),
            },
            "provider": {
                "requests": sum(self._found.request_counts.values()),
                "cancelled": self._found.cancelled,
                "too_often": self.received_too_often,
            },
        }

    def print(self, console: Console) -> None:
        """Print all figures as tables."""
        figures = self.figures()
        kinds = Table(title=f"{len(self._journal.calls)} calls in {self._seconds:.0f} s", title_justify="left")
        _columns(kinds, "client")
        for kind, row in figures["kinds"].items():
            kinds.add_row(kind, *_cells(row))
        windows = Table(title="By window", title_justify="left")
        _columns(windows, "window", "seconds", "last failure")
        for row in figures["windows"]:
            windows.add_row(row["name"], _text(row["seconds"]), _text(row["last_failure_after"]), *_cells(row))
        causes = Table(title="Failures by cause", title_justify="left")
        for column in ("window", "cause", "calls"):
            causes.add_column(column, overflow="fold")
        for row in figures["windows"]:
            for cause, number in row["causes"].items():
                causes.add_row(row["name"], cause, str(number))
        verdicts = Table(title="Requirements", title_justify="left")
        for column in ("", "what", "found", "most"):
            verdicts.add_column(column)
        for verdict in self.verdicts:
            mark = "[green]ok[/]" if verdict.ok else "[red]BROKEN[/]"
            verdicts.add_row(mark, verdict.what, str(verdict.found), str(verdict.most))
        turns = figures["turns"]
        summary = f"Turns: {turns['acknowledged']} acknowledged, {turns['given_up']} given up, stored {turns['stored']}"
        console.print(Group(kinds, windows, causes, verdicts, summary))


def _by_window(calls: Iterable[Call], windows: Sequence[Window]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {CALM_NAME: [], **{window.name: [] for window in windows}}
    for call in calls:
        touched = [window for window in windows if window.touches(call)]
        # Of several, an unplanned one: failures in it are expected.
        window = min(touched, key=lambda one: one.planned, default=None)
        found[CALM_NAME if window is None else window.name].append(call)
    return found


def _grouped(calls: Iterable[Call]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.kind, []).append(call)
    return dict(sorted(found.items()))


def _count(calls: Iterable[Call], outcome: Outcome) -> int:
    return sum(call.outcome is outcome for call in calls)


def _failed(calls: Iterable[Call]) -> int:
    return sum(call.outcome in FAILURES for call in calls)


def _figures(calls: Sequence[Call]) -> dict[str, Any]:
    times = [call.ended - call.began for call in calls if call.outcome is Outcome.DONE]
    centiles = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    outcomes = {outcome.value: _count(calls, outcome) for outcome in Outcome if outcome is not Outcome.GOING}
    return {"calls": len(calls), **outcomes, "p50_ms": round(centiles[49] * 1000), "p99_ms": round(centiles[98] * 1000)}


def _causes(calls: Iterable[Call]) -> dict[str, int]:
    found = Counter(f"{call.kind}: {call.cause}" for call in calls if call.outcome in FAILURES)
    return dict(found.most_common())


def _last_failure(window: Window, calls: Iterable[Call]) -> float | None:
    """Return the seconds from the beginning of the fault to the last failure; None if there was none."""
    ends = [call.ended for call in calls if call.outcome in FAILURES]
    return round(max(ends) - window.began, 1) if ends else None


_COLUMNS = ("calls", "done", "refused", "failed", "cut", "cut silently", "p50_ms", "p99_ms")


def _columns(table: Table, *first: str) -> None:
    for name in first:
        table.add_column(name)
    for name in _COLUMNS:
        table.add_column(name.replace("_", " "), justify="right")


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [str(figures[name] or "") for name in _COLUMNS]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
