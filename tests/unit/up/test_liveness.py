"""How a child that hangs is told from one that works."""

import os

from antiphon.up.liveness import INTERVAL, MAX_MISSES, Liveness, liveness_of_pipe


def looks(liveness: Liveness, count: int) -> list[bool]:
    """What so many looks find, each when it is due."""
    return [liveness.check(liveness.due) for _ in range(count)]


def test_one_that_falls_silent_is_gone_after_several_looks() -> None:
    """And not after one, as a machine may be busy; a sign begins the count anew."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True, *[False] * MAX_MISSES])
    liveness = Liveness(lambda: next(signs))
    assert looks(liveness, 2 * MAX_MISSES + 1) == [False] * (2 * MAX_MISSES) + [True]
    assert liveness.silence == MAX_MISSES * INTERVAL


def test_one_that_has_been_silent_for_long_is_suspect() -> None:
    """So that it can be told before the last look."""
    signs = iter([True, *[False] * (MAX_MISSES - 1), True])
    liveness = Liveness(lambda: next(signs))
    looks(liveness, MAX_MISSES - 1)
    assert not liveness.is_suspect
    looks(liveness, 1)
    assert liveness.is_suspect
    looks(liveness, 1)
    assert not liveness.is_suspect


def test_one_that_has_not_begun_is_not_gone() -> None:
    """A start may take long."""
    assert not any(looks(Liveness(lambda: False), 10 * MAX_MISSES))


def test_a_look_that_is_not_due_does_not_count() -> None:
    """The supervisor looks whenever something happens."""
    signs = iter([True])
    liveness = Liveness(lambda: next(signs, False))
    first = liveness.due
    assert not liveness.check(first)
    assert not any(liveness.check(first) for _ in range(10 * MAX_MISSES))


def test_what_is_written_into_a_pipe_is_a_sign() -> None:
    """However much of it; and once."""
    liveness, writer = liveness_of_pipe()
    try:
        os.write(writer, b"..")
        assert looks(liveness, 1 + MAX_MISSES) == [False] * MAX_MISSES + [True]
    finally:
        os.close(writer)
        liveness.close()
