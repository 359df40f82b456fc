"""Admits calls within their limits, and settles what they used. Every call to a provider is admitted here first.

A call has the limits of its key, of its owner and of all callers; each must have room for it, or nothing is taken. Tokens are taken
by an estimate and settled with the actual use. So is money, except that a call is admitted while anything is left: a budget is
exceeded at most by one call's estimate, and by what calls cost beyond their estimates. A caller without limits only costs a line in
the ledger.

Without Redis each worker counts for itself (`counting`) and has its share of each limit, rounded up; budgets are still common to
all, a few seconds late, through the ledger. With Redis limits are common and exact. While Redis is unreachable, with `open` each
process counts for itself with its share: use stays bounded, and no call is refused because of our failure. Redis receives these
counts when it is back. With `closed` calls that have a limit are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Self

import structlog

from antiphon.domain.call import Call, FailedUse
from antiphon.domain.errors import AntiphonError, BudgetExceeded, LimitsUnavailable, RateLimited, StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.limits.base import NANOS, WINDOW, Claim, Counters, Estimate, Estimator, Limit, Standing, Ticket
from antiphon.limits.counting import Counting
from antiphon.limits.estimate import tokens_to_take
from antiphon.limits.headers import rate_limit_headers
from antiphon.limits.ledger import Ledger
from antiphon.limits.quotas import Bound, Quotas

WRITE_INTERVAL: Final = 5.0
"""Seconds between two writes of the ledger, and between two renewals of leases."""

_UNITS: Final = {Limit.REQUESTS: "requests a minute", Limit.TOKENS: "tokens a minute", Limit.STREAMS: "calls at once"}
_PERIODS: Final = {Limit.DAY: "today", Limit.MONTH: "this month"}
_SCOPE_NAMES: Final = {"key": "this key", "owner": "the owner of this key", "overall": "this gateway"}

log = structlog.get_logger(__name__)


class Grant:
    """One admitted call, as a context manager: if it is not settled before the end, it is settled as having used nothing."""

    __slots__ = ("_call", "_counters", "_ticket", "open")

    def __init__(self, call: Call, counters: Counters | None = None, ticket: Ticket | None = None) -> None:
        self._call = call
        self._counters = counters
        self._ticket = ticket
        self.open = True
        """False once the call is settled."""

    @property
    def needs_estimate(self) -> bool:
        """Return whether any of its limits depends on how much the call uses."""
        if self._ticket is None:
            return False
        return not all(claim.limit.is_per_call for claim in self._ticket.claims)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.open:
            await self.settle()

    async def settle(self, usage: Usage | None = None, cost: float | None = None, failed_uses: tuple[FailedUse, ...] = ()) -> None:
        """Give back the call's place and what was taken beyond `usage`. None: nothing is known to be used. `cost` is in USD.

        `failed_uses` are charged as well: those of attempts that failed before.

        Only the first call has an effect, and reports to the observer. Raises nothing but a cancellation, and even then the call is
        settled.
        """
        if not self.open:
            return
        self.open = False
        call = self._call
        call.usage, call.cost_usd, call.failed_uses = usage, cost, failed_uses
        try:
            if self._counters is not None and self._ticket is not None:
                total = call.total_usage
                tokens = 0 if total is None else total.tokens
                # Before the ledger counts it: a counter is raised to what the ledger knows, so the cost would be counted twice.
                await self._counters.settle(self._ticket, tokens, round((call.total_cost_usd or 0.0) * NANOS))
        except LimitsUnavailable:
            pass  # the counters logged it; all but money expires by itself, and money is in the ledger
        finally:
            call.observer.settled(call)

    async def replace(self, take: Callable[[], Awaitable[tuple[Counters, Ticket] | None]]) -> None:
        """Give back all but the request itself, and take again. Raises what `take` raises; the grant then holds nothing."""
        counters, ticket, self._ticket = self._counters, self._ticket, None
        if counters is not None and ticket is not None:
            with suppress(LimitsUnavailable):
                await counters.settle(ticket, 0, 0)
        if taken := await take():
            self._counters, self._ticket = taken


class Limiter:
    """Checks the limits of the calls of one process."""

    def __init__(
        self,
        quotas: Quotas,
        ledger: Ledger | None = None,
        *,
        counting: Counting | None = None,
        closed: bool = False,
    ) -> None:
        """Create the limiter. Without a ledger there are no budgets. `closed` refuses calls while Redis is unreachable."""
        self._quotas = quotas
        self._ledger = ledger
        self._counting = counting or Counting()
        self._closed = closed
        self._stopping = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def admit(self, call: Call, estimate: Estimator | None = None) -> Grant:
        """Admit a call, and take its part of each limit.

        `estimate` is called only if a limit depends on the use; None: the use is not known. If its cost is not known, nothing is
        reserved of a budget; a call that its caller pays for is not checked against budgets.

        Raises `RateLimited`, `BudgetExceeded`, `LimitsUnavailable`.
        """
        taken = await self._take(call, self._quotas.bounds_of(call.caller), estimate)
        call.observer.admitted(call)
        return Grant(call) if taken is None else Grant(call, *taken)

    async def readmit(self, grant: Grant, call: Call, estimate: Estimator) -> None:
        """Take again for an admitted call, now that its size is known. It still counts as one request.

        Raises as `admit` does; the grant then holds nothing.
        """
        bounds = [bound for bound in self._quotas.bounds_of(call.caller) if bound.limit is not Limit.REQUESTS]
        await grant.replace(lambda: self._take(call, bounds, estimate))

    async def _take(self, call: Call, bounds: Sequence[Bound], estimate: Estimator | None) -> tuple[Counters, Ticket] | None:
        if not bounds:
            return None
        expected: list[Estimate] = []  # one, once it is needed: it is slow, and claims are made twice if Redis does not answer
        claims = partial(self._claims, bounds, estimate, expected)
        counters, ticket = await self._counting.take(claims, closed=self._closed)
        if call.takes_headers:
            call.headers.update(rate_limit_headers(ticket))
        if ticket.refused:
            raise _refusal(ticket)
        return counters, ticket

    async def start(self) -> None:
        """Read past spending, then write the ledger and renew leases regularly. Call it before the first request."""
        if self._ledger is not None:
            try:
                await self._ledger.read()
            except StoreUnavailable:
                log.warning("past spending could not be read: until it is, budgets count from zero")
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Write what is left of the ledger, and close the connections. Call it when no request is in flight any more."""
        self._stopping.set()  # not a cancellation, after which a write in progress might or might not be done
        if self._keeper is not None:
            await self._keeper
        await self._counting.close()
        await self._write()

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_INTERVAL):
                    await self._stopping.wait()
            with suppress(LimitsUnavailable):  # already logged
                await self._counting.renew()
            await self._write()

    async def _write(self) -> None:
        if self._ledger is None:
            return
        try:
            await self._ledger.write()
        except StoreUnavailable:
            pass  # already logged
        except Exception:
            log.exception("the ledger could not be written")

    def _claims(self, bounds: Sequence[Bound], estimate: Estimator | None, expected: list[Estimate], workers: int) -> list[Claim]:
        claims: list[Claim] = []
        today = month = ""
        for bound in bounds:
            limit, maximum = bound.limit, bound.maximum
            if not limit.is_budget:
                maximum = -(-maximum // workers)
            if limit.is_per_call:
                claims.append(Claim(limit, bound.scope, bound.counter, maximum, 1))
                continue
            if estimate is None:
                continue
            if not expected:
                expected.append(estimate())
            use = expected[0]
            if not limit.is_budget:
                if use.prompt_tokens > bound.maximum:
                    raise _too_large(use.prompt_tokens, bound)
                # A prompt that fits the limit must also fit a share of it that is unused.
                wanted = tokens_to_take(use.prompt_tokens, use.completion_tokens, maximum)
                claims.append(Claim(limit, bound.scope, bound.counter, maximum, wanted))
            elif self._ledger is not None and not use.paid_by_caller:
                if not today:
                    today, month = self._ledger.periods()
                period = today if limit is Limit.DAY else month
                wanted = min(round((use.cost_usd or 0.0) * NANOS), maximum)
                known = self._ledger.spent(bound.subject, period)
                claims.append(Claim(limit, bound.scope, f"usd:{period}:{bound.subject}", maximum, wanted, known))
        return claims


def _too_large(prompt: int, bound: Bound) -> RateLimited:
    """Return the error for a prompt that can never fit."""
    return RateLimited(
        f"The request is too large: it has about {prompt} tokens, and {_SCOPE_NAMES[bound.scope]} has {bound.maximum} a minute.",
        limit=bound.limit,
        scope=bound.scope,
        quota=bound.maximum,
        retry_after=WINDOW,
        retryable=False,
    )


def _refusal(ticket: Ticket) -> AntiphonError:
    """Return the error for a refused call: a spent budget first, as waiting is useless, else the limit with the longest wait."""
    claim, standing = max(ticket.refused, key=lambda refused: (_is_spent(*refused), refused[1].wait or 0.0))
    whose, limit = _SCOPE_NAMES[claim.scope], claim.limit
    usd = claim.maximum / NANOS
    budget = f"The budget of {whose} for {_PERIODS.get(limit)}, {usd:g} USD,"
    if _is_spent(claim, standing):
        return BudgetExceeded(f"{budget} is spent.", limit=limit, scope=claim.scope, quota=usd)
    wait = max(standing.wait or 0.0, 0.001)
    if limit.is_budget:
        message = f"{budget} is reserved for calls in flight. Try again in {wait:.3g} s."
        return RateLimited(message, limit=limit, scope=claim.scope, quota=usd, retry_after=wait)
    message = f"The limit of {whose}, {claim.maximum} {_UNITS[limit]}, is reached. Try again in {wait:.3g} s."
    return RateLimited(message, limit=limit, scope=claim.scope, quota=claim.maximum, retry_after=wait)


def _is_spent(claim: Claim, standing: Standing) -> bool:
    return claim.limit.is_budget and not standing.wait
