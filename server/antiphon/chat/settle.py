"""The last stage: charges what a call used, once, however the call ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from antiphon.domain.call import FailedUse, total_cost
from antiphon.domain.events import Usage
from antiphon.limits.limiter import Grant


class Settlement:
    """Charges the use of an admitted call. A context manager: on an error it charges what is known to have been used."""

    def __init__(
        self,
        grant: Grant,
        price: Callable[[Usage], float | None],
        usage_on_error: Callable[[BaseException | None], Usage | None],
        failed_uses: Callable[[], tuple[FailedUse, ...]] = tuple,
        *,
        paid_by_caller: bool,
    ) -> None:
        """Set the functions that compute what is charged.

        `price` returns the cost of usage in USD; None if unknown, and then only tokens are charged. `usage_on_error` returns the
        usage of a call that ended early, by an error or because the caller left (None); it returns None for no usage.
        `failed_uses` returns what attempts used that failed before the last one.
        `paid_by_caller`: the caller's own provider key pays, so budgets are not charged.
        """
        self._grant = grant
        self._price = price
        self._usage_on_error = usage_on_error
        self._failed_uses = failed_uses
        self._paid_by_caller = paid_by_caller

    async def __aenter__(self) -> Self:
        return self

    async def charge(self, usage: Usage | None) -> float | None:
        """Charge the usage, with that of failed attempts, and return the cost of all in USD; None if no price is known."""
        return await self._charge(usage, self._failed_uses())

    async def _charge(self, usage: Usage | None, failed_uses: tuple[FailedUse, ...]) -> float | None:
        cost = None if usage is None else self._price(usage)
        if self._paid_by_caller:
            free = tuple(replace(each, cost_usd=0.0) for each in failed_uses)
            await self._grant.settle(usage, 0.0, free)
        else:
            await self._grant.settle(usage, cost, failed_uses)
        return total_cost(cost, failed_uses) if failed_uses else cost

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._grant.open:
            usage = self._usage_on_error(error)
            failed_uses = self._failed_uses()
            if usage is not None or failed_uses:
                await self._charge(usage, failed_uses)
