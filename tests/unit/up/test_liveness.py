"""Tests of telling a child that hangs from one that works."""

import os

from antiphon.up.liveness import INTERVAL, MAX_MISSES, Liveness, liveness_of_pipe


def looks(liveness: Liveness, count: int) -> list[bool]:
    """Return the results of so many checks, each at the time when it is due."""
    return [liveness.check(liveness.due) for _ in range(count)]


def test_one_that_falls_silent_is_gone_after_several_looks() -> None:
    """A child hangs after MAX_MISSES checks without a heartbeat; a heartbeat starts the count again."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True, *[False] * MAX_MISSES])
    liveness = Liveness(lambda: next(signs))
    assert looks(liveness, 2 * MAX_MISSES + 1) == [False] * (2 * MAX_MISSES) + [True]
    assert liveness.silence == MAX_MISSES * INTERVAL


def test_one_that_has_been_silent_for_long_is_suspect() -> None:
    """A child is suspect before the last check, so that probes can report it."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True])
    liveness = Liveness(lambda: next(signs))
    looks(liveness, MAX_MISSES - 1)
    assert not liveness.is_suspect
    looks(liveness, 1)
    assert liveness.is_suspect
    looks(liveness, 1)
    assert not liveness.is_suspect


def test_one_that_has_not_begun_is_not_gone() -> None:
    """A child that has not sent its first heartbeat does not count as hanging, because a start may take long."""
    assert not any(looks(Liveness(lambda: False), 10 * MAX_MISSES))


def test_a_look_that_is_not_due_does_not_count() -> None:
    """A check before it is due is not counted."""
    signs = iter([True])
    liveness = Liveness(lambda: next(signs, False))
    first = liveness.due
    assert not liveness.check(first)
    assert not any(liveness.check(first) for _ in range(10 * MAX_MISSES))


def test_what_is_written_into_a_pipe_is_a_sign() -> None:
    """Any number of bytes in the pipe is one heartbeat."""
    liveness, writer = liveness_of_pipe()
    try:
        os.write(writer, b"..")
        assert looks(liveness, 1 + MAX_MISSES) == [False] * MAX_MISSES + [True]
    finally:
        os.close(writer)
        liveness.close()
