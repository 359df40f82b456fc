"""Counters in Redis, which all workers and replicas share.

One call is one script before it and one after, whatever number of limits it has: each is atomic, and what is refused takes nothing.
A place among the calls that go on at once is a lease, and so is what is held of a budget: its server renews it, and one that is
killed gives its leases back within `LEASE` seconds. The scripts are ours, and not those of the `limits` package: that one counts
each limit by itself, in a round trip each, so that a call which the last limit refuses has been counted by the first; it gives
nothing back, and knows no leases.

Redis has `timeout` seconds for an answer. Once it fails, all calls fail at once, and it is tried every `PAUSE` seconds until it
answers, whether anybody calls or not. Then it first gets what was counted in its place (`stand_in`), for which calls wait, and then
counts again. An outage is logged once when it begins and once when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final
from uuid import uuid4

import redis.asyncio as client
import structlog
from pydantic import SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from antiphon.config import ConfigError
from antiphon.domain.errors import LimitsUnavailable
from antiphon.limits.base import WINDOW, Claim, Limit, Standing, Ticket
from antiphon.limits.scripts import load_script
from antiphon.limits.stand_in import StandIn
from antiphon.telemetry.redaction import redact

LEASE: Final = 30.0
"""Seconds for which a place is held, unless it is renewed."""

PAUSE: Final = 0.2
"""Seconds before a Redis that failed is tried again."""

_FAILURES: Final = (RedisError, OSError, TimeoutError)

_PREFIX: Final = "antiphon:{limits}:"
"""Of every key. The braces keep all of them in one slot, where Redis is a cluster behind a proxy."""

_KEPT: Final = 40 * 24 * 3600
"""Seconds for which a sum of money is kept after its last change: more than a month."""

_CONNECTIONS: Final = 32
"""The most connections of one process; further calls wait for one, within their time-out."""

_KINDS: Final = {Limit.REQUESTS: "rate", Limit.TOKENS: "rate", Limit.STREAMS: "place", Limit.DAY: "money", Limit.MONTH: "money"}

log = structlog.get_logger(__name__)


class RedisCounters:
    """`Counters` of all servers. Belongs to the event loop of its first call."""

    stand_in: StandIn | None = None
    """Who counts while Redis is out of reach, if anybody does."""

    def __init__(self, url: SecretStr, timeout: float, clock: Callable[[], float] | None = None) -> None:
        """`timeout` in seconds; `clock` in seconds, None for Redis's own. Raises `ConfigError`. Opens nothing yet."""
        self._timeout = timeout
        self._clock = clock
        self._secret = url
        try:
            pool = client.BlockingConnectionPool.from_url(
                url.get_secret_value(),
                max_connections=_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                # A connection that Redis has closed meanwhile is found dead by the first command on it.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError:
            raise ConfigError("limits.redis_url: must begin with redis://, rediss:// or unix://") from None
        self._redis = client.Redis.from_pool(pool)
        self._take, self._settle, self._renew, self._take_over = (
            self._redis.register_script(load_script(name)) for name in ("take", "settle", "renew", "take_over")
        )
        # The ids of this process's leases, which no other process's are like.
        self._name = uuid4().hex
        self._numbers = count()
        self._leases: dict[str, list[tuple[str, str]]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._available = True
        self._returning: asyncio.Event | None = None
        """While Redis answers again, and gets what was counted in its place: set when that is over."""
        self._watching: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        if not self._available and self._returning is None:
            raise LimitsUnavailable  # before anything is awaited, so that whoever counts instead does so before Redis is back
        # A task of its own: a caller that goes away leaves it to end by itself, and then what it took is given back.
        task = asyncio.create_task(self._taken(claims))
        self._keep(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        task = asyncio.create_task(self._settled(ticket, tokens, nanos))
        self._keep(task)
        await asyncio.shield(task)

    async def renew(self) -> None:
        """Renews the leases of the calls that go on here. Raises `LimitsUnavailable`."""
        held = [place for places in self._leases.values() for place in places]
        if held:
            await self._run(
                self._renew, [key for key, _ in held], [self._now(), round(LEASE * 1000), *(lease for _, lease in held)]
            )

    async def close(self) -> None:
        """Waits for what is running, and ends the connections."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._running:
            await asyncio.wait(set(self._running))
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _taken(self, claims: Sequence[Claim]) -> Ticket:
        lease = self._lease()
        arguments: list[str | int] = [self._now(), WINDOW, lease, round(LEASE * 1000), _KEPT]
        for claim in claims:
            arguments += (_KINDS[claim.limit], claim.most, claim.wanted, claim.known)
        second, *found = await self._run(self._take, [_key(claim.counter) for claim in claims], arguments)
        standings = [
            Standing(used, reset / 1000, None if wait < 0 else wait / 1000)
            for used, reset, wait in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        ticket = Ticket(lease, claims, standings, second)
        if not ticket.refused:
            self._hold(ticket)
        return ticket

    def _lease(self) -> str:
        return f"{self._name}:{next(self._numbers)}"

    def _hold(self, ticket: Ticket) -> None:
        """Has the places of a ticket renewed until it is settled."""
        places = [_place(claim, ticket.id) for claim in ticket.claims if _is_held(claim)]
        if places:
            self._leases[ticket.id] = places

    async def _settled(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        self._leases.pop(ticket.id, None)
        keys: list[str] = []
        arguments: list[str | int] = [self._now(), WINDOW, ticket.id, ticket.second, _KEPT]
        for claim in ticket.claims:
            if claim.limit is Limit.TOKENS:
                change = tokens - claim.wanted
            elif claim.limit.is_budget:
                change = nanos
            else:
                change = 0
            if change or _is_held(claim):
                keys.append(_key(claim.counter))
                arguments += (_KINDS[claim.limit], change, claim.wanted)
        if keys:
            await self._run(self._settle, keys, arguments)

    def _give_back(self, task: asyncio.Task[Ticket]) -> None:
        if not task.cancelled() and task.exception() is None and not task.result().refused:
            self._keep(asyncio.create_task(self._settled(task.result(), 0, 0)))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # it was told to the caller, or there is none any more

    def _now(self) -> int:
        return 0 if self._clock is None else round(self._clock() * 1000)

    async def _run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                if self._returning is not None:
                    await self._returning.wait()
                if self._available:
                    return await script(keys=keys, args=arguments)
        except _FAILURES as error:
            if self._available:
                text = redact(str(error), [self._secret.get_secret_value()])
                log.warning("limits_unavailable", kind=type(error).__name__, error=text)
                self._available = False
                self._watching = asyncio.create_task(self._watch())
            raise LimitsUnavailable from error
        raise LimitsUnavailable

    async def _watch(self) -> None:
        """Tries Redis until it answers, and has it count again."""
        while not self._available:
            await asyncio.sleep(PAUSE)
            try:
                async with asyncio.timeout(self._timeout):
                    # Something is written: one that can only be read from counts nothing.
                    await self._redis.set(f"{_PREFIX}probe", self._name, px=1000)
                    self._returning = asyncio.Event()
                    await self._catch_up()
            except _FAILURES:
                pass
            else:
                self._available = True
                log.info("limits_available")
            finally:
                if self._returning is not None:
                    self._returning.set()
                    self._returning = None

    async def _catch_up(self) -> None:
        """Gives Redis what was counted in its place. If its answer is lost it has that twice, until the minute is over."""
        if self.stand_in is None:
            return
        with self.stand_in.handing_over() as backlog:
            keys: list[str] = []
            arguments: list[str | int] = [self._now(), WINDOW, round(LEASE * 1000), _KEPT, backlog.second]
            for entry in backlog.counted:
                keys.append(_key(entry.counter))
                arguments += ("rate", entry.second, round(entry.age * 1000), entry.count)
            leases = {ticket.id: self._lease() for ticket in backlog.tickets}
            for ticket in backlog.tickets:
                for claim in filter(_is_held, ticket.claims):
                    keys.append(_key(claim.counter))
                    arguments += (_KINDS[claim.limit], leases[ticket.id], 0, claim.wanted)
            offset = await self._take_over(keys=keys, args=arguments)
            known = {
                ticket.id: Ticket(leases[ticket.id], ticket.claims, ticket.standings, ticket.second + offset)
                for ticket in backlog.tickets
            }
            for ticket in known.values():
                self._hold(ticket)
            self.stand_in.hand_over(known)


def _is_held(claim: Claim) -> bool:
    """Whether something is held for as long as the call goes on."""
    return bool(claim.wanted) and not claim.limit.is_rate


def _key(counter: str) -> str:
    """Ends in a colon, as what the scripts add to it does not: who chooses an owner's name cannot make it the key of another's."""
    return f"{_PREFIX}{counter}:"


def _place(claim: Claim, lease: str) -> tuple[str, str]:
    """The key and the member that are a call's lease of one limit, as the scripts make them."""
    key = _key(claim.counter)
    return (f"{key}held", f"{lease}:{claim.wanted}") if claim.limit.is_budget else (key, lease)
