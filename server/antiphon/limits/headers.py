"""The `x-ratelimit-*` headers of a response, as in the OpenAI API. No I/O."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter

from antiphon.limits.base import Limit, Ticket

_NAMES = ((Limit.REQUESTS, "requests"), (Limit.TOKENS, "tokens"))


def rate_limit_headers(ticket: Ticket) -> dict[str, str]:
    """Return the headers: for requests and for tokens, those of the limit with the least left."""
    headers: dict[str, str] = {}
    for limit, name in _NAMES:
        found = [
            (c.maximum - s.used, c.maximum, s.reset)
            for c, s in zip(ticket.claims, ticket.standings, strict=True)
            if c.limit is limit
        ]
        if found:
            left, maximum, reset = min(found, key=itemgetter(0))
            headers[f"x-ratelimit-limit-{name}"] = str(maximum)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, left))
            headers[f"x-ratelimit-reset-{name}"] = duration(reset)
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
