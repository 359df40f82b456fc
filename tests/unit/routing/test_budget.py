"""Tests of the retry budget."""

from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.budget import CAP, START, RetryBudget


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=2000))
def test_retries_are_bounded_by_first_tries(rate: float, calls: list[bool]) -> None:
    """However calls and retries alternate, there are at most `rate` retries per call, and those of the start."""
    budget, first, again = RetryBudget(rate), 0, 0
    for is_first in calls:
        if is_first:
            budget.deposit()
            first += 1
        elif budget.withdraw():
            again += 1
        assert again <= START + rate * first + 1e-6
        assert 0 <= budget.left <= CAP


def test_no_rate_is_no_retry() -> None:
    """With the rate 0 nothing is sent again."""
    budget = RetryBudget(0.0)
    budget.deposit()
    assert not budget.withdraw()
