"""The counters of one process: those in Redis, which all servers share, else its own.

Its own hold its share of each limit, as every worker counts for itself. They also count while Redis is unreachable, and Redis
receives these counts when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from antiphon.domain.errors import LimitsUnavailable
from antiphon.limits.base import Claim, Counters, Ticket
from antiphon.limits.memory import MemoryCounters
from antiphon.limits.stand_in import StandIn

if TYPE_CHECKING:
    from antiphon.limits.redis import RedisCounters  # the app imports it where it is used: its client takes 6.3 MB


class Counting:
    """Where everything that has a limit is counted."""

    def __init__(
        self, *, workers: int = 1, shared: RedisCounters | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`workers` is the number of processes that count for themselves. `shared` counts for all servers."""
        self._workers = workers
        self._own: Counters = MemoryCounters(clock)
        if shared is not None:
            self._own = shared.stand_in = StandIn(shared, clock)
        self._shared = shared

    async def take(self, claims: Callable[[int], Sequence[Claim]], *, closed: bool = False) -> tuple[Counters, Ticket]:
        """Take everything that a call claims, or nothing; return who counted it, and the ticket.

        `claims` returns the claims, for the number of processes among which a limit is divided. `closed`: raise `LimitsUnavailable`
        while Redis cannot be reached, instead of counting here.
        """
        if self._shared is not None:
            try:
                return self._shared, await self._shared.take(claims(1))
            except LimitsUnavailable:
                if closed:
                    raise
        return self._own, await self._own.take(claims(self._workers))

    async def renew(self) -> None:
        """Renew the leases of this process's calls in flight. Raises `LimitsUnavailable`."""
        if self._shared is not None:
            await self._shared.renew()

    async def close(self) -> None:
        """Close the connections."""
        if self._shared is not None:
            await self._shared.close()
