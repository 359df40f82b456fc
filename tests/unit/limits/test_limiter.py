"""Tests of the limiter, with a clock that the test sets."""

from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from antiphon.config import LimitsConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import BudgetExceeded, LimitsUnavailable, RateLimited
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal, Quota
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.limits.counting import Counting
from antiphon.limits.ledger import Ledger
from antiphon.limits.limiter import Limiter
from antiphon.limits.memory import MemoryCounters
from antiphon.limits.quotas import Quotas
from tests.unit.limits.admitting import CALLER, admit
from tests.unit.scripted import NO_STORE


class Clock:
    """A clock that a test sets by hand, in seconds."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now


class Unavailable(MemoryCounters):
    """Counters that are unavailable while `down` is set."""

    down = True

    async def take(self, claims: Any) -> Any:
        if self.down:
            raise LimitsUnavailable
        return await super().take(claims)

    async def settle(self, ticket: Any, tokens: int, nanos: int) -> None:
        if self.down:
            raise LimitsUnavailable
        await super().settle(ticket, tokens, nanos)


def limiter(limits: dict[str, Any], **options: Any) -> Limiter:
    closed = options.pop("closed", False)
    return Limiter(Quotas(LimitsConfig.model_validate(limits)), Ledger(NO_STORE), counting=Counting(**options), closed=closed)


def request_of(characters: int = 4, **fields: Any) -> ChatRequest:
    """Return a request with a prompt of so many characters: a token for each four, and four for the message."""
    sampling = Sampling(**fields)
    return ChatRequest("m", (Message(Role.USER, (Text("x" * characters),)),), stream=True, sampling=sampling)


async def refusal(of: Limiter, request: ChatRequest | None = None, principal: Principal = CALLER) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await admit(of, request, principal=principal)
    return caught.value


async def test_more_requests_than_the_limit_are_refused_until_a_minute_is_over() -> None:
    """Requests over the limit are refused for a minute; the error has the limit, its scope and the time to wait.

    Other owners are not affected.
    """
    clock = Clock()
    limits = limiter({"per_owner": {"requests_per_minute": 2}}, clock=clock)
    for _ in range(2):
        await (await admit(limits)).settle()
    error = await refusal(limits)
    assert error.metadata == {"limit": "requests_per_minute", "scope": "owner", "quota": "2"}
    assert error.retryable
    assert error.retry_after == 60
    await admit(limits, principal=Principal("eve", owner="other"))
    clock.now += 60
    await admit(limits)


@pytest.mark.parametrize(
    ("request_", "limit", "taken"),
    [
        (request_of(400), 10_000, 104 + 512),
        (request_of(400, max_tokens=100), 10_000, 104 + 100),
        (request_of(400, max_completion_tokens=50, max_tokens=9), 10_000, 104 + 50),
        (request_of(400, max_completion_tokens=1, max_tokens=100), 10_000, 104 + 100),
        (request_of(400, max_tokens=100, choices=3), 10_000, 104 + 300),
        (request_of(400, max_tokens=100_000), 10_000, 104 + 2_500),
        (request_of(400, max_tokens=100), 110, 110),
    ],
)
async def test_tokens_are_taken_from_an_estimate(request_: ChatRequest, limit: int, taken: int) -> None:
    """The reservation is the prompt's estimate plus the largest reply, of which at most a quarter of the limit counts.

    The end charges the usage.
    """
    headers: dict[str, str] = {}
    limits = limiter({"per_key": {"tokens_per_minute": limit}})
    grant = await admit(limits, request_, headers=headers)
    assert headers["x-ratelimit-remaining-tokens"] == str(limit - taken)
    await grant.settle(Usage(7, 3, 10), 0.0)
    await admit(limits, request_of(4, max_tokens=1), headers=headers)
    assert headers["x-ratelimit-remaining-tokens"] == str(limit - 10 - 6)


async def test_tokens_in_the_total_alone_are_charged() -> None:
    """Tokens that only the total has, such as those of thoughts at some hosts, are charged."""
    headers: dict[str, str] = {}
    limits = limiter({"per_key": {"tokens_per_minute": 1000}})
    await (await admit(limits, request_of(4, max_tokens=1), headers=headers)).settle(Usage(5, 5, 400), 0.0)
    await admit(limits, request_of(4, max_tokens=1), headers=headers)
    assert headers["x-ratelimit-remaining-tokens"] == str(1000 - 400 - 6)


async def test_a_prompt_larger_than_the_limit_is_not_retryable() -> None:
    """A prompt larger than the whole limit is refused as too large and not retryable."""
    error = await refusal(limiter({"per_key": {"tokens_per_minute": 100}}), request_of(1000))
    assert not error.retryable
    assert "too large" in error.message


async def test_a_call_that_ends_gives_back_its_place_once() -> None:
    """Settling a grant twice releases its place once."""
    limits = limiter({"per_key": {"concurrent_streams": 1}})
    grant = await admit(limits)
    error = await refusal(limits)
    assert (error.limit, error.retry_after) == ("concurrent_streams", 1)
    await grant.settle()
    await grant.settle()
    await admit(limits)
    await refusal(limits)


async def test_a_budget_is_held_against_what_was_spent() -> None:
    """The call that spends the last of a budget is admitted, and later ones raise `BudgetExceeded` without a time to retry."""
    limits = limiter({"owners": {"acme": {"daily_usd": 1, "requests_per_minute": 3}}})
    for _ in range(2):
        await (await admit(limits, request_of())).settle(Usage(1, 1, 2), 0.6)
    with pytest.raises(BudgetExceeded) as caught:
        await admit(limits, request_of())
    assert caught.value.metadata == {"limit": "daily_usd", "scope": "owner", "quota": "1.0"}
    assert (caught.value.retryable, caught.value.retry_after) == (False, None)
    # A key in the request does not matter by itself: the route decides whether the provider uses it.
    with pytest.raises(BudgetExceeded):
        await admit(limits, replace(request_of(), api_key=SecretStr("sk-own")))
    await admit(limits, replace(request_of(), api_key=SecretStr("sk-own")), wants_key=True)


async def test_a_day_has_its_own_budget_within_the_months() -> None:
    """What was spent on an earlier day counts for the month alone."""
    clock = Clock()
    quotas = Quotas(LimitsConfig.model_validate({"per_key": {"daily_usd": 1, "monthly_usd": 1.5}}))
    limits = Limiter(quotas, Ledger(NO_STORE, clock))
    for cost, limit in ((1.0, "daily_usd"), (0.6, "monthly_usd")):
        await (await admit(limits, request_of())).settle(Usage(1, 1, 2), cost)
        with pytest.raises(BudgetExceeded) as caught:
            await admit(limits, request_of())
        assert caught.value.limit == limit
        clock.now += 86400


async def test_a_call_without_a_price_needs_no_budget() -> None:
    """Calls without a known price are not limited by a budget."""
    limits = limiter({"per_key": {"monthly_usd": 0.01}})
    for _ in range(9):
        await admit(limits, request_of())


async def test_a_spent_budget_is_reported_before_a_rate_limit() -> None:
    """A spent budget is reported before a rate limit, because waiting does not help."""
    limits = limiter({"per_key": {"daily_usd": 1, "requests_per_minute": 1}})
    await (await admit(limits, request_of())).settle(Usage(1, 1, 2), 1.0)
    with pytest.raises(BudgetExceeded):
        await admit(limits, request_of())


async def test_each_worker_has_its_share() -> None:
    """Each worker has its share of a limit, rounded up. A prompt that fits the whole limit fits an idle worker."""
    limits = limiter({"per_key": {"requests_per_minute": 5, "tokens_per_minute": 1000}}, workers=4)
    assert await admit(limits, request_of(3000))
    assert (await refusal(limits, request_of())).limit == "tokens_per_minute"
    await admit(limits)
    assert (await refusal(limits)).quota == 2


async def test_a_caller_without_limits_has_no_headers() -> None:
    """A caller without limits gets no headers, but its usage is in the ledger."""
    headers: dict[str, str] = {}
    limits = limiter({"owners": {"other": {"requests_per_minute": 1}}})
    grant = await admit(limits, request_of(), headers=headers)
    await grant.settle(Usage(1, 1, 2), 0.5)
    assert headers == {}
    assert limits._ledger is not None
    today, _ = limits._ledger.periods()
    assert limits._ledger.spent("owner:acme", today) == 500_000_000


async def test_open_mode_counts_in_the_worker_while_redis_is_unavailable() -> None:
    """While Redis is unavailable the worker counts with its own share, and uses Redis again when it is back."""
    shared: Any = Unavailable()
    limits = limiter({"per_key": {"requests_per_minute": 4}}, workers=2, shared=shared)
    for _ in range(2):
        await (await admit(limits)).settle()
    assert (await refusal(limits)).quota == 2
    shared.down = False
    for _ in range(4):
        await (await admit(limits)).settle()
    await refusal(limits)


async def test_closed_mode_refuses_limited_callers_while_redis_is_unavailable() -> None:
    """With `closed`, callers with limits get `LimitsUnavailable` while Redis is unavailable; others are admitted."""
    shared: Any = Unavailable()
    limits = limiter({"owners": {"acme": {"requests_per_minute": 4}}}, shared=shared, closed=True)
    with pytest.raises(LimitsUnavailable):
        await admit(limits)
    await admit(limits, principal=Principal("eve", owner="other"))


async def test_a_call_that_was_let_through_does_not_fail_for_the_counters() -> None:
    """If the counters become unavailable during a call, settling it does not fail, and its cost is in the ledger."""
    shared: Any = Unavailable()
    shared.down = False
    limits = limiter({"per_key": {"concurrent_streams": 1}}, shared=shared)
    grant = await admit(limits, request_of())
    shared.down = True
    await grant.settle(Usage(1, 1, 2), 0.25)
    assert limits._ledger is not None
    _, month = limits._ledger.periods()
    assert limits._ledger.spent("overall", month) == 250_000_000


async def test_a_keys_own_quota_comes_with_the_caller() -> None:
    """The quota of a stored key comes with the principal and needs no configuration."""
    limits = Limiter(Quotas())
    await admit(limits, principal=Principal("a", owner="o", id="key:2", quota=Quota(requests_per_minute=1)))
    error = await refusal(limits, principal=Principal("a", owner="o", id="key:2", quota=Quota(requests_per_minute=1)))
    assert error.scope == "key"
