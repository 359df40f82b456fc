"""Tests of telling a child that hangs from one that works."""

import os

from antiphon.up.liveness import INTERVAL, MAX_MISSES, Liveness, liveness_of_pipe


def results_of(liveness: Liveness, count: int) -> list[bool]:
    """Return the results of so many checks, each at the time when it is due."""
    return [liveness.check(liveness.due) for _ in range(count)]


def test_a_silent_child_hangs_after_several_checks() -> None:
    """A child hangs after MAX_MISSES checks without a heartbeat; a heartbeat starts the count again."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True, *[False] * MAX_MISSES])
    liveness = Liveness(lambda: next(signs))
    assert results_of(liveness, 2 * MAX_MISSES + 1) == [False] * (2 * MAX_MISSES) + [True]
    assert liveness.silence == MAX_MISSES * INTERVAL


def test_a_child_is_suspect_before_the_last_check() -> None:
    """A child is suspect before the last check, so that probes can report it."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True])
    liveness = Liveness(lambda: next(signs))
    results_of(liveness, MAX_MISSES - 1)
    assert not liveness.is_suspect
    results_of(liveness, 1)
    assert liveness.is_suspect
    results_of(liveness, 1)
    assert not liveness.is_suspect


def test_a_child_that_has_not_begun_does_not_hang() -> None:
    """A child that has not sent its first heartbeat does not count as hanging, because a start may take long."""
    assert not any(results_of(Liveness(lambda: False), 10 * MAX_MISSES))


def test_a_check_that_is_not_due_does_not_count() -> None:
    """A check before it is due is not counted."""
    signs = iter([True])
    liveness = Liveness(lambda: next(signs, False))
    first = liveness.due
    assert not liveness.check(first)
    assert not any(liveness.check(first) for _ in range(10 * MAX_MISSES))


def test_bytes_in_the_pipe_are_one_heartbeat() -> None:
    """Any number of bytes in the pipe is one heartbeat."""
    liveness, writer = liveness_of_pipe()
    try:
        os.write(writer, b"..")
        assert results_of(liveness, 1 + MAX_MISSES) == [False] * MAX_MISSES + [True]
    finally:
        os.close(writer)
        liveness.close()
