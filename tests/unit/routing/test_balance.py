"""Tests of the balance between targets."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.balance import Average, FailureRate, Load, choose

LOADS = st.builds(
    Load,
    weight=st.floats(0.01, 100),
    in_flight=st.integers(0, 1000),
    first_token=st.none() | st.floats(0, 600),
    failures=st.floats(0, 1),
)


@given(st.lists(LOADS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_one_of_the_targets_is_chosen(loads: list[Load], source: random.Random) -> None:
    """The answer is the index of a target, whatever their loads."""
    assert 0 <= choose(loads, source.random) < len(loads)


def shares(loads: list[Load], calls: int = 4000, digits: int = 1) -> list[float]:
    source = random.Random(7)  # the same draws each time
    found = Counter(choose(loads, source.random) for _ in range(calls))
    return [round(found[index] / calls, digits) for index in range(len(loads))]


def test_equal_targets_share_by_weight() -> None:
    """Idle targets that are equally fast get calls in proportion to their weights."""
    assert shares([Load(3, 0, 0.5), Load(1, 0, 0.5)]) in ([0.7, 0.3], [0.8, 0.2])
    assert shares([Load(1, 0, 0.5), Load(1, 0, 0.5)]) == [0.5, 0.5]


def test_busy_slow_and_failing_targets_get_less() -> None:
    """A target that is busier, slower or failing gets a quarter of the calls, so that it is still measured."""
    for worse in (Load(1, 2, 0.5), Load(1, 0, 1.5), Load(1, 0, 0.5, failures=0.1)):
        assert shares([worse, Load(1, 0, 0.5)]) in ([0.2, 0.8], [0.3, 0.7])


def test_a_far_worse_target_is_only_measured() -> None:
    """One that costs more than four times as much as the best gets a twentieth of the calls, also among three."""
    for worse in (Load(1, 9, 0.5), Load(1, 0, 5.0), Load(1, 0, 0.5, failures=0.3)):
        assert 0.04 <= shares([worse, Load(1, 0, 0.5)], digits=3)[0] <= 0.06
        assert 0.015 <= shares([worse, Load(1, 0, 0.5), Load(1, 0, 0.5)], digits=3)[0] <= 0.03


def test_a_target_that_everybody_prefers_by_its_weight_may_be_left() -> None:
    """A weight says how calls are shared, and not that a target is called that fails while another one does not."""
    assert shares([Load(1e6, 0, 0.5, failures=0.5), Load(1, 0, 0.5)])[0] == 0.2


def test_a_target_that_is_not_measured_counts_as_the_median() -> None:
    """A new target is neither flooded nor ignored."""
    assert shares([Load(1, 1, None), Load(1, 0, 0.5)])[0] < 0.4
    assert shares([Load(1, 0, None), Load(1, 0, 5.0), Load(1, 0, 0.5)])[0] > 0.2


def test_averages_follow_and_failures_fade() -> None:
    """The average follows the measurements; the failure rate fades with time and with each success."""
    average, rate = Average(), FailureRate()
    assert average.value is None
    for _ in range(50):
        average.add(2.0)
        rate.add(0.0, failed=True)
    assert average.value == 2.0
    assert rate.at(0.0) > 0.99
    assert rate.at(30.0) < 0.06
    for _ in range(50):
        rate.add(1.0, failed=False)
    assert rate.at(1.0) == 0.0


def test_a_wait_that_was_broken_off_counts_only_if_it_is_longer_than_usual() -> None:
    """A caller that left after a second says that it takes a second at least: news if that is more than the average."""
    average = Average()
    average.add_at_least(1.0)
    assert average.value == 1.0
    average.add_at_least(0.5)
    assert average.value == 1.0
    average.add_at_least(3.0)
    assert average.value == 2.0


def test_the_first_measurements_count_alike() -> None:
    """A slow first call, which opens a connection, is soon outweighed; later the newest one is a fifth."""
    average = Average()
    for seconds in (4.0, 1.0, 1.0, 1.0):
        average.add(seconds)
    assert average.value == 1.75
    average.add(1.75)
    average.add(6.75)
    assert average.value == 2.75
