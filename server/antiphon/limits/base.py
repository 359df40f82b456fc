"""What a call takes of its limits, and who counts it: `memory` in this process, `redis` for all servers together.

A minute is the 60 seconds that have just passed, and never holds more than the limit: counts are kept by the second, and a second
is given back when the newest of it is a minute old, so that nobody has to wait for longer than that. Sums of money are whole
nano-dollars: they add up without a rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

WINDOW: Final = 60
"""Seconds of what is limited by the minute."""

NANOS: Final = 1_000_000_000
"""Nano-dollars of a dollar."""

BUSY: Final = 1.0
"""Seconds after which a call may be tried again that found too many others going on: nobody knows when one ends."""


class Limit(StrEnum):
    """What is limited: the fields of `Quota`."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    STREAMS = "concurrent_streams"
    DAY = "daily_usd"
    MONTH = "monthly_usd"

    @property
    def is_rate(self) -> bool:
        """Whether it is counted by the minute."""
        return self in {Limit.REQUESTS, Limit.TOKENS}

    @property
    def is_budget(self) -> bool:
        """Whether it is money."""
        return self in {Limit.DAY, Limit.MONTH}


class Estimate(Struct, frozen=True):
    """What a call is expected to use. `cost_usd` is None where the price is not known.

    `paid_by_caller`: it brings its own key of the provider, and costs nobody here.
    """

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None
    paid_by_caller: bool = False


Estimator: TypeAlias = Callable[[], Estimate]
"""Makes an estimate when it is asked for: to count a long prompt takes milliseconds, and most callers have no limit."""


class Claim(Struct, frozen=True):
    """What a call wants of one limit.

    `scope` is whose limit it is: "key", "owner" or "overall"; `counter` names what is counted, with the day or month of a budget.
    `most` is how much there is, `wanted` how much of it is taken now. Of a budget that is held until the call is settled: it is
    good while less than `most` is spent or held, and `known` is what the ledger says has been spent.
    """

    limit: Limit
    scope: str
    counter: str
    most: int
    wanted: int = 0
    known: int = 0


class Standing(Struct, frozen=True):
    """Where a limit stands: what is used of it, this call's part included, and the seconds until nothing of it is, if nobody calls.

    `wait` is set if the call does not fit: the seconds until it would; 0 of a budget that is spent.
    """

    used: int
    reset: float = 0.0
    wait: float | None = None


class Ticket(Struct, frozen=True):
    """What came of the claims of one call: all were granted, or none was. `second` is the one that they are counted in."""

    id: str
    claims: Sequence[Claim]
    standings: Sequence[Standing]
    second: int

    @property
    def refused(self) -> list[tuple[Claim, Standing]]:
        """The claims that did not fit; empty: all were granted."""
        return [(c, s) for c, s in zip(self.claims, self.standings, strict=True) if s.wait is not None]


class Counters(Protocol):
    """Counts for one process, or for many."""

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        """Takes all that is wanted, or nothing. Raises `LimitsUnavailable`.

        A caller that is cancelled meanwhile has taken nothing.
        """
        ...

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        """Ends a call that was granted: its place is free again, and its tokens are so many, whatever was taken for them.

        What was taken too much is given back to the second that it was taken in; what was too little counts from now. Raises
        `LimitsUnavailable`; what could not be given back comes back by itself within a minute.
        """
        ...
