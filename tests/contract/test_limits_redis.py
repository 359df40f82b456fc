"""Counting in a real Redis: by several servers, some of which are killed, and while it is unreachable."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from antiphon.config import ConfigError, LimitsConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import LimitsUnavailable, RateLimited
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.limits.base import NANOS, Claim, Limit
from antiphon.limits.counting import Counting
from antiphon.limits.limiter import Grant, Limiter
from antiphon.limits.quotas import Quotas
from antiphon.limits.redis import LEASE, RedisCounters
from tests.redis import Redis
from tests.unit.limits.admitting import admit
from tests.waiting import until


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 2_000_000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """Yield a Redis of this test's own."""
    with Redis() as server:
        yield server


@asynccontextmanager
async def server(url: str, clock: Clock | None = None, timeout: float = 5) -> AsyncGenerator[RedisCounters, None]:
    made = RedisCounters(SecretStr(url), timeout, clock)
    try:
        yield made
    finally:
        await made.close()


async def wait_until_back(counters: RedisCounters) -> None:
    """Wait until the counters notice that Redis answers again."""
    await until(lambda: counters._available)


async def notice_outage(counters: RedisCounters) -> None:
    """Make a call fail, so that the counters notice that Redis is gone."""
    with pytest.raises(LimitsUnavailable):
        await counters.take([requests()])


def requests(most: int = 10) -> Claim:
    return Claim(Limit.REQUESTS, "key", f"requests:{uuid4().hex}", most, 1)


def streams(most: int) -> Claim:
    return Claim(Limit.STREAMS, "key", f"streams:{uuid4().hex}", most, 1)


def money(counter: str, known: float, most: float = 10) -> Claim:
    return Claim(Limit.MONTH, "owner", counter, round(most * NANOS), known=round(known * NANOS))


async def test_two_servers_share_a_limit(redis_url: str) -> None:
    """Two servers with Redis's own clock together grant exactly the limit for 128 callers at once."""
    claim = requests(100)
    async with server(redis_url) as one, server(redis_url) as two:
        tickets = await asyncio.gather(*(counters.take([claim]) for counters in (one, two) for _ in range(64)))
    assert sum(not ticket.refused for ticket in tickets) == 100


async def test_a_clock_that_goes_back_makes_nobody_wait_for_longer(redis_url: str) -> None:
    """If the clock goes back, as after a Redis failover, nobody waits longer than a minute."""
    clock, claim = Clock(), requests(1)
    async with server(redis_url, clock) as counters:
        await counters.take([claim])
        clock.now -= 30
        (refused,) = (await counters.take([claim])).standings
        assert (refused.wait, refused.reset) == (60, 60)
        clock.now += 90
        assert not (await counters.take([claim])).refused


async def test_no_owner_has_a_name_that_is_the_key_of_something_else(redis_url: str) -> None:
    """No owner's name can collide with another Redis key, whatever it ends in. A token may choose any name."""
    name = uuid4().hex
    async with server(redis_url) as counters:
        for ending in ("", ":held", ":total", "held", ":"):
            claim = Claim(Limit.DAY, "owner", f"usd:{name}{ending}", 10, 4)
            (standing,) = (await counters.take([claim])).standings
            assert (standing.used, standing.wait) == (0, None)


async def test_what_a_killed_server_held_of_a_budget_comes_back(redis_url: str) -> None:
    """A killed server's reservations are released within a lease. A living server's are renewed and settled exactly."""
    clock = Clock()
    claim = Claim(Limit.DAY, "owner", f"usd:{uuid4().hex}", 10, 4)
    async with server(redis_url, clock) as killed, server(redis_url, clock) as living:
        await killed.take([claim])
        ticket = await living.take([claim])
        for used in (8, 4):
            ticket_now = await living.take([Claim(Limit.DAY, "owner", claim.counter, 10)])
            assert ticket_now.standings[0].used == used
            clock.now += LEASE / 2
            await living.renew()
            clock.now += LEASE / 2
        await living.settle(ticket, 0, 3)
        ticket_now = await living.take([Claim(Limit.DAY, "owner", claim.counter, 10)])
        assert ticket_now.standings[0].used == 3


async def test_the_places_of_a_killed_server_come_back(redis_url: str) -> None:
    """A killed server's places are free within a lease. A living server's are renewed for hours."""
    clock = Clock()
    claim = streams(2)
    async with server(redis_url, clock) as killed, server(redis_url, clock) as living:
        await killed.take([claim])
        ticket = await living.take([claim])
        clock.now += LEASE * 0.9
        await living.renew()
        assert (await living.take([claim])).refused
        clock.now += LEASE * 0.1
        second = await living.take([claim])
        assert not second.refused
        for _ in range(500):
            clock.now += LEASE / 2
            await living.renew()
        assert (await living.take([claim])).refused
        await living.settle(ticket, 0, 0)
        assert not (await living.take([claim])).refused


async def test_a_renewal_does_not_bring_back_a_place_that_was_given_back(redis_url: str) -> None:
    """A renewal does not take a place again that was given back meanwhile."""
    claim = streams(1)
    async with server(redis_url) as counters:
        ticket = await counters.take([claim])
        held = dict(counters._leases)
        await counters.settle(ticket, 0, 0)
        counters._leases = held
        await counters.renew()
        assert not (await counters.take([claim])).refused


async def test_money_is_what_all_have_spent(redis_url: str) -> None:
    """Spending of all servers adds up to the nano-dollar, whatever each of them knows."""
    counter = f"usd:2026-11:{uuid4().hex}"
    async with server(redis_url) as one, server(redis_url) as two:
        tickets = [await counters.take([money(counter, 0)]) for counters in (one, two) for _ in range(50)]
        await asyncio.gather(*(one.settle(ticket, 0, 99_999_999) for ticket in tickets))
        (standing,) = (await two.take([money(counter, 0)])).standings
        assert (standing.used, standing.wait) == (9_999_999_900, None)
        await two.settle(await two.take([money(counter, 0)]), 0, 100)
        assert (await one.take([money(counter, 0)])).refused


async def test_what_the_ledger_knows_is_the_least_that_is_spent(own_redis: Redis) -> None:
    """A Redis that has lost its data continues from the ledger's amount, and nothing is counted twice."""
    counter = "usd:2026-11:owner:acme"
    async with server(own_redis.url) as counters:
        ticket = await counters.take([money(counter, 4)])
        await counters.settle(ticket, 0, NANOS)
        (standing,) = (await counters.take([money(counter, 5)])).standings
        assert standing.used == 5 * NANOS
        own_redis.kill()
        own_redis.start()
        (standing,) = (await counters.take([money(counter, 5)])).standings
        assert standing.used == 5 * NANOS


async def test_a_redis_that_is_gone_is_logged_once_and_costs_no_time(own_redis: Redis) -> None:
    """If Redis is gone, calls fail without waiting, it is logged once, and its return is noticed without a call."""
    async with server(own_redis.url) as counters:
        await counters.take([requests()])
        own_redis.kill()
        with capture_logs() as lines:
            for _ in range(100):
                with pytest.raises(LimitsUnavailable):
                    await counters.take([requests()])
            own_redis.start()
            with pytest.raises(LimitsUnavailable):  # Redis is not tried again for a while
                await counters.take([requests()])
            await wait_until_back(counters)
            assert not (await counters.take([requests()])).refused
        assert [line["event"] for line in lines] == ["limits_unavailable", "limits_available"]
        assert Redis.PASSWORD not in str(lines)


async def test_a_redis_that_hangs_delays_no_later_call(own_redis: Redis) -> None:
    """Calls in progress when Redis hangs wait for one time-out together. Later calls do not wait."""
    async with server(own_redis.url, timeout=0.2) as counters:
        await counters.take([requests()])
        own_redis.pause()
        with capture_logs() as lines:
            found = await asyncio.gather(*(counters.take([requests()]) for _ in range(64)), return_exceptions=True)
            found += await asyncio.gather(*(counters.take([requests()]) for _ in range(64)), return_exceptions=True)
        own_redis.resume()
    assert {type(answer) for answer in found} == {LimitsUnavailable}
    assert len(lines) == 1


async def test_no_call_waits_for_a_redis_that_is_down(own_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls do not wait for a Redis that is down, even while it is being probed."""
    async with server(own_redis.url, timeout=0.2) as counters:
        await counters.take([requests()])
        own_redis.pause()
        with pytest.raises(LimitsUnavailable):
            await counters.take([requests()])
        tries = 0
        set_probe = counters._redis.set

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal tries
            tries += 1
            return await set_probe(*arguments, **options)

        async def tried() -> bool:
            turns: list[int] = []
            with pytest.raises(LimitsUnavailable):
                asyncio.get_running_loop().call_soon(turns.append, 1)
                await counters.take([requests()])
            assert not turns, "the call did not wait"
            return tries > 3

        monkeypatch.setattr(counters._redis, "set", counted)
        await until(tried)
        own_redis.resume()
        await wait_until_back(counters)


async def test_a_redis_that_was_started_again_is_found_by_the_first_call(own_redis: Redis) -> None:
    """The first calls after a restart of Redis succeed, despite dead connections and missing scripts."""
    async with server(own_redis.url) as counters:
        await asyncio.gather(*(counters.take([requests()]) for _ in range(8)))
        own_redis.kill()
        own_redis.start()
        with capture_logs() as lines:
            for _ in range(16):
                assert not (await counters.take([requests()])).refused
        assert lines == []


async def test_what_could_not_be_given_back_comes_back_by_itself(own_redis: Redis) -> None:
    """A place that could not be given back is free when its lease ends."""
    clock = Clock()
    claim = streams(1)
    async with server(own_redis.url, clock, timeout=0.2) as counters:
        ticket = await counters.take([claim])
        own_redis.pause()
        with pytest.raises(LimitsUnavailable):
            await counters.settle(ticket, 0, 0)
        own_redis.resume()
        await wait_until_back(counters)
        clock.now += LEASE
        await counters.renew()  # this ticket must not be renewed any more
        assert not (await counters.take([claim])).refused


async def test_a_settlement_is_done_though_its_caller_is_cancelled(redis_url: str) -> None:
    """A settlement completes even if its caller is cancelled, and closing waits for it."""
    claim = streams(1)
    async with server(redis_url) as counters:
        ticket = await counters.take([claim])
        settling = asyncio.create_task(counters.settle(ticket, 0, 0))
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])
        while counters._running:
            await asyncio.sleep(0)
        assert not (await counters.take([claim])).refused


@pytest.mark.parametrize("url", ["http://redis:6379", "redis", ""])
def test_an_invalid_url_is_reported_at_start(url: str) -> None:
    """An invalid URL is reported at the start with the name of its setting."""
    with pytest.raises(ConfigError, match="limits.redis_url"):
        RedisCounters(SecretStr(url), 1)


async def test_a_password_that_is_wrong_is_an_outage(own_redis: Redis) -> None:
    """A wrong password counts as an outage, and is not logged."""
    async with server(own_redis.url.replace(Redis.PASSWORD, "wrong-password")) as counters:
        with capture_logs() as lines, pytest.raises(LimitsUnavailable):
            await counters.take([requests()])
    assert len(lines) == 1
    assert "wrong-password" not in str(lines)


# The end of an outage.


CALLER = Principal("ann", owner="acme", id="key:ann")


def limiter(counters: RedisCounters, workers: int = 1, **per_key: float) -> Limiter:
    return Limiter(Quotas(LimitsConfig.model_validate({"per_key": per_key})), counting=Counting(shared=counters, workers=workers))


async def burst(limits: Limiter, calls: int) -> list[Grant]:
    """Make calls at once, and return the grants of those that were allowed."""
    found = await asyncio.gather(*(admit(limits, principal=CALLER) for _ in range(calls)), return_exceptions=True)
    assert {type(one) for one in found} <= {Grant, RateLimited}
    return [one for one in found if isinstance(one, Grant)]


@pytest.mark.parametrize("during", [0, 4])
async def test_the_first_burst_after_an_outage_is_counted_once(own_redis: Redis, during: int) -> None:
    """The first calls after an outage count together with those granted during it, never twice."""
    async with server(own_redis.url) as counters:
        limits = limiter(counters, requests_per_minute=7)
        own_redis.kill()
        await notice_outage(counters)
        let_through = len(await burst(limits, during))
        own_redis.start()

        async def calling() -> bool:
            nonlocal let_through
            let_through += len(await burst(limits, 20))
            return counters._available

        await until(calling)
        let_through += len(await burst(limits, 20))
        assert let_through == 7


async def test_what_two_workers_counted_is_counted_together(own_redis: Redis) -> None:
    """What two workers granted during an outage is added up afterwards."""
    async with server(own_redis.url) as one, server(own_redis.url) as two:
        workers = [limiter(counters, workers=2, requests_per_minute=8) for counters in (one, two)]
        own_redis.kill()
        for counters, limits in zip((one, two), workers, strict=True):
            await notice_outage(counters)
            assert len(await burst(limits, 9)) == 4
        own_redis.start()
        await asyncio.gather(wait_until_back(one), wait_until_back(two))
        assert await burst(workers[0], 5) == await burst(workers[1], 5) == []


async def test_a_minute_that_began_in_an_outage_ends_a_minute_later(own_redis: Redis) -> None:
    """Calls counted during an outage keep their age in Redis."""
    clock, own = Clock(), Clock()
    own.now = 17.9
    async with server(own_redis.url, clock) as counters:
        limits = Limiter(
            Quotas(LimitsConfig.model_validate({"per_key": {"requests_per_minute": 2}})),
            counting=Counting(shared=counters, clock=own),
        )
        own_redis.kill()
        await notice_outage(counters)
        assert len(await burst(limits, 1)) == 1
        own.now += 30
        assert len(await burst(limits, 2)) == 1
        own_redis.start()
        await wait_until_back(counters)
        clock.now += 29.9
        assert len(await burst(limits, 2)) == 0
        clock.now += 0.2
        assert len(await burst(limits, 2)) == 1
        clock.now += 29.8
        assert len(await burst(limits, 2)) == 0
        clock.now += 0.2
        assert len(await burst(limits, 2)) == 1


async def test_a_call_that_began_in_an_outage_holds_its_place_until_it_ends(own_redis: Redis) -> None:
    """A call that began in an outage keeps its place until it ends, and its tokens are settled."""
    request = ChatRequest("m", (Message(Role.USER, (Text("x" * 40),)),), stream=True)
    async with server(own_redis.url) as counters:
        limits = limiter(counters, concurrent_streams=1, tokens_per_minute=100)
        own_redis.kill()
        await notice_outage(counters)
        grant = await admit(limits, request, principal=CALLER)
        own_redis.start()
        await wait_until_back(counters)
        assert await burst(limits, 2) == []
        assert counters._leases
        await grant.settle(Usage(90, 10, 100))
        assert not counters._leases
        assert len(await burst(limits, 1)) == 1
        with pytest.raises(RateLimited, match="tokens"):
            await admit(limiter(counters, tokens_per_minute=100), request, principal=CALLER)


async def test_a_redis_that_can_only_be_read_is_not_back(own_redis: Redis) -> None:
    """A Redis that refuses writes does not count as available."""
    async with server(own_redis.url) as counters:
        await counters.take([requests()])
        await counters._redis.config_set("maxmemory", 1)
        with capture_logs() as lines:
            await notice_outage(counters)

            async def tried() -> bool:
                return (await counters._redis.info("commandstats")).get("cmdstat_set", {}).get("rejected_calls", 0) > 2

            await until(tried)
            await notice_outage(counters)
            await counters._redis.config_set("maxmemory", 0)
            await wait_until_back(counters)
        assert [line["event"] for line in lines] == ["limits_unavailable", "limits_available"]
