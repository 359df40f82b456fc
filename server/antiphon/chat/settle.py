"""The last stage: charges what a call used, once, however the call ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from antiphon.domain.events import Usage
from antiphon.limits.limiter import Grant


class Settlement:
    """Charges the use of an admitted call. A context manager: on an error it charges what is known to have been used."""

    def __init__(
        self,
        grant: Grant,
        price: Callable[[Usage], float | None],
        usage_on_error: Callable[[BaseException | None], Usage | None],
        *,
        paid_by_caller: bool,
    ) -> None:
        """Set the functions that compute what is charged.

        `price` returns the cost of usage in USD; None if unknown, and then only tokens are charged. `usage_on_error` returns the
        usage of a call that ended early, by an error or because the caller left (None); it returns None for no usage.
        `paid_by_caller`: the caller's own provider key pays, so budgets are not charged.
        """
        self._grant = grant
        self._price = price
        self._usage_on_error = usage_on_error
        self._paid_by_caller = paid_by_caller

    async def __aenter__(self) -> Self:
        return self

    async def charge(self, usage: Usage) -> float | None:
        """Charge the usage, and return its cost in USD; None if the price is not known."""
        cost = self._price(usage)
        await self._grant.settle(usage, 0.0 if self._paid_by_caller else cost)
        return cost

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._grant.open and (usage := self._usage_on_error(error)) is not None:
            await self.charge(usage)
