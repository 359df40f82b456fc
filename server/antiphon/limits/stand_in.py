"""Counts in this process while the shared counters are unreachable, and hands its counts over when they are back.

So a limit also holds across the end of an outage: calls admitted here are already counted when the shared counters take the next
call. Tickets issued here are then settled there.
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
from antiphon.limits.memory import MemoryCounters, SecondCount


class Backlog(Struct, frozen=True):
    """The counts to hand over. `second` is the present second, on the clock of `counted` and of the tickets."""

    second: int
    counted: Sequence[SecondCount]
    tickets: Sequence[Ticket]
    """The tickets of calls in flight."""


class StandIn:
    """`Counters` used in place of `shared`."""

    def __init__(self, shared: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns monotonic seconds."""
        self._shared = shared
        self._clock = clock
        self._memory = MemoryCounters(clock)
        self._numbers = count(1)
        self._open: dict[str, Ticket] = {}
        self._handed_over: dict[str, Ticket] = {}
        self._handover: asyncio.Event | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        if self._handover is not None:
            await self._handover.wait()
        ticket = await self._memory.take(claims)
        if ticket.refused:
            return ticket
        ticket = replace(ticket, id=str(next(self._numbers)))
        self._open[ticket.id] = ticket
        return ticket

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        if self._handover is None:
            await self._settle(ticket, tokens, nanos)
            return
        settling = asyncio.create_task(self._settle_after(self._handover, ticket, tokens, nanos))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        await asyncio.shield(settling)  # otherwise a caller that is cancelled now would hold its place for ever

    async def _settle_after(self, handover: asyncio.Event, ticket: Ticket, tokens: int, nanos: int) -> None:
        await handover.wait()
        await self._settle(ticket, tokens, nanos)

    async def _settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        handed_over = self._handed_over.pop(ticket.id, None)
        if handed_over is not None:
            await self._shared.settle(handed_over, tokens, nanos)
        elif self._open.pop(ticket.id, None) is not None:
            await self._memory.settle(ticket, tokens, nanos)

    @contextmanager
    def handing_over(self) -> Iterator[Backlog]:
        """Yield what must be handed over; nothing is taken or settled here meanwhile.

        The backlog is kept unless `finish_hand_over` is called inside.
        """
        self._handover = handover = asyncio.Event()
        try:
            yield Backlog(int(self._clock()), self._memory.counted(), tuple(self._open.values()))
        finally:
            self._handover = None
            handover.set()

    def finish_hand_over(self, tickets: Mapping[str, Ticket]) -> None:
        """Drop the backlog. `tickets` maps the id of each of its tickets to the ticket of the shared counters."""
        self._memory = MemoryCounters(self._clock)
        self._open.clear()
        self._handed_over.update(tickets)
