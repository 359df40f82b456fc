"""The last stage: what a call used is charged once, whichever way the call ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from antiphon.domain.events import Usage
from antiphon.limits.limiter import Grant


class Settlement:
    """Charges the use of an admitted call, as a context manager: on leaving, what is known of a call that was broken off."""

    def __init__(
        self,
        grant: Grant,
        price: Callable[[Usage], float | None],
        broken_off: Callable[[BaseException | None], Usage | None],
        *,
        paid_by_caller: bool,
    ) -> None:
        """`price` tells what usage costs in USD; `broken_off` what was used of a call that ended with an error, None: nothing."""
        self._grant = grant
        self._price = price
        self._broken_off = broken_off
        self._paid_by_caller = paid_by_caller

    async def __aenter__(self) -> Self:
        return self

    async def charge(self, usage: Usage) -> float | None:
        """Charge what was used, and return its cost in USD, None where the price is not known."""
        cost = self._price(usage)
        await self._grant.settle(usage, 0.0 if self._paid_by_caller else cost)
        return cost

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._grant.open and (usage := self._broken_off(error)) is not None:
            await self.charge(usage)
