"""The report checks the results of a run against the requirements."""

from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.faults import Window
from tests.cluster.journal import Call, Journal, Outcome, Turn
from tests.cluster.load import AT_ONCE, RATE
from tests.cluster.report import Findings, Report

REDIS = Window("Redis killed", False, 100, 110, 120)
ROLL = Window("rolling restart", True, 200, 250, 260)
GOOD = Findings(
    turns=[("history.1", "m1", "complete")],
    replies={"m1": "Hello"},
    request_counts={"history.1": 1},
    cancelled=0,
    at_once=[(10, AT_ONCE), (115, AT_ONCE + 3)],
    exit_codes=[0],
)


def journal(*calls: Call) -> Journal:
    turn = Turn("history.1", "c1", "m1", "history.1", "Hello")
    return Journal(calls=list(calls), turns=[turn], sent={"history.1": 1})


def broken(found: Findings = GOOD, calls: tuple[Call, ...] = ()) -> list[str]:
    report = Report(journal(*calls), [REDIS, ROLL], found, 300, 3)
    assert report.ok is not bool([verdict for verdict in report.verdicts if not verdict.ok])
    assert report.figures()["ok"] is report.ok
    return [verdict.what for verdict in report.verdicts if not verdict.ok]


def call(began: float, outcome: Outcome = Outcome.FAILED, kind: str = "http") -> Call:
    return Call(kind, f"{kind}.1", began, began + 0.5, outcome, "why", since=began)


def test_a_run_that_meets_all_requirements_is_ok() -> None:
    """A run is ok even with failures during an unplanned fault, and with more calls at once while Redis was away."""
    assert broken(calls=(call(110), call(111, Outcome.CUT), call(210, Outcome.DONE))) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"turns": []}, "acknowledged turns lost"),
        ({"replies": {"m1": "Hell"}}, "acknowledged turns lost"),
        ({"turns": [*GOOD.turns, ("history.1", "m2", "complete")]}, "turns stored twice"),
        ({"turns": [*GOOD.turns, ("history.2", "m2", "in_progress")]}, "turns left in progress"),
        ({"request_counts": {"history.1": 2}}, "calls that the provider received more often than they were sent"),
        ({"at_once": [(10, AT_ONCE + 1)]}, f"more calls at once than {AT_ONCE}"),
        ({"exit_codes": [0, 1]}, "servers that did not stop with exit code 0"),
    ],
)
def test_requirements_that_are_not_met_are_reported(change: dict[str, Any], what: str) -> None:
    """Each requirement that is not met is reported alone."""
    assert broken(replace(GOOD, **change)) == [what]


def test_failures_in_planned_windows_and_in_calm_ones_are_reported() -> None:
    """Failures in planned windows and in calm times are reported, and so are silently cut streams at any time."""
    assert broken(calls=(call(210),)) == ["calls failed in planned windows"]
    assert broken(calls=(call(10),)) == ["calls failed while all was calm"]
    assert broken(calls=(call(110, Outcome.CUT_SILENTLY),)) == ["streams cut without an error"]


def test_a_retry_belongs_to_the_window_of_its_first_try() -> None:
    """A retry counts in the window of its first try, because it fails for what happened then."""
    assert broken(calls=(replace(call(190), since=115),)) == []


def test_calls_beyond_a_limit_are_reported() -> None:
    """Calls beyond the limit are reported; during an outage of Redis, only calls beyond the sum of the replicas' limits are."""
    calm = tuple(call(at / 10, Outcome.DONE, "rate-a") for at in range(RATE + 1))
    assert broken(calls=calm[:-1]) == []
    assert broken(calls=calm) == [f"calls of rate-a over {RATE} a minute"]
    apart = tuple(call(100 + at / 10, Outcome.DONE, "rate-a") for at in range(3 * RATE + 1))
    assert broken(calls=apart[:-1]) == []
    assert broken(calls=apart) == [f"calls of rate-a without Redis over {3 * RATE} a minute"]
