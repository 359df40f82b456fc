"""Tests of the wait between tries."""

from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.backoff import Backoff


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_wait_is_within_its_limit(retries: int, at: float) -> None:
    """The wait is at most `first`, doubled with each retry, and never more than `most`."""
    assert 0 <= Backoff().seconds(retries, at) <= min(8.0, 0.25 * 2 ** min(retries, 40))


def test_the_limit_doubles() -> None:
    """The limits are 0.25, 0.5, 1, 2, 4, 8, 8 seconds."""
    assert [Backoff().seconds(retries, 1.0) for retries in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]
