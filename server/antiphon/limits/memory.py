"""Counters in the memory of one process.

Of budgets it only counts what is reserved for calls in flight: the ledger knows what this process has spent, and within seconds
what all others have.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from antiphon.limits.base import RETRY_DELAY, WINDOW, Claim, Limit, Standing, Ticket

_SWEEP_INTERVAL: Final = 60
"""Seconds between two removals of unused counters."""


class SecondCount(Struct, frozen=True):
    """What one counter counted in one second, and the age in seconds of its newest entry."""

    counter: str
    second: int
    count: int
    age: float


class _Second:
    """The count of one second, and when all of it is a minute old."""

    __slots__ = ("count", "end", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.end = float(number + WINDOW)
        self.count = 0


class _Window:
    """What was counted in the last minute, by second."""

    __slots__ = ("seconds", "total")

    def __init__(self) -> None:
        self.seconds: deque[_Second] = deque()
        self.total = 0

    def drop_expired(self, now: float) -> None:
        """Drop the seconds that have ended."""
        while self.seconds and self.seconds[0].end <= now:
            self.total -= self.seconds.popleft().count

    def add(self, now: float, count: int) -> None:
        """Add to the current second."""
        if not self.seconds or self.seconds[-1].number != int(now):
            self.seconds.append(_Second(int(now)))
        self.seconds[-1].end = now + WINDOW
        self.seconds[-1].count += count
        self.total += count

    def give_back(self, second: int, count: int) -> None:
        """Subtract from a second, unless it has ended."""
        for entry in self.seconds:
            if entry.number == second:
                entry.count -= count
                self.total -= count
                return

    def reset(self, now: float) -> float:
        """Return the seconds until nothing is left."""
        return self.seconds[-1].end - now if self.seconds else 0.0

    def wait(self, excess: int, now: float) -> float:
        """Return the seconds until `excess` less is used."""
        for entry in self.seconds:
            excess -= entry.count
            if excess <= 0:
                return entry.end - now
        return float(WINDOW)


class MemoryCounters:
    """`Counters` for one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns monotonic seconds."""
        self._clock = clock
        self._windows: defaultdict[str, _Window] = defaultdict(_Window)
        self._held: defaultdict[str, int] = defaultdict(int)  # calls in flight, and what they reserve of budgets
        self._dropped_at = 0

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        now = self._clock()
        second = int(now)
        if second - self._dropped_at >= _SWEEP_INTERVAL:
            self._drop_unused(now)
        ticket = Ticket("", claims, [self._standing(claim, now) for claim in claims], second)
        if not ticket.refused:
            for claim in claims:
                if claim.limit.is_rate:
                    self._windows[claim.counter].add(now, claim.wanted)
                else:
                    self._held[claim.counter] += claim.wanted
        return ticket

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        now = self._clock()
        for claim in ticket.claims:
            if not claim.limit.is_rate:
                self._held[claim.counter] -= claim.wanted
                if not self._held[claim.counter]:
                    del self._held[claim.counter]
            elif claim.limit is Limit.TOKENS:
                window = self._windows[claim.counter]
                if tokens > claim.wanted:
                    window.add(now, tokens - claim.wanted)
                else:
                    window.give_back(ticket.second, claim.wanted - tokens)

    def counted(self) -> list[SecondCount]:
        """Return what was counted in the last minute."""
        now = self._clock()
        for window in self._windows.values():
            window.drop_expired(now)
        return [
            SecondCount(counter, entry.number, entry.count, now - entry.end + WINDOW)
            for counter, window in self._windows.items()
            for entry in window.seconds
            if entry.count
        ]

    def _standing(self, claim: Claim, now: float) -> Standing:
        if claim.limit.is_budget:
            used = claim.known + self._held.get(claim.counter, 0)
            return Standing(used, wait=None if used < claim.maximum else 0.0 if claim.known >= claim.maximum else RETRY_DELAY)
        if claim.limit is Limit.STREAMS:
            used = self._held.get(claim.counter, 0)
            return Standing(used + 1) if used < claim.maximum else Standing(used, wait=RETRY_DELAY)
        window = self._windows[claim.counter]
        window.drop_expired(now)
        used = window.total + claim.wanted
        if used <= claim.maximum:
            return Standing(used, float(WINDOW))
        return Standing(window.total, window.reset(now), window.wait(used - claim.maximum, now))

    def _drop_unused(self, now: float) -> None:
        self._dropped_at = int(now)
        for counter, window in list(self._windows.items()):
            window.drop_expired(now)
            if not window.seconds:
                del self._windows[counter]
