"""Tests of the rate-limit headers."""

import pytest

from antiphon.limits import headers
from antiphon.limits.base import Claim, Limit, Standing, Ticket


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (0.9996, "1s"), (6.5, "6.5s"), (60, "1m0s"), (61.25, "1m1.25s"), (-1, "0ms")],
)
def test_times_are_written_as_the_openai_api_does(seconds: float, written: str) -> None:
    """Times are written as in the OpenAI API, such as `1m0s`, `6.5s` or `120ms`."""
    assert headers.duration(seconds) == written


def test_the_tightest_limit_of_each_kind_has_headers() -> None:
    """Headers have the limit with the least left for requests and for tokens. Other limits have none, and nothing is negative."""
    ticket = Ticket(
        "",
        [
            Claim(Limit.REQUESTS, "key", "a", 100, 1),
            Claim(Limit.REQUESTS, "owner", "b", 10, 1),
            Claim(Limit.TOKENS, "key", "c", 50, 1),
            Claim(Limit.STREAMS, "key", "d", 5, 1),
        ],
        [Standing(1, 60), Standing(4, 30.5), Standing(80, 2), Standing(1)],
        0,
    )
    assert dict(headers.rate_limit_headers(ticket)) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "30.5s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2s",
    }
