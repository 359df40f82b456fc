"""Shaping: keeps the calls of one model at one deployment within what its provider grants a minute.

A try takes a request and its estimated tokens before it is sent, and is settled with the tokens that it used. One that does not fit
waits: owners take turns, and nobody overtakes those that wait. Counts are those of `limits`: in Redis for all servers, else in this
process, which then has its share. A minute is the last 60 seconds. That suits providers that count by fixed minutes, and those that
refill an allowance all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec import Struct

from antiphon.domain.errors import LimitsUnavailable
from antiphon.limits.base import Claim, Counters, Limit, Ticket
from antiphon.limits.counting import Counting
from antiphon.limits.estimate import tokens_to_take
from antiphon.routing.turns import FairQueue

RECHECK: Final = 0.5
"""The most seconds between two looks for room while a call waits: other servers may have returned tokens meanwhile."""


class Demand(Struct, frozen=True):
    """The estimated tokens of a try: of its prompt, and the most of its reply."""

    prompt: int
    completion: int


class Allowance:
    """What a try has taken. It must be settled, once."""

    __slots__ = ("_counters", "_ticket")

    def __init__(self, counters: Counters, ticket: Ticket) -> None:
        self._counters = counters
        self._ticket = ticket

    async def settle(self, tokens: int) -> None:
        """Count the tokens that were used instead of those that were taken. The request stays counted."""
        with suppress(LimitsUnavailable):  # already logged; what was taken expires within a minute
            await self._counters.settle(self._ticket, tokens, 0)


class NoRoom(Struct, frozen=True):
    """The reason why a try does not fit: the limit, its size, and the seconds until there may be room."""

    limit: Limit
    maximum: int
    seconds: float


class _Waiting:
    """A call that waits for room."""

    __slots__ = ("demand", "place")

    def __init__(self, demand: Demand, place: asyncio.Future[Allowance]) -> None:
        self.demand = demand
        self.place = place


class Shaper:
    """The shaping of one model at one deployment. Belongs to the event loop of its first call."""

    def __init__(self, route: str, requests: int | None, tokens: int | None, counting: Counting, size: int) -> None:
        """Set how many `requests` and `tokens` are granted a minute; None: any number. At most `size` calls wait."""
        self.requests = requests
        self.tokens = tokens
        self._route = route
        self._counting = counting
        self._queue: FairQueue[_Waiting] = FairQueue(size)
        self._server: asyncio.Task[None] | None = None
        """Gives those that wait their turns; None while nobody waits."""
        self._first: _Waiting | None = None
        """The call whose turn it is."""
        self._no_room: tuple[float, NoRoom] | None = None
        """Why it has to wait, and when that was found out; None if that is not known."""
        self._changed = asyncio.Event()
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return self._server is None

    async def take(self, demand: Demand) -> Allowance | NoRoom:
        """Take what a try needs, if it fits now and nobody waits."""
        if not self._queue and (self._first is None or self._first.place.done()):
            return await self._take(demand)
        if self._no_room is None:
            return NoRoom(Limit.REQUESTS, self.requests or 0, 0.0)
        since, found = self._no_room
        return NoRoom(found.limit, found.maximum, max(0.0, found.seconds - (time.monotonic() - since)))

    async def wait(self, owner: str, demand: Demand, seconds: float) -> Allowance | None:
        """Wait in turn until a try fits, and take what it needs. None: there was no room in the time, or too many wait."""
        waiting = _Waiting(demand, asyncio.get_running_loop().create_future())
        if not self._queue.push(owner, waiting):
            return None
        if self._server is None:
            self._server = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(seconds):
                return await waiting.place
        except BaseException as error:
            if not self._queue.remove(owner, waiting):
                self._changed.set()  # its turn had come
                if waiting.place.done() and not waiting.place.cancelled():
                    self._give_back(waiting.place.result())  # it got its allowance at the same moment
            if isinstance(error, TimeoutError):
                return None
            raise

    async def settle(self, allowance: Allowance, tokens: int) -> None:
        """Settle an allowance, and look whether there is room for those that wait."""
        await allowance.settle(tokens)
        self._no_room = None
        self._changed.set()

    async def _serve(self) -> None:
        """Give each of those that wait its allowance, in turn."""
        try:
            while (waiting := self._queue.pop()) is not None:
                self._first, self._no_room = waiting, None
                while not waiting.place.done():
                    self._changed.clear()
                    found = await self._take(waiting.demand)
                    if isinstance(found, Allowance):
                        if waiting.place.done():
                            await found.settle(0)
                        else:
                            waiting.place.set_result(found)
                        break
                    self._no_room = time.monotonic(), found
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(found.seconds, RECHECK)):
                            await self._changed.wait()
        finally:
            self._server = self._first = self._no_room = None

    async def _take(self, demand: Demand) -> Allowance | NoRoom:
        def claims(processes: int) -> Sequence[Claim]:
            return self._claims(demand, processes)

        counters, ticket = await self._counting.take(claims)
        if not ticket.refused:
            return Allowance(counters, ticket)
        claim, standing = max(ticket.refused, key=lambda refused: refused[1].wait or 0.0)
        return NoRoom(claim.limit, claim.maximum, max(standing.wait or 0.0, 0.001))

    def _claims(self, demand: Demand, processes: int) -> list[Claim]:
        """Return what a try takes. A share is rounded down, as the provider refuses what exceeds the whole."""
        claims = []
        if self.requests is not None:
            claims.append(
                Claim(Limit.REQUESTS, "provider", f"requests:deployment:{self._route}", max(1, self.requests // processes), 1)
            )
        if self.tokens is not None:
            share = max(1, self.tokens // processes)
            wanted = tokens_to_take(demand.prompt, demand.completion, share)
            claims.append(Claim(Limit.TOKENS, "provider", f"tokens:deployment:{self._route}", share, wanted))
        return claims

    def _give_back(self, allowance: Allowance) -> None:
        """Give back in the background what a call took that has left."""
        task = asyncio.create_task(self.settle(allowance, 0))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)
