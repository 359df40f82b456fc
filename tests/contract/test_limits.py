"""The contract of all counters, in memory and in a real Redis, with a clock of the test's own."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from pydantic import SecretStr

from antiphon.chat.prices import Prices
from antiphon.config import LimitsConfig, PriceConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import BudgetExceeded, RateLimited
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.limits.base import Claim, Counters, Limit, Ticket
from antiphon.limits.counting import Counting
from antiphon.limits.ledger import Ledger
from antiphon.limits.limiter import Grant, Limiter
from antiphon.limits.memory import MemoryCounters
from antiphon.limits.quotas import Quotas
from antiphon.limits.redis import RedisCounters
from tests.unit.limits.admitting import admit
from tests.unit.scripted import NO_STORE

START = 1_000_000.25


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def counters(request: pytest.FixtureRequest, clock: Clock) -> AsyncGenerator[Counters, None]:
    if request.param == "memory":
        yield MemoryCounters(clock)
    else:
        made = RedisCounters(SecretStr(request.getfixturevalue("redis_url")), 5, clock)
        yield made
        await made.close()


class Caller:
    """A caller with counters that no other test uses."""

    def __init__(self) -> None:
        self._name = uuid4().hex

    def requests(self, most: int) -> Claim:
        return Claim(Limit.REQUESTS, "key", f"requests:{self._name}", most, 1)

    def tokens(self, most: int, wanted: int) -> Claim:
        return Claim(Limit.TOKENS, "key", f"tokens:{self._name}", most, wanted)

    def streams(self, most: int) -> Claim:
        return Claim(Limit.STREAMS, "key", f"streams:{self._name}", most, 1)


@pytest.fixture
def caller() -> Caller:
    return Caller()


def granted(ticket: Ticket) -> bool:
    return not ticket.refused


async def take(counters: Counters, *claims: Claim) -> Ticket:
    return await counters.take(claims)


async def test_no_minute_holds_more_than_the_limit(counters: Counters, clock: Clock, caller: Caller) -> None:
    """No window of 60 seconds has more calls than the limit, and the limit is fully usable."""
    times: list[float] = []
    for _ in range(200):
        while granted(await take(counters, caller.requests(7))):
            times.append(clock.now)
        clock.now += 0.7
    assert all(later - earlier > 60 for earlier, later in zip(times, times[7:], strict=False))
    # And the limit is fully used: seven calls in each minute.
    assert len(times) == 7 * 3


async def test_what_is_refused_tells_when_it_would_fit(counters: Counters, clock: Clock, caller: Caller) -> None:
    """A refusal states the exact wait: shortly before that the call does not fit, and then it does."""
    await take(counters, caller.tokens(10, 4))
    clock.now += 20
    await take(counters, caller.tokens(10, 6))
    ((_, standing),) = (await take(counters, caller.tokens(10, 3))).refused
    assert standing.wait == pytest.approx(60 - 20)
    assert standing.used == 10
    assert standing.wait is not None
    clock.now += standing.wait - 0.01
    assert not granted(await take(counters, caller.tokens(10, 3)))
    clock.now += 0.01
    assert granted(await take(counters, caller.tokens(10, 3)))


async def test_nobody_waits_for_longer_than_a_minute(counters: Counters, clock: Clock, caller: Caller) -> None:
    """Waits and resets are always more than 0 and at most 60 seconds."""
    waits = []
    for step in range(300):
        clock.now = START + step * 0.437
        for claim, standing in (await take(counters, caller.requests(3), caller.tokens(40, 13))).refused:
            assert claim.limit.is_rate
            waits += [standing.wait or 0, standing.reset]
    assert 0 < min(waits) < 1
    assert 59 < max(waits) <= 60


async def test_a_minute_is_a_minute(counters: Counters, clock: Clock, caller: Caller) -> None:
    """A call fits again when the one before it is 60 seconds old and all calls of its second are too."""
    for _ in range(2):
        ticket = await take(counters, caller.requests(2))
        assert ticket.standings[0].reset == 60
        clock.now += 0.5
    clock.now = START + 60
    ((_, standing),) = (await take(counters, caller.requests(2))).refused
    assert standing.wait == pytest.approx(0.5)
    clock.now += 0.5
    assert (await take(counters, caller.requests(2))).standings[0].used == 1


async def test_a_limit_of_nothing_lets_nothing_through(counters: Counters, caller: Caller) -> None:
    """A limit of 0 refuses everything, with a wait."""
    for claim in (caller.requests(0), caller.tokens(0, 1), caller.streams(0)):
        ((_, standing),) = (await take(counters, claim)).refused
        assert standing.wait


async def test_all_is_taken_or_nothing(counters: Counters, caller: Caller) -> None:
    """A call that one limit refuses is not counted by the others, in any order."""
    other = Caller()
    assert granted(await take(counters, other.requests(1)))
    for claims in (
        [caller.requests(9), caller.tokens(9, 3), caller.streams(9), other.requests(1)],
        [other.requests(1), caller.requests(9), caller.tokens(9, 3), caller.streams(9)],
    ):
        ticket = await take(counters, *claims)
        assert [claim.counter for claim, _ in ticket.refused] == [other.requests(1).counter]
    ticket = await take(counters, caller.requests(9), caller.tokens(9, 3), caller.streams(9))
    assert [standing.used for standing in ticket.standings] == [1, 3, 1]


async def test_every_limit_that_refuses_is_named(counters: Counters, caller: Caller) -> None:
    """All limits without room are in `refused`, in the order of the claims, each with its standing."""
    claims = [caller.requests(0), caller.tokens(9, 3), caller.streams(0)]
    ticket = await take(counters, *claims)
    assert ticket.refused == [(claims[0], ticket.standings[0]), (claims[2], ticket.standings[2])]


async def test_tokens_that_were_not_used_are_given_back(counters: Counters, caller: Caller) -> None:
    """Unused tokens are available again at once."""
    ticket = await take(counters, caller.tokens(100, 90))
    assert not granted(await take(counters, caller.tokens(100, 20)))
    await counters.settle(ticket, 10, 0)
    assert (await take(counters, caller.tokens(100, 20))).standings[0].used == 30


async def test_tokens_beyond_the_estimate_count_from_when_they_are_known(counters: Counters, clock: Clock, caller: Caller) -> None:
    """Tokens beyond the estimate count from the settlement on, even beyond the limit."""
    ticket = await take(counters, caller.tokens(100, 10))
    clock.now += 40
    await counters.settle(ticket, 150, 0)
    ((_, standing),) = (await take(counters, caller.tokens(100, 1))).refused
    assert standing.used == 150
    clock.now += 30  # what was taken has expired; what was added has not
    assert (await take(counters, caller.tokens(1000, 1))).standings[0].used == 141


async def test_a_settlement_after_more_than_a_minute_gives_nothing_back(counters: Counters, clock: Clock, caller: Caller) -> None:
    """A settlement after more than a minute returns nothing, because the tokens have expired already."""
    ticket = await take(counters, caller.tokens(100, 90))
    clock.now += 70
    await take(counters, caller.tokens(100, 50))
    await counters.settle(ticket, 10, 0)
    assert (await take(counters, caller.tokens(100, 1))).standings[0].used == 51


async def test_calls_at_once_are_places_that_come_back(counters: Counters, caller: Caller) -> None:
    """The place of a call is free again when the call is settled, whatever the time."""
    tickets = [await take(counters, caller.streams(2)) for _ in range(3)]
    assert [granted(ticket) for ticket in tickets] == [True, True, False]
    await counters.settle(tickets[0], 0, 0)
    assert granted(await take(counters, caller.streams(2)))
    assert not granted(await take(counters, caller.streams(2)))


async def test_a_budget_lets_through_until_it_is_spent(counters: Counters, caller: Caller) -> None:
    """A budget grants calls until the ledger shows it as spent, if nothing is reserved."""
    spent = Claim(Limit.DAY, "key", f"usd:{uuid4().hex}", 1_000, known=999)
    assert granted(await take(counters, spent))
    assert not granted(await take(counters, Claim(Limit.DAY, "key", spent.counter, 1_000, known=1_000)))


async def test_what_calls_may_cost_is_held_of_a_budget_until_they_are_settled(counters: Counters, caller: Caller) -> None:
    """A call's possible cost is reserved until it is settled. Later calls are told to retry, not that the budget is spent."""
    budget = Claim(Limit.DAY, "key", f"usd:{uuid4().hex}", 1_000, 600)
    first, second, third = [await take(counters, budget) for _ in range(3)]
    assert granted(first)
    assert granted(second)
    ((_, standing),) = third.refused
    assert (standing.used, standing.wait) == (1_200, 1.0)
    await counters.settle(first, 0, 0)
    last = await take(counters, budget)
    assert granted(last)
    for ticket in (second, last):
        await counters.settle(ticket, 0, 0)
    assert (await take(counters, msgspec.structs.replace(budget, known=300))).standings[0].used == 300


async def test_many_at_once_overdraw_a_budget_by_one_call_at_most(counters: Any) -> None:
    """Of 64 calls at once, a budget is exceeded by at most one. The others may retry when these have cost less."""
    owner = f"many-{uuid4().hex}"
    quotas = Quotas(LimitsConfig.model_validate({"owners": {owner: {"daily_usd": 1}}}))
    limits = Limiter(quotas, Ledger(NO_STORE), counting=Counting(shared=counters))
    caller = Principal("ann", owner=owner, id="key:1")
    message = Message(Role.USER, (Text("four"),))
    call = ChatRequest(
        "m", (message,), stream=True, sampling=Sampling(max_tokens=15)
    )  # 5 + 15 tokens of a cent and a half: 0.3 USD

    prices = Prices({"m": PriceConfig(input=15_000, output=15_000)}, {})
    grants = await asyncio.gather(
        *(admit(limits, call, principal=caller, prices=prices) for _ in range(64)), return_exceptions=True
    )
    granted = [grant for grant in grants if isinstance(grant, Grant)]
    refused = [error for error in grants if isinstance(error, RateLimited)]
    assert (len(granted), len(refused)) == (4, 60)
    assert refused[0].metadata == {"limit": "daily_usd", "scope": "owner", "quota": "1.0"}
    assert (refused[0].retryable, refused[0].retry_after) == (True, 1)
    for grant in granted:
        await grant.settle(Usage(5, 5, 10), 0.15)
    for _ in range(2):
        await (await admit(limits, call, principal=caller, prices=prices)).settle(Usage(5, 15, 20), 0.3)
    with pytest.raises(BudgetExceeded):
        await admit(limits, call, principal=caller, prices=prices)


async def test_many_at_once_get_what_there_is(counters: Counters, caller: Caller) -> None:
    """Of 200 calls at once, exactly the limit is granted."""
    tickets = await asyncio.gather(*(take(counters, caller.requests(50), caller.tokens(10_000, 100)) for _ in range(200)))
    assert sum(map(granted, tickets)) == 50


async def test_a_caller_that_goes_away_while_it_asks_has_taken_nothing(counters: Counters, caller: Caller) -> None:
    """A caller cancelled at any moment of `take` has taken nothing."""
    for steps in range(12):
        asking = asyncio.create_task(take(counters, caller.streams(1), caller.tokens(100, 100)))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        (ended,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(ended, Ticket):
            await counters.settle(ended, 0, 0)
        async with asyncio.timeout(10):
            while not granted(ticket := await take(counters, caller.streams(1), caller.tokens(100, 100))):
                pass
        await counters.settle(ticket, 0, 0)


async def test_unused_counters_are_removed(clock: Clock) -> None:
    """Counters in memory that are not used any more are removed."""
    counters = MemoryCounters(clock)
    for _ in range(100):
        await counters.settle(await take(counters, Caller().requests(5), Caller().streams(5)), 0, 0)
    clock.now += 130
    await take(counters, Caller().requests(5))
    assert len(counters._windows) == 1
    assert not counters._held
