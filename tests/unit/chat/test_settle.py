"""Tests of the charge at the end of a call."""

import pytest

from antiphon.chat.settle import Settlement
from antiphon.domain.call import Call, FailedUse
from antiphon.domain.events import Usage
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from tests.unit.listener import Listener

USED = Usage(3, 4, 7)
FAILED = FailedUse("p", "m", "p/east", Usage(10, 0, 10), 0.5)


class Prices:
    """Prices failed attempts, and counts how often."""

    def __init__(self, *failed: FailedUse) -> None:
        self.failed = failed
        self.priced = 0

    def __call__(self) -> tuple[FailedUse, ...]:
        self.priced += 1
        return self.failed


async def settled(prices: Prices, usage: Usage | None, *, paid_by_caller: bool = False) -> Call:
    """Return a call that ended early, having used so much in its last attempt."""
    call = Call(observer=Listener(), headers={})

    async def nothing() -> None:
        raise AssertionError("nothing is reserved")

    grant = await Limiter(Quotas()).admit(call, nothing)  # type: ignore[arg-type]  # not called, as there are no limits
    with pytest.raises(RuntimeError):
        async with Settlement(grant, lambda _: 0.25, lambda _: usage, prices, paid_by_caller=paid_by_caller):
            raise RuntimeError
    return call


async def test_failed_attempts_of_a_call_that_ends_early_are_priced_once() -> None:
    """They are charged with the last attempt's use, and also if that used nothing."""
    for usage, cost in ((USED, 0.75), (None, 0.5)):
        prices = Prices(FAILED)
        call = await settled(prices, usage)
        assert (call.usage, call.failed_uses, call.total_cost_usd) == (usage, (FAILED,), cost)
        assert prices.priced == 1


async def test_whoever_pays_with_an_own_key_is_charged_tokens_alone() -> None:
    """The tokens of failed attempts count, and cost the gateway nothing."""
    call = await settled(Prices(FAILED), USED, paid_by_caller=True)
    assert call.total_cost_usd == 0
    assert call.total_usage is not None
    assert call.total_usage.tokens == 17


async def test_a_call_that_used_nothing_is_not_charged() -> None:
    """Nobody is asked for a price twice."""
    call = await settled(prices := Prices(), None)
    assert (call.usage, call.failed_uses, prices.priced) == (None, (), 1)
