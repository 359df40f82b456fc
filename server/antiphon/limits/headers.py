"""The `x-ratelimit-*` headers of a response, as the OpenAI API has them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.limits.base import Claim, Limit, Standing, Ticket

_NAMES = {Limit.REQUESTS: "requests", Limit.TOKENS: "tokens"}


def of(ticket: Ticket) -> Iterator[tuple[str, str]]:
    """Names and values: of each kind that is limited by the minute, of the limit that has the least left."""
    tightest: dict[Limit, tuple[Claim, Standing]] = {}
    for claim, standing in zip(ticket.claims, ticket.standings, strict=True):
        if claim.limit in _NAMES:
            known = tightest.get(claim.limit)
            if known is None or claim.most - standing.used < known[0].most - known[1].used:
                tightest[claim.limit] = (claim, standing)
    for limit, (claim, standing) in tightest.items():
        name = _NAMES[limit]
        yield f"x-ratelimit-limit-{name}", str(claim.most)
        yield f"x-ratelimit-remaining-{name}", str(max(0, claim.most - standing.used))
        yield f"x-ratelimit-reset-{name}", duration(standing.reset)


def duration(seconds: float) -> str:
    """As that API writes a time: "1m0s", "6.5s", "120ms". What is no time at all is the only 0."""
    milliseconds = max(1, round(seconds * 1000)) if seconds > 0 else 0
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    rest = f"{milliseconds / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest
