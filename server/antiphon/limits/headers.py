"""The `x-ratelimit-*` headers of a response, as in the OpenAI API. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.limits.base import Claim, Limit, Standing, Ticket

_NAMES = {Limit.REQUESTS: "requests", Limit.TOKENS: "tokens"}


def rate_limit_headers(ticket: Ticket) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the headers: for requests and for tokens, those of the limit with the least left."""
    tightest: dict[Limit, tuple[Claim, Standing]] = {}
    for claim, standing in zip(ticket.claims, ticket.standings, strict=True):
        if claim.limit in _NAMES:
            known = tightest.get(claim.limit)
            if known is None or claim.maximum - standing.used < known[0].maximum - known[1].used:
                tightest[claim.limit] = (claim, standing)
    for limit, (claim, standing) in tightest.items():
        name = _NAMES[limit]
        yield f"x-ratelimit-limit-{name}", str(claim.maximum)
        yield f"x-ratelimit-remaining-{name}", str(max(0, claim.maximum - standing.used))
        yield f"x-ratelimit-reset-{name}", duration(standing.reset)


def duration(seconds: float) -> str:
    """Return a time in that API's format: "1m0s", "6.5s", "120ms". Only zero seconds are "0ms"."""
    milliseconds = max(1, round(seconds * 1000)) if seconds > 0 else 0
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    rest = f"{milliseconds / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest
