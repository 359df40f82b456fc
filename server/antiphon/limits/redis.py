"""Counters in Redis, shared by all workers and replicas.

A call runs one atomic script before it and one after, however many limits it has, and a refused call takes nothing. A place among
the concurrent calls is a lease, and so is an amount reserved of a budget. Its server renews it; the leases of a killed server
expire within `LEASE` seconds. The `limits` package is not used: it counts each limit on its own, in a round trip each, so a call
that the last limit refuses has been counted by the first; it gives nothing back, and has no leases.

Redis must answer within `timeout` seconds. After a failure all calls fail at once, and Redis is tried every `PROBE_INTERVAL`
seconds until it answers, with or without calls. It then first receives what was counted meanwhile (`stand_in`), while calls wait,
and counts again. An outage is logged once at its beginning and once at its end.
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
"""Seconds after which a lease expires unless it is renewed."""

PROBE_INTERVAL: Final = 0.2
"""Seconds between two attempts to reach a Redis that failed."""

_FAILURES: Final = (RedisError, OSError, TimeoutError)

_PREFIX: Final = "antiphon:{limits}:"
"""The prefix of every key. The braces keep all keys in one slot if Redis is a cluster behind a proxy."""

_MONEY_TTL: Final = 40 * 24 * 3600
"""Seconds for which a sum of money is kept after its last change: more than a month."""

_MAX_CONNECTIONS: Final = 32
"""The most connections of one process; further calls wait for one, within their time-out."""

_KINDS: Final = {Limit.REQUESTS: "rate", Limit.TOKENS: "rate", Limit.STREAMS: "place", Limit.DAY: "money", Limit.MONTH: "money"}

log = structlog.get_logger(__name__)


class RedisCounters:
    """`Counters` for all servers. Belongs to the event loop of its first call."""

    stand_in: StandIn | None = None
    """Counts while Redis is unreachable, if set."""

    def __init__(self, url: SecretStr, timeout: float, clock: Callable[[], float] | None = None) -> None:
        """`timeout` and `clock` are in seconds; without a clock, Redis's is used. Raises `ConfigError`. Does not connect yet."""
        self._timeout = timeout
        self._clock = clock
        self._secret = url
        try:
            pool = client.BlockingConnectionPool.from_url(
                url.get_secret_value(),
                max_connections=_MAX_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                # If Redis closed an idle connection, the first command on it fails, so it is tried once more.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError:
            raise ConfigError("limits.redis_url: must begin with redis://, rediss:// or unix://") from None
        self._redis = client.Redis.from_pool(pool)
        self._take, self._settle, self._renew, self._take_over = (
            self._redis.register_script(load_script(name)) for name in ("take", "settle", "renew", "take_over")
        )
        # The prefix of this process's lease ids, different from every other process's.
        self._name = uuid4().hex
        self._numbers = count()
        self._leases: dict[str, list[tuple[str, str]]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._available = True
        self._recovering: asyncio.Event | None = None
        """While Redis is back and receives what was counted meanwhile; set when that is done."""
        self._probing: asyncio.Task[None] | None = None

    async def take(self, claims: Sequence[Claim]) -> Ticket:
        if not self._available and self._recovering is None:
            raise LimitsUnavailable  # before any await, so that the stand-in counts the call before Redis is back
        # In its own task: if the caller is cancelled, it still ends, and what it took is given back.
        task = asyncio.create_task(self._run_take(claims))
        self._track(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    async def settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        task = asyncio.create_task(self._run_settle(ticket, tokens, nanos))
        self._track(task)
        await asyncio.shield(task)

    async def renew(self) -> None:
        """Renew the leases of this process's calls in flight. Raises `LimitsUnavailable`."""
        held = [member for members in self._leases.values() for member in members]
        if held:
            await self._run(
                self._renew, [key for key, _ in held], [self._now(), round(LEASE * 1000), *(lease for _, lease in held)]
            )

    async def close(self) -> None:
        """Wait for running commands, and close the connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if self._running:
            await asyncio.wait(set(self._running))
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _run_take(self, claims: Sequence[Claim]) -> Ticket:
        lease = self._lease()
        arguments: list[str | int] = [self._now(), WINDOW, lease, round(LEASE * 1000), _MONEY_TTL]
        for claim in claims:
            arguments += (_KINDS[claim.limit], claim.maximum, claim.wanted, claim.known)
        second, *found = await self._run(self._take, [_key(claim.counter) for claim in claims], arguments)
        standings = [
            Standing(used, reset / 1000, None if wait < 0 else wait / 1000)
            for used, reset, wait in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        refused = [(c, s) for c, s in zip(claims, standings, strict=True) if s.wait is not None]
        ticket = Ticket(lease, claims, standings, second, refused)
        if not refused:
            self._hold(ticket)
        return ticket

    def _lease(self) -> str:
        return f"{self._name}:{next(self._numbers)}"

    def _hold(self, ticket: Ticket) -> None:
        """Have the leases of a ticket renewed until it is settled."""
        members = [_lease_member(claim, ticket.id) for claim in ticket.claims if _is_held(claim)]
        if members:
            self._leases[ticket.id] = members

    async def _run_settle(self, ticket: Ticket, tokens: int, nanos: int) -> None:
        self._leases.pop(ticket.id, None)
        keys: list[str] = []
        arguments: list[str | int] = [self._now(), WINDOW, ticket.id, ticket.second, _MONEY_TTL]
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
            self._track(asyncio.create_task(self._run_settle(task.result(), 0, 0)))

    def _track(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._untrack)

    def _untrack(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, or was cancelled; retrieved here so that asyncio does not log it

    def _now(self) -> int:
        return 0 if self._clock is None else round(self._clock() * 1000)

    async def _run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                if self._recovering is not None:
                    await self._recovering.wait()
                if self._available:
                    return await script(keys=keys, args=arguments)
        except _FAILURES as error:
            if self._available:
                text = redact(str(error), [self._secret.get_secret_value()])
                log.warning("limits_unavailable", kind=type(error).__name__, error=text)
                self._available = False
                self._probing = asyncio.create_task(self._probe())
            raise LimitsUnavailable from error
        raise LimitsUnavailable

    async def _probe(self) -> None:
        """Try Redis until it answers, then let it count again."""
        while not self._available:
            await asyncio.sleep(PROBE_INTERVAL)
            try:
                async with asyncio.timeout(self._timeout):
                    # A write, as a read-only Redis cannot count.
                    await self._redis.set(f"{_PREFIX}probe", self._name, px=1000)
                    self._recovering = asyncio.Event()
                    await self._restore()
            except _FAILURES:
                pass
            else:
                self._available = True
                log.info("limits_available")
            finally:
                if self._recovering is not None:
                    self._recovering.set()
                    self._recovering = None

    async def _restore(self) -> None:
        """Send Redis what was counted meanwhile. If its answer is lost, that is counted twice until the minute is over."""
        if self.stand_in is None:
            return
        with self.stand_in.handing_over() as backlog:
            keys: list[str] = []
            arguments: list[str | int] = [self._now(), WINDOW, round(LEASE * 1000), _MONEY_TTL, backlog.second]
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
            self.stand_in.finish_hand_over(known)


def _is_held(claim: Claim) -> bool:
    """Return whether the claim reserves something until the call ends."""
    return bool(claim.wanted) and not claim.limit.is_rate


def _key(counter: str) -> str:
    """Return the Redis key of a counter.

    It ends in a colon, and what the scripts append does not, so that no choice of an owner's name makes it the key of another
    counter.
    """
    return f"{_PREFIX}{counter}:"


def _lease_member(claim: Claim, lease: str) -> tuple[str, str]:
    """Return the key and the member of a call's lease of one limit, as the scripts write them."""
    key = _key(claim.counter)
    return (f"{key}held", f"{lease}:{claim.wanted}") if claim.limit.is_budget else (key, lease)
