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

from antiphon.limits.base import RETRY_DELAY, WINDOW, Claim, Standing, Ticket

_MINUTE: Final = float(WINDOW)

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

    def __init__(self, number: int, end: float, count: int) -> None:
        self.number = number
        self.end = end
        self.count = count


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
        self.total += count
        number = int(now)
        if self.seconds and (last := self.seconds[-1]).number == number:
            last.end = now + WINDOW
            last.count += count
        else:
            self.seconds.append(_Second(number, now + WINDOW, count))

    def give_back(self, second: int, count: int) -> None:
        """Subtract from a second, unless it has ended."""
        for entry in reversed(self.seconds):  # most calls end soon
            if entry.number == second:
                entry.count -= count
                self.total -= count
                return

    def refusal(self, excess: int, now: float) -> Standing:
        """Return the standing of a claim that does not fit until `excess` less is used."""
        reset = self.seconds[-1].end - now if self.seconds else 0.0
        for entry in self.seconds:
            excess -= entry.count
            if excess <= 0:
                return Standing(self.total, reset, entry.end - now)
        return Standing(self.total, reset, _MINUTE)


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
        standings: list[Standing] = []
        refused: list[tuple[Claim, Standing]] = []
        for claim in claims:
            if claim.limit.is_rate:
                window = self._windows[claim.counter]
                if window.seconds and window.seconds[0].end <= now:
                    window.drop_expired(now)
                used = window.total + claim.wanted
                standing = Standing(used, _MINUTE) if used <= claim.maximum else window.refusal(used - claim.maximum, now)
            else:
                used = claim.known + self._held.get(claim.counter, 0)
                if used < claim.maximum:
                    standing = Standing(used if claim.limit.is_budget else used + 1)
                else:
                    standing = Standing(used, wait=0.0 if claim.limit.is_budget and claim.known >= claim.maximum else RETRY_DELAY)
            standings.append(standing)
            if standing.wait is not None:
                refused.append((claim, standing))
        if not refused:
            for claim in claims:
                if claim.limit.is_rate:
                    self._windows[claim.counter].add(now, claim.wanted)
                else:
                    self._held[claim.counter] += claim.wanted
        return Ticket("", claims, standings, second, refused)

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        now = self._clock()
        for claim in ticket.claims:
            if not claim.limit.is_rate:
                left = self._held[claim.counter] - claim.wanted
                if left:
                    self._held[claim.counter] = left
                else:
                    del self._held[claim.counter]
            elif not claim.limit.is_per_call:
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

    def _drop_unused(self, now: float) -> None:
        self._dropped_at = int(now)
        for counter, window in list(self._windows.items()):
            window.drop_expired(now)
            if not window.seconds:
                del self._windows[counter]
