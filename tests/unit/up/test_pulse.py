"""How a child that hangs is told from one that works."""

import os

from antiphon.up.pulse import INTERVAL, SILENT, Pulse, pulse_of_pipe


def looks(pulse: Pulse, count: int) -> list[bool]:
    """What so many looks find, each when it is due."""
    return [pulse.is_gone(pulse.due) for _ in range(count)]


def test_one_that_falls_silent_is_gone_after_several_looks() -> None:
    """And not after one, as a machine may be busy; a sign begins the count anew."""
    signs = iter([True, *[False] * (SILENT - 1), True, *[False] * SILENT])
    pulse = Pulse(lambda: next(signs))
    assert looks(pulse, 2 * SILENT + 1) == [False] * (2 * SILENT) + [True]
    assert pulse.silence == SILENT * INTERVAL


def test_one_that_has_been_silent_for_long_is_weak() -> None:
    """So that it can be told before the last look."""
    signs = iter([True, *[False] * (SILENT - 1), True])
    pulse = Pulse(lambda: next(signs))
    looks(pulse, SILENT - 1)
    assert not pulse.is_weak
    looks(pulse, 1)
    assert pulse.is_weak
    looks(pulse, 1)
    assert not pulse.is_weak


def test_one_that_has_not_begun_is_not_gone() -> None:
    """A start may take long."""
    assert not any(looks(Pulse(lambda: False), 10 * SILENT))


def test_a_look_that_is_not_due_does_not_count() -> None:
    """The supervisor looks whenever something happens."""
    signs = iter([True])
    pulse = Pulse(lambda: next(signs, False))
    first = pulse.due
    assert not pulse.is_gone(first)
    assert not any(pulse.is_gone(first) for _ in range(10 * SILENT))


def test_what_is_written_into_a_pipe_is_a_sign() -> None:
    """However much of it; and once."""
    pulse, writer = pulse_of_pipe()
    try:
        os.write(writer, b"..")
        assert looks(pulse, 1 + SILENT) == [False] * SILENT + [True]
    finally:
        os.close(writer)
        pulse.close()
