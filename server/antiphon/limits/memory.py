"""Counters in the memory of one process.

Of budgets only what is held for the calls that go on is counted here: the ledger knows what this process has spent, and within
seconds what all others have.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from antiphon.limits.base import BUSY, WINDOW, Claim, Limit, Standing, Ticket

_SWEEP: Final = 60
"""Seconds between two looks for counters that nobody uses any more."""


class Counted(Struct, frozen=True):
    """What was taken of one counter in one second, and how many seconds ago the newest of it was."""

    counter: str
    second: int
    count: int
    age: float


class _Second:
    """What was taken in one second, and when the newest of it was."""

    __slots__ = ("count", "newest", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.newest = float(number)
        self.count = 0

    @property
    def end(self) -> float:
        """When all of it is a minute old."""
        return self.newest + WINDOW


class _Window:
    """What was taken in the last minute, by the second."""

    __slots__ = ("seconds", "total")

    def __init__(self) -> None:
        self.seconds: deque[_Second] = deque()
        self.total = 0

    def forget(self, now: float) -> None:
        """Drops the seconds that are over."""
        while self.seconds and self.seconds[0].end <= now:
            self.total -= self.seconds.popleft().count

    def add(self, now: float, count: int) -> None:
        """Adds to the second that is going on."""
        if not self.seconds or self.seconds[-1].number != int(now):
            self.seconds.append(_Second(int(now)))
        self.seconds[-1].newest = now
        self.seconds[-1].count += count
        self.total += count

    def give_back(self, second: int, count: int) -> None:
        """Takes out of a second, unless it is over."""
        for entry in self.seconds:
            if entry.number == second:
                entry.count -= count
                self.total -= count
                return

    def reset(self, now: float) -> float:
        """Seconds until nothing is left."""
        return self.seconds[-1].end - now if self.seconds else 0.0

    def wait(self, excess: int, now: float) -> float:
        """Seconds until so much less is used."""
        for entry in self.seconds:
            excess -= entry.count
            if excess <= 0:
                return entry.end - now
        return float(WINDOW)


class MemoryCounters:
    """`Counters` of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds that never go back."""
        self._clock = clock
        self._windows: defaultdict[str, _Window] = defaultdict(_Window)
        self._going: defaultdict[str, int] = defaultdict(int)  # calls, and what is held of budgets for them
        self._swept = 0

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        now = self._clock()
        second = int(now)
        if second - self._swept >= _SWEEP:
            self._sweep(now)
        standings = [self._standing(claim, now) for claim in claims]
        if all(standing.wait is None for standing in standings):
            for claim in claims:
                if claim.limit.is_rate:
                    self._windows[claim.counter].add(now, claim.wanted)
                else:
                    self._going[claim.counter] += claim.wanted
        return Ticket("", claims, standings, second)

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        now = self._clock()
        for claim in ticket.claims:
            if not claim.limit.is_rate:
                self._going[claim.counter] -= claim.wanted
                if not self._going[claim.counter]:
                    del self._going[claim.counter]
            elif claim.limit is Limit.TOKENS:
                window = self._windows[claim.counter]
                if tokens > claim.wanted:
                    window.add(now, tokens - claim.wanted)
                else:
                    window.give_back(ticket.second, claim.wanted - tokens)

    def counted(self) -> list[Counted]:
        """What was taken in the last minute."""
        now = self._clock()
        for window in self._windows.values():
            window.forget(now)
        return [
            Counted(counter, entry.number, entry.count, now - entry.newest)
            for counter, window in self._windows.items()
            for entry in window.seconds
            if entry.count
        ]

    def _standing(self, claim: Claim, now: float) -> Standing:
        if claim.limit.is_budget:
            used = claim.known + self._going.get(claim.counter, 0)
            return Standing(used, wait=None if used < claim.most else 0.0 if claim.known >= claim.most else BUSY)
        if claim.limit is Limit.STREAMS:
            used = self._going.get(claim.counter, 0)
            return Standing(used + 1) if used < claim.most else Standing(used, wait=BUSY)
        window = self._windows[claim.counter]
        window.forget(now)
        used = window.total + claim.wanted
        if used <= claim.most:
            return Standing(used, float(WINDOW))
        return Standing(window.total, window.reset(now), window.wait(used - claim.most, now))

    def _sweep(self, now: float) -> None:
        self._swept = int(now)
        for counter, window in list(self._windows.items()):
            window.forget(now)
            if not window.seconds:
                del self._windows[counter]
