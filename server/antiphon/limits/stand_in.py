"""Counts in this process while the counters of all servers are out of reach, and hands over what it counted when they are back.

So a limit holds over the end of an outage: what was let through here is there when the first call is counted by them again. Tickets
that were given out here are settled there from then on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count

from msgspec import Struct
from msgspec.structs import replace

from antiphon.limits.base import Claim, Counters, Ticket
from antiphon.limits.memory import Counted, MemoryCounters


class Backlog(Struct, frozen=True):
    """What was counted here and is still of account. `second` is the present one, on the clock of `counted` and of the tickets."""

    second: int
    counted: Sequence[Counted]
    tickets: Sequence[Ticket]
    """Those of calls that go on."""


class StandIn:
    """`Counters` in the place of `shared`."""

    def __init__(self, shared: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds that never go back."""
        self._shared = shared
        self._clock = clock
        self._memory = MemoryCounters(clock)
        self._numbers = count(1)
        self._open: dict[str, Ticket] = {}
        self._handed_over: dict[str, Ticket] = {}
        self._moving: asyncio.Event | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        if self._moving is not None:
            await self._moving.wait()
        ticket = await self._memory.take(claims)
        if ticket.refused:
            return ticket
        ticket = replace(ticket, id=str(next(self._numbers)))
        self._open[ticket.id] = ticket
        return ticket

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        if self._moving is None:
            await self._settle(ticket, tokens, nanos)
            return
        settling = asyncio.create_task(self._settle_after(self._moving, ticket, tokens, nanos))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        await asyncio.shield(settling)  # a caller that leaves meanwhile would hold its place for ever

    async def _settle_after(self, moved: asyncio.Event, ticket: Ticket, tokens: int, nanos: int) -> None:
        await moved.wait()
        await self._settle(ticket, tokens, nanos)

    async def _settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        handed_over = self._handed_over.pop(ticket.id, None)
        if handed_over is not None:
            await self._shared.settle(handed_over, tokens, nanos)
        elif self._open.pop(ticket.id, None) is not None:
            await self._memory.settle(ticket, tokens, nanos)

    @contextmanager
    def handing_over(self) -> Iterator[Backlog]:
        """What has to be handed over; it stays unless `hand_over` is called within. Meanwhile nothing is taken or settled here."""
        self._moving = moving = asyncio.Event()
        try:
            yield Backlog(int(self._clock()), self._memory.counted(), tuple(self._open.values()))
        finally:
            self._moving = None
            moving.set()

    def hand_over(self, tickets: Mapping[str, Ticket]) -> None:
        """Forgets the backlog. `tickets` has, for the id of each of its tickets, the one that the others know it by."""
        self._memory = MemoryCounters(self._clock)
        self._open.clear()
        self._handed_over.update(tickets)
