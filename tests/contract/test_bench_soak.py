"""What a soak makes of its readings."""

from typing import Any

import msgspec

from tests.bench import soak
from tests.bench.soak import Reading, Results

REST = Reading(0.0, 100_000_000, 80_000_000, 60, 25, 50)


def _results(readings: list[Reading], **more: Any) -> Results:
    good = {"ok": 100, "cancelled": 0, "failed": 0, "broken": 0, "sample": ""}
    bad = {**good, "ok": 0, "failed": 100}
    calls = {each.name: bad if each.fails else good for each in soak.traffic()}
    whole = Results("2026-01-02", "two cores", "abc", 30.0, REST, readings, REST, calls)
    return msgspec.structs.replace(whole, **more)


def _growing(share: float, count: int = 80) -> list[Reading]:
    return [
        msgspec.structs.replace(REST, second=number * 20.0, worker=int(REST.worker * (1 + share * number / count)))
        for number in range(count)
    ]


def test_what_stays_is_right() -> None:
    """Callers whose calls should fail are no fault, and a warm-up is no growth."""
    warm = [msgspec.structs.replace(REST, worker=REST.worker // 2)] * 20 + _growing(0.0, 60)
    results = _results(warm)
    assert results.wrong == []
    assert "Nothing grew." in soak.markdown(results)
    assert "Tasks of the worker" in soak.picture(results)


def test_what_grows_is_told() -> None:
    """Memory over time; descriptors, threads and tasks that are left."""
    left = msgspec.structs.replace(REST, descriptors=100, tasks=90)
    results = _results(_growing(0.3), after=left)
    assert results.wrong == [
        "the memory of the worker grew by 13.5%",
        "there are 100 descriptors after the traffic, and were 60 before it",
        "there are 90 tasks after the traffic, and were 50 before it",
    ]
    assert "**Wrong: there are 100 descriptors" in soak.markdown(results)


def test_a_short_soak_says_nothing_of_memory() -> None:
    """As caches are still filling."""
    assert _results(_growing(0.3), minutes=2.0).wrong == []


def test_calls_that_should_succeed_have_to() -> None:
    """Else what was looked at is not what was meant."""
    results = _results(_growing(0.0))
    results.calls["JSON"] = {**results.calls["JSON"], "ok": 0, "failed": 7, "sample": "401 no"}
    assert results.wrong == ["JSON: 0 calls ended well, 7 failed, 0 broke: 401 no"]
