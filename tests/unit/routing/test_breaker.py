"""Tests of the breaker."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.breaker import JITTER, RAMP, RAMP_START, Breaker, BreakerRules, BreakerState, SavedBreaker

RULES = BreakerRules()


def middle() -> float:
    return 0.5  # no jitter


def failed(breaker: Breaker, now: float, times: int = RULES.consecutive) -> None:
    for _ in range(times):
        breaker.fail(now, breaker.begin(now))


STEPS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["fail", "succeed", "trip", "early fail", "early succeed", "early release"])),
    max_size=40,
)


def do(breaker: Breaker, now: float, step: str) -> tuple[BreakerState, bool, float, float | None]:
    """Make a call with this outcome if the breaker admits it, or trip it; return what can be seen of it afterwards."""
    step, is_early = step.removeprefix("early "), step.startswith("early")
    if step == "trip":
        breaker.trip(now, 60)
    elif is_early and breaker.early_wait(now) == 0:
        before, number = breaker.open_until, breaker.probe_early()
        assert not breaker.admits(now), "one probe at a time"
        assert breaker.early_wait(now) is None
        assert breaker.begin(now) == number
        breaker.release(number) if step == "release" else getattr(breaker, step)(now, number)
        assert breaker.open_until == before, "an early probe has no influence on the time"
    elif not is_early and breaker.admits(now):
        getattr(breaker, step)(now, breaker.begin(now))
    return breaker.refresh(now), breaker.admits(now), breaker.wait(now), breaker.early_wait(now)


@given(before=STEPS, after=STEPS, pause=st.integers(0, 200))
def test_one_that_takes_its_place_goes_on_as_it_would(
    before: list[tuple[int, str]], after: list[tuple[int, str]], pause: int
) -> None:
    """Whatever happened before, a breaker that takes up a saved state then does exactly what the other one does."""
    first, second = Breaker(RULES, middle), Breaker(RULES, middle)
    now = 0.0
    for seconds, step in before:
        now += seconds / 4
        do(first, now, step)
    second.restore(msgspec.json.decode(msgspec.json.encode(first.save(now)), type=SavedBreaker), now)
    now += pause / 4
    for seconds, step in after:
        now += seconds / 4
        assert do(first, now, step) == do(second, now, step)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    """It opens after `consecutive` failures, if no success came in between."""
    breaker = Breaker(RULES, middle)
    failed(breaker, 0.0, 4)
    breaker.succeed(0.0, breaker.begin(0.0))
    failed(breaker, 0.0, 4)
    assert breaker.admits(0.0)
    failed(breaker, 0.0, 1)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admits(4.9)
    assert breaker.wait(1.0) == 4.0


def test_half_of_enough_calls_open_it() -> None:
    """It opens if half of at least 20 calls within the window failed, and calls before the window do not count."""
    breaker = Breaker(RULES, middle)
    for _ in range(10):
        breaker.succeed(1.0, breaker.begin(1.0))
    for call in range(10):
        assert breaker.state is BreakerState.CLOSED
        breaker.succeed(40.0, breaker.begin(40.0)) if call % 2 else breaker.fail(40.0, breaker.begin(40.0))
    for call in range(10):
        assert breaker.state is BreakerState.CLOSED, call
        breaker.succeed(41.0, breaker.begin(41.0)) if call % 2 else breaker.fail(41.0, breaker.begin(41.0))
    breaker.fail(42.0, breaker.begin(42.0))
    assert breaker.state is BreakerState.OPEN


def test_one_probe_then_a_ramp_then_all() -> None:
    """After the time, one call is admitted; if it succeeds, a part of the calls that grows to all of them in ten seconds."""
    draws: list[float] = [0.5]
    breaker = Breaker(RULES, lambda: draws[0])
    failed(breaker, 0.0)
    assert breaker.admits(5.0)
    probe = breaker.begin(5.0)
    assert not breaker.admits(5.0)
    breaker.succeed(6.0, probe)
    assert breaker.state is BreakerState.RAMP
    draws[0] = RAMP_START + 0.01
    assert not breaker.admits(6.0)
    draws[0] = RAMP_START - 0.01
    assert breaker.admits(6.0)
    draws[0] = 0.54
    assert breaker.admits(6.0 + RAMP / 2)
    draws[0] = 0.999
    assert breaker.admits(6.0 + RAMP)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_whose_caller_left_gives_its_place_to_the_next() -> None:
    """A probe that says nothing lets another call probe; one that began before the breaker opened has no influence."""
    breaker = Breaker(RULES, middle)
    early = breaker.begin(0.0)
    failed(breaker, 0.0)
    assert breaker.admits(5.0)
    breaker.release(breaker.begin(5.0))
    assert breaker.admits(5.0)
    probe = breaker.begin(5.0)
    breaker.succeed(5.5, early)
    breaker.fail(5.5, early)
    breaker.release(early)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.admits(5.5)
    breaker.fail(5.6, probe)
    assert breaker.state is BreakerState.OPEN


def test_it_stays_open_for_twice_as_long_each_time_and_starts_again_once_closed() -> None:
    """Each failed probe doubles the time, up to `open_most`; after a whole ramp it begins with `open` again."""
    breaker, now, times = Breaker(RULES, middle), 0.0, []
    failed(breaker, now)
    for _ in range(7):
        times.append(breaker.wait(now))
        now += times[-1]
        assert breaker.admits(now)
        breaker.fail(now, breaker.begin(now))
    assert times == [5, 10, 20, 40, 80, 120, 120]
    now += breaker.wait(now)
    assert breaker.admits(now)
    breaker.succeed(now, breaker.begin(now))
    now += RAMP
    assert breaker.admits(now)
    failed(breaker, now)
    assert breaker.wait(now) == 5


def test_an_early_probe_changes_nothing_unless_it_succeeds() -> None:
    """A second after each failure one may be made; its failure, or none, keeps the end as it was; its success begins the ramp."""
    breaker = Breaker(RULES, middle)
    assert breaker.early_wait(0.0) is None, "it is closed"
    failed(breaker, 0.0)
    assert breaker.early_wait(0.25) == 0.75
    assert breaker.early_wait(1.0) == 0
    breaker.fail(1.5, breaker.probe_early())
    assert (breaker.wait(1.5), breaker.early_wait(1.5)) == (3.5, 1.0)
    breaker.release(breaker.probe_early())
    assert (breaker.state, breaker.early_wait(2.5)) == (BreakerState.OPEN, 0)
    probe = breaker.probe_early()
    assert breaker.save(2.5).state is BreakerState.OPEN
    breaker.succeed(2.5, probe)
    assert breaker.state is BreakerState.RAMP
    failed(breaker, 3.0)
    assert breaker.wait(3.0) == 10.0, "the time doubles with what was no early probe"
    assert not breaker.admits(9.0)
    assert breaker.early_wait(12.5) == 0
    late = breaker.probe_early()
    breaker.fail(13.5, late)
    assert breaker.wait(13.5) == 20.0, "one that ends after the time is the probe"
    assert breaker.early_wait(33.0) == 0
    breaker.trip(33.0, 60.0)
    assert breaker.early_wait(92.0) is None, "whoever tripped it knows better"


def test_a_probe_without_an_answer_is_followed_by_another() -> None:
    """A call that has nothing else need not wait for a probe that hangs: each second there may be a further one."""
    breaker = Breaker(RULES, middle)
    failed(breaker, 0.0)
    assert breaker.admits(5.0)
    hanging = breaker.begin(5.0)
    assert breaker.early_wait(5.9) is None
    for now in (6.0, 7.0):
        assert not breaker.admits(now), "a call that has something else goes there"
        assert breaker.early_wait(now) == 0
        assert breaker.probe_early() == hanging
        assert breaker.early_wait(now) is None
        further = breaker.begin(now)
    breaker.succeed(7.1, further)
    assert breaker.state is BreakerState.RAMP
    breaker.fail(35.0, hanging)
    assert breaker.refresh(35.0) is BreakerState.CLOSED


def test_few_calls_that_have_nothing_else_are_admitted_in_the_ramp() -> None:
    """One at a time at first, and one more at once after each second. However a call ends, it gives its place back."""
    breaker = Breaker(RULES, middle)
    failed(breaker, 0.0)
    assert not breaker.may_start(5.0)
    assert breaker.admits(5.0)
    breaker.succeed(5.0, breaker.begin(5.0))
    for second in range(4):
        now, numbers = 5.5 + second, []
        while breaker.may_start(now):
            numbers.append(breaker.begin(now))
        assert len(numbers) == second + 1
        for number, end in zip(numbers, (breaker.succeed, breaker.fail, breaker.succeed, breaker.fail), strict=False):
            end(now, number)
    number = breaker.begin(now)
    breaker.release(number)
    assert breaker.may_start(8.5)
    assert breaker.admits(5.0 + RAMP)
    assert not breaker.may_start(5.0 + RAMP), "it is closed, and admits all"


def test_it_can_be_tripped_and_reset() -> None:
    """Tripped, it is open for exactly that time, never for a shorter one than before; reset, it is closed."""
    breaker = Breaker(RULES, lambda: 1.0)
    breaker.trip(0.0, 60.0)
    breaker.trip(1.0, 5.0)
    assert breaker.wait(10.0) == 50.0
    breaker.reset()
    assert breaker.admits(10.0)


def test_it_can_be_held_open_for_an_exact_time() -> None:
    """Held open, it is so for exactly that time and without early probes, whatever was to be; then a probe decides as usual."""
    breaker = Breaker(RULES, middle)
    breaker.trip(0.0, 60.0)
    breaker.hold_open(10.0, 5.0)
    assert (breaker.wait(10.0), breaker.early_wait(14.0)) == (5.0, None)
    breaker.reset()
    failed(breaker, 20.0)
    assert breaker.early_wait(20.0) is not None
    breaker.hold_open(20.0, 30.0)
    assert breaker.early_wait(49.9) is None
    assert not breaker.admits(49.9)
    assert breaker.admits(50.0)
    breaker.fail(50.0, breaker.begin(50.0))
    assert breaker.refresh(50.0) is BreakerState.OPEN, "a failed probe"
    now = breaker.open_until
    assert breaker.admits(now)
    breaker.succeed(now, breaker.begin(now))
    assert breaker.refresh(now) is BreakerState.RAMP
    assert breaker.refresh(now + RAMP) is BreakerState.CLOSED


def test_calls_that_were_admitted_before_it_was_opened_have_no_influence() -> None:
    """A call may begin a moment after it was admitted: if the breaker was opened meanwhile, its end changes nothing."""
    breaker = Breaker(RULES, middle)
    assert breaker.admits(0.0)
    breaker.hold_open(0.0, 60.0)
    for end in (breaker.fail, breaker.succeed, lambda _, number: breaker.release(number)):
        for _ in range(RULES.of):
            end(1.0, breaker.begin(1.0))
            assert (breaker.wait(1.0), breaker.early_wait(1.0)) == (59.0, None)


@given(
    st.lists(st.tuples(st.sampled_from(["fail", "succeed", "release", "trip"]), st.floats(0, 40), st.integers(0, 3)), max_size=120),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_it_keeps_its_promises(steps: list[tuple[str, float, int]], source: random.Random) -> None:
    """Whatever the outcomes and their order: at most one probe at a time, an open time within its bounds, and recovery."""
    breaker = Breaker(RULES, source.random)
    now, open_calls = 0.0, []
    for what, later, which in steps:
        now += later
        if breaker.admits(now):
            half_open = breaker.state is BreakerState.HALF_OPEN
            open_calls.append(breaker.begin(now))
            if half_open:
                assert not breaker.admits(now), "two probes at once"
        if breaker.state is BreakerState.OPEN:
            assert 0 <= breaker.wait(now) <= RULES.open_most * (1 + JITTER)
        if what == "trip":
            breaker.trip(now, 60.0)
        elif open_calls:
            epoch = open_calls.pop(which % len(open_calls))
            {"fail": breaker.fail, "succeed": breaker.succeed}.get(what, lambda _, epoch: breaker.release(epoch))(now, epoch)
    for epoch in open_calls:
        breaker.release(epoch)
    # A target that is well again is always found to be so.
    for _ in range(200):
        now += 1 + breaker.wait(now)
        if breaker.admits(now):
            breaker.succeed(now, breaker.begin(now))
    assert breaker.refresh(now + RAMP) is BreakerState.CLOSED
