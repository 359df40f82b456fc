"""The `x-ratelimit-*` headers of a response, as in the OpenAI API. No I/O."""

from __future__ import annotations

from functools import lru_cache

from antiphon.limits.base import Limit, Ticket

_NAMES = tuple(
    (limit, f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}")
    for limit, name in ((Limit.REQUESTS, "requests"), (Limit.TOKENS, "tokens"))
)


def rate_limit_headers(ticket: Ticket) -> dict[str, str]:
    """Return the headers: for requests and for tokens, those of the limit with the least left."""
    tightest: dict[Limit, tuple[int, int, float]] = {}
    for claim, standing in zip(ticket.claims, ticket.standings, strict=True):
        if claim.limit.is_rate:
            left = claim.maximum - standing.used
            if claim.limit not in tightest or left < tightest[claim.limit][0]:
                tightest[claim.limit] = (left, claim.maximum, standing.reset)
    headers: dict[str, str] = {}
    for rate, limit, remaining, until_reset in _NAMES:
        if rate in tightest:
            left, maximum, reset = tightest[rate]
            headers[limit] = str(maximum)
            headers[remaining] = str(max(0, left))
            headers[until_reset] = duration(reset)
    return headers


@lru_cache(100)  # nearly always a minute
def duration(seconds: float) -> str:
    """Return a time in that API's format: "1m0s", "6.5s", "120ms". Only zero seconds are "0ms"."""
    milliseconds = max(1, round(seconds * 1000)) if seconds > 0 else 0
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    rest = f"{milliseconds / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest
