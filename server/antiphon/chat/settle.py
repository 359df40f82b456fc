"""The last stage: charges what a call used, once, however the call ends."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from antiphon.chat.prices import Prices
from antiphon.domain.call import Call, FailedUse, total_cost
from antiphon.domain.events import Usage
from antiphon.limits.limiter import Grant


async def charge(
    grant: Grant, call: Call, prices: Prices, usage: Usage | None, failed: Sequence[FailedUse], *, paid_by_caller: bool
) -> float | None:
    """Charge the usage of a call, with that of failed attempts, and return the cost of all in USD; None if no price is known.

    Only tokens are charged of what has no known price. `usage` is None for no usage, or none that is known. `failed` is what
    attempts used that failed before the last one, without the cost. `paid_by_caller`: the caller's own provider key pays, so
    budgets are not charged, but the returned cost is what the caller pays.
    """
    cost = None if usage is None else prices.cost(call.provider, call.model, usage, call.deployment)
    failed_uses = tuple([_priced(each, prices) for each in failed]) if failed else ()
    if paid_by_caller:
        free = tuple([replace(each, cost_usd=0.0) for each in failed_uses])
        await grant.settle(usage, None if usage is None else 0.0, free)
    else:
        await grant.settle(usage, cost, failed_uses)
    return total_cost(cost, failed_uses) if failed_uses else cost


def _priced(use: FailedUse, prices: Prices) -> FailedUse:
    """Return what an attempt used with its cost."""
    return replace(use, cost_usd=prices.cost(use.provider, use.model, use.usage, use.deployment))
