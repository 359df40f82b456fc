"""What a call takes of its limits, and the `Counters` that count it: `memory` for one process, `redis` for all servers together.

A minute is the last 60 seconds, and never holds more than the limit. Counts are kept by the second; a second's count is released
when its newest entry is a minute old, so nobody waits longer than a minute. Money is in whole nano-dollars, which add up without a
rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

WINDOW: Final = 60
"""The window of the limits per minute, in seconds."""

NANOS: Final = 1_000_000_000
"""Nano-dollars per dollar."""

RETRY_DELAY: Final = 1.0
"""Seconds after which a call that was refused because too many are in flight may be retried: when one ends is unknown."""


class Limit(StrEnum):
    """The kinds of limit; the values are the fields of `Quota`."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    STREAMS = "concurrent_streams"
    DAY = "daily_usd"
    MONTH = "monthly_usd"

    def __init__(self, name: str) -> None:
        self.is_rate: Final = name.endswith("_per_minute")
        """Whether the limit is per minute."""
        self.is_budget: Final = name.endswith("_usd")
        """Whether the limit is an amount of money."""
        self.is_per_call: Final = name in {"requests_per_minute", "concurrent_streams"}
        """Whether each call takes one, however much it uses."""


class Estimate(Struct, frozen=True):
    """The expected use of a call. `cost_usd` is None if the price is not known.

    `paid_by_caller`: the caller brings its own provider key, so the call costs the gateway nothing.
    """

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None
    paid_by_caller: bool = False


Estimator: TypeAlias = Callable[[], Estimate]
"""Computes an estimate on demand: counting a long prompt takes milliseconds, and most callers have no limit."""


class Claim(Struct, frozen=True):
    """What a call requests of one limit.

    `scope` is "key", "owner" or "overall"; `counter` names the counter, and for a budget the day or month. `maximum` is the limit
    and `wanted` the amount to take now. An amount of a budget is reserved until the call is settled, and is granted while less than
    `maximum` is spent or reserved; `known` is the spending according to the ledger.
    """

    limit: Limit
    scope: str
    counter: str
    maximum: int
    wanted: int = 0
    known: int = 0


class Standing(Struct, frozen=True):
    """The state of a limit: the amount used, with this call's part, and the seconds until it is all free again if no call follows.

    `wait` is set if the call does not fit: the seconds until it would, or 0 for a budget that is spent.
    """

    used: int
    reset: float = 0.0
    wait: float | None = None


class Ticket(Struct, frozen=True):
    """The result of a call's claims: either all were granted or none. `second` is the second in which they are counted.

    `refused` are the claims that did not fit; it is empty if all were granted.
    """

    id: str
    claims: Sequence[Claim]
    standings: Sequence[Standing]
    second: int
    refused: Sequence[tuple[Claim, Standing]] = ()


class Counters(Protocol):
    """Counts what calls use, for one process or for many."""

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        """Take everything that the claims want, or nothing. Raises `LimitsUnavailable`.

        If the caller is cancelled meanwhile, nothing is taken.
        """
        ...

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        """End a call that was granted: release its place, and count `tokens` and `nanos` instead of what was taken.

        Tokens that were taken but not used are returned to the second in which they were taken; tokens used beyond that count from
        now. Raises `LimitsUnavailable`; what could not be returned then expires within a minute.
        """
        ...
