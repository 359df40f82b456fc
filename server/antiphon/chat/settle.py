"""The last stage: charges what a call used, once, however the call ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from antiphon.domain.events import Usage
from antiphon.limits.limiter import Grant


class Settlement:
    """Charges the use of an admitted call. A context manager: on an error it charges what is known to have been used."""

    def __init__(
        self,
        grant: Grant,
        price: Callable[[Usage], float | None],
        usage_on_error: Callable[[BaseException | None], Usage | None],
        spent: Callable[[], Sequence[tuple[Usage, float | None]]] = tuple,
        *,
        paid_by_caller: bool,
    ) -> None:
        """Set the functions that compute what is charged.

        `price` returns the cost of usage in USD; None if unknown, and then only tokens are charged. `usage_on_error` returns the
        usage of a call that ended early, by an error or because the caller left (None); it returns None for no usage. `spent`
        returns the usage of attempts that failed before the last one, each with its cost.
        `paid_by_caller`: the caller's own provider key pays, so budgets are not charged.
        """
        self._grant = grant
        self._price = price
        self._usage_on_error = usage_on_error
        self._spent = spent
        self._paid_by_caller = paid_by_caller

    async def __aenter__(self) -> Self:
        return self

    async def charge(self, usage: Usage) -> float | None:
        """Charge the usage, with that of failed attempts, and return the cost in USD; None if the price is not known."""
        cost = self._price(usage)
        for more, its_cost in self._spent():
            usage = replace(
                usage,
                input_tokens=usage.input_tokens + more.input_tokens,
                output_tokens=usage.output_tokens + more.output_tokens,
                total_tokens=usage.total_tokens + more.total_tokens,
            )
            cost = its_cost if cost is None else cost + (its_cost or 0.0)
        await self._grant.settle(usage, 0.0 if self._paid_by_caller else cost)
        return cost

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._grant.open:
            usage = self._usage_on_error(error)
            if usage is not None or self._spent():
                await self.charge(usage or Usage(0, 0, 0))
