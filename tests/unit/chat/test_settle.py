"""Tests of the charge at the end of a call."""

from antiphon.chat.prices import Prices
from antiphon.chat.settle import charge
from antiphon.domain.call import Call, FailedUse
from antiphon.domain.events import Usage
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from tests.unit.listener import Listener

USED = Usage(3, 4, 7)
FAILED = FailedUse("p", "m", "p/east", Usage(10, 0, 10))


class CountingPrices(Prices):
    """Prices that are told apart by the deployment, and counted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def cost(self, provider: str, model: str, usage: Usage, deployment: str = "") -> float | None:
        self.asked.append(deployment)
        return {"p/west": 0.25, "p/east": 0.5}[deployment]


async def charged(usage: Usage | None, *failed: FailedUse, paid_by_caller: bool = False) -> tuple[Call, float | None, list[str]]:
    """Return a call that has used so much, the cost of all, and the deployments whose prices were asked for."""
    call = Call(observer=Listener(), provider="p", model="m", deployment="p/west", headers={})

    async def nothing() -> None:
        raise AssertionError("nothing is reserved")

    grant = await Limiter(Quotas()).admit(call, nothing)  # type: ignore[arg-type]  # not called, as there are no limits
    prices = CountingPrices()
    cost = await charge(grant, call, prices, usage, failed, paid_by_caller=paid_by_caller)
    assert not grant.open
    assert call.total_cost_usd == (cost if not paid_by_caller or cost is None else 0)
    return call, cost, prices.asked


async def test_failed_attempts_are_priced_once() -> None:
    """They are charged with the last attempt's use, and also if that used nothing."""
    for usage, cost, asked in ((USED, 0.75, ["p/west", "p/east"]), (None, 0.5, ["p/east"])):
        call, found, priced = await charged(usage, FAILED)
        assert (call.usage, call.failed_uses[0].cost_usd, found, priced) == (usage, 0.5, cost, asked)


async def test_whoever_pays_with_an_own_key_is_charged_tokens_alone() -> None:
    """The tokens of failed attempts count, and cost the gateway nothing. The caller is told what it pays."""
    call, cost, _ = await charged(USED, FAILED, paid_by_caller=True)
    assert (cost, call.cost_usd, call.failed_uses[0].cost_usd) == (0.75, 0, 0)
    assert call.total_usage is not None
    assert call.total_usage.tokens == 17


async def test_a_call_that_used_nothing_costs_nothing() -> None:
    """Nothing is known of its cost, and nobody is asked for a price."""
    for paid_by_caller in (False, True):
        call, cost, asked = await charged(None, paid_by_caller=paid_by_caller)
        assert (call.usage, call.failed_uses, cost, asked) == (None, (), None, [])
