"""Lets a call through, or not, and takes note of what it used. Whoever is about to ask a provider asks here first.

The limits of a call are those of its key, of its owner and of all callers; each has to have room for it, or nothing is taken.
Tokens are taken from an estimate and settled with what was used. So is money, except that a call is let through while anything is
left: a budget is overdrawn by one call's estimate at most, and by what calls cost beyond theirs. A caller without limits costs no
more than a line in the ledger.

Without Redis each of `workers` processes counts for itself, and has its share of each limit, rounded up; budgets are common all the
same, a few seconds late, through the ledger. With Redis limits are common and exact. While Redis is out of reach, `open` has each
process count for itself again, with its share: that bounds what anybody can take, and nobody is turned away for a fault of ours.
What was counted so is Redis's when it is back. `closed` refuses what has a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, Self

import structlog

from antiphon.domain.call import Call
from antiphon.domain.errors import AntiphonError, BudgetExceeded, LimitsUnavailable, RateLimited, StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.limits import headers as ratelimit
from antiphon.limits.base import NANOS, WINDOW, Claim, Counters, Estimate, Estimator, Limit, Standing, Ticket
from antiphon.limits.ledger import Ledger
from antiphon.limits.memory import MemoryCounters
from antiphon.limits.quotas import Bound, Quotas
from antiphon.limits.stand_in import StandIn

if TYPE_CHECKING:
    from antiphon.limits.redis import RedisCounters  # the app imports it where it is used: its client takes 6.3 MB

BEAT: Final = 5.0
"""Seconds between two writes of the ledger, and between two renewals of leases."""

SHARE: Final = 4
"""The reply's part of an estimate is at most the limit divided by this: most replies end long before the most that they may have,
and a call that names a generous one is not to wait for a minute without any other."""

_UNITS: Final = {Limit.REQUESTS: "requests a minute", Limit.TOKENS: "tokens a minute", Limit.STREAMS: "calls at once"}
_PERIODS: Final = {Limit.DAY: "today", Limit.MONTH: "this month"}
_WHOSE: Final = {"key": "this key", "owner": "the owner of this key", "overall": "this gateway"}

log = structlog.get_logger(__name__)


class Grant:
    """One call that was let through, as a context manager: what nobody settled by then used nothing that is known."""

    __slots__ = ("_call", "_counters", "_ticket", "open")

    def __init__(self, call: Call, counters: Counters | None = None, ticket: Ticket | None = None) -> None:
        self._call = call
        self._counters = counters
        self._ticket = ticket
        self.open = True
        """Whether it has still to be settled."""

    @property
    def needs_estimate(self) -> bool:
        """Whether it matters how much the call uses."""
        claims = () if self._ticket is None else self._ticket.claims
        return any(claim.limit is Limit.TOKENS or claim.limit.is_budget for claim in claims)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settle()

    async def settle(self, usage: Usage | None = None, cost: float | None = None) -> None:
        """Give back the call's place, and what was taken beyond `usage`; None: nothing is known to be used. `cost` is in USD.

        Only the first settlement counts, and the observer is told of it. Raises nothing but a cancellation, which changes nothing:
        it is settled all the same.
        """
        if not self.open:
            return
        self.open = False
        call = self._call
        call.usage, call.cost_usd = usage, cost
        try:
            if self._counters is not None and self._ticket is not None:
                # Some hosts tell the tokens of thoughts in the sum alone.
                tokens = 0 if usage is None else max(usage.input_tokens + usage.output_tokens, usage.total_tokens)
                # Before the ledger hears of it: what it tells raises the counters, and would be counted twice.
                await self._counters.settle(self._ticket, tokens, round((cost or 0.0) * NANOS))
        except LimitsUnavailable:
            pass  # told by those who count; all but money comes back by itself, and that is in the ledger
        finally:
            call.observer.settled(call)

    async def replace(self, take: Callable[[], Awaitable[tuple[Counters, Ticket] | None]]) -> None:
        """Give back what was taken but the request itself, and take anew. Raises what `take` raises; nothing is held then."""
        counters, ticket, self._ticket = self._counters, self._ticket, None
        if counters is not None and ticket is not None:
            with suppress(LimitsUnavailable):
                await counters.settle(ticket, 0, 0)
        if taken := await take():
            self._counters, self._ticket = taken


class Limiter:
    """The limits of one process."""

    def __init__(
        self,
        quotas: Quotas,
        ledger: Ledger | None = None,
        *,
        workers: int = 1,
        shared: RedisCounters | None = None,
        closed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a ledger there are no budgets. `shared` counts for all servers, `closed` refuses while it is out of reach."""
        self._quotas = quotas
        self._ledger = ledger
        self._workers = workers
        self._own: Counters = MemoryCounters(clock)
        if shared is not None:
            self._own = shared.stand_in = StandIn(shared, clock)
        self._shared = shared
        self._closed = closed
        self._stopping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def admit(self, call: Call, estimate: Estimator | None = None) -> Grant:
        """Let a call through, and take its part of each limit.

        `estimate` is asked for what the call will use only if a limit depends on it; None: nobody knows. Where its cost is not
        known nothing is held of a budget, and a call that its caller pays for asks no budget.

        Raises `RateLimited`, `BudgetExceeded`, `LimitsUnavailable`.
        """
        taken = await self._take(call, self._quotas.of(call.caller), estimate)
        call.observer.admitted(call)
        return Grant(call) if taken is None else Grant(call, *taken)

    async def readmit(self, grant: Grant, call: Call, estimate: Estimator) -> None:
        """Let a call through that was let through before it was known how much it comes to. It is one request still.

        Raises as `admit`; the grant holds nothing any more then.
        """
        bounds = [bound for bound in self._quotas.of(call.caller) if bound.limit is not Limit.REQUESTS]
        await grant.replace(lambda: self._take(call, bounds, estimate))

    async def _take(self, call: Call, bounds: Sequence[Bound], estimate: Estimator | None) -> tuple[Counters, Ticket] | None:
        if not bounds:
            return None
        known = None if estimate is None else cache(estimate)  # it takes long, and several limits may ask
        if self._shared is not None:
            try:
                return self._shared, await self._claim(call, self._claims(known, bounds, 1), self._shared)
            except LimitsUnavailable:
                if self._closed:
                    raise
        return self._own, await self._claim(call, self._claims(known, bounds, self._workers), self._own)

    async def start(self) -> None:
        """Reads what was spent before, and keeps ledger and leases from now on. To be called before the first call comes."""
        if self._ledger is not None:
            try:
                await self._ledger.read()
            except StoreUnavailable:
                log.warning("what has been spent is not known yet: budgets begin at nothing until it is")
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Writes what the ledger still has, and ends the connections. To be called when no call goes on any more."""
        self._stopping.set()  # and no cancellation: nobody could tell then whether what is being written has been
        if self._keeping is not None:
            await self._keeping
        if self._shared is not None:
            await self._shared.close()
        await self._write()

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._stopping.wait()
            if self._shared is not None:
                with suppress(LimitsUnavailable):  # it has told why
                    await self._shared.renew()
            await self._write()

    async def _write(self) -> None:
        if self._ledger is None:
            return
        try:
            await self._ledger.write()
        except StoreUnavailable:
            pass  # the database has told why
        except Exception:
            log.exception("the ledger could not be written")

    async def _claim(self, call: Call, claims: Sequence[Claim], counters: Counters) -> Ticket:
        ticket = await counters.take(claims)
        call.headers.update(ratelimit.of(ticket))
        if ticket.refused:
            raise _refusal(ticket)
        return ticket

    def _claims(self, estimate: Estimator | None, bounds: Sequence[Bound], workers: int) -> list[Claim]:
        claims = []
        for bound in bounds:
            limit = bound.limit
            most = bound.most if limit.is_budget else -(-bound.most // workers)
            match limit:
                case Limit.REQUESTS:
                    claims.append(Claim(limit, bound.scope, f"requests:{bound.subject}", most, 1))
                case Limit.STREAMS:
                    claims.append(Claim(limit, bound.scope, f"streams:{bound.subject}", most, 1))
                case Limit.TOKENS:
                    if estimate is not None:
                        claims.append(Claim(limit, bound.scope, f"tokens:{bound.subject}", most, _tokens(estimate(), bound, most)))
                case Limit.DAY | Limit.MONTH:
                    if estimate is not None and self._ledger is not None and not estimate().paid_by_caller:
                        period = self._ledger.day() if limit is Limit.DAY else self._ledger.month()
                        known = self._ledger.spent(bound.subject, period)
                        held = round((estimate().cost_usd or 0.0) * NANOS)
                        claims.append(Claim(limit, bound.scope, f"usd:{period}:{bound.subject}", most, min(held, most), known))
        return claims


def _tokens(estimate: Estimate, bound: Bound, share: int) -> int:
    """Return the tokens to take for a call, of a limit of which `share` is ours.

    Raises `RateLimited` for a prompt that never fits.
    """
    prompt = estimate.prompt_tokens
    if prompt > bound.most:
        raise RateLimited(
            f"The request is too large: it has about {prompt} tokens, and {_WHOSE[bound.scope]} has {bound.most} a minute.",
            limit=bound.limit,
            scope=bound.scope,
            quota=bound.most,
            retry_after=WINDOW,
            retryable=False,
        )
    completion = min(estimate.completion_tokens, share // SHARE)
    # What fits the limit fits a share as well, if nothing else is in it.
    return min(prompt + completion, share)


def _refusal(ticket: Ticket) -> AntiphonError:
    """What a caller is told: a budget that is spent first, as waiting is of no use, then what it has to wait for the longest."""
    claim, standing = max(ticket.refused, key=lambda refused: (_is_spent(*refused), refused[1].wait or 0.0))
    whose, limit = _WHOSE[claim.scope], claim.limit
    usd = claim.most / NANOS
    if _is_spent(claim, standing):
        message = f"What {whose} may spend {_PERIODS[limit]}, {usd:g} USD, is spent."
        return BudgetExceeded(message, limit=limit, scope=claim.scope, quota=usd)
    wait = max(standing.wait or 0.0, 0.001)
    if limit.is_budget:
        message = f"What {whose} may spend {_PERIODS[limit]}, {usd:g} USD, is held for calls that go on. Try again in {wait:.3g} s."
        return RateLimited(message, limit=limit, scope=claim.scope, quota=usd, retry_after=wait)
    message = f"The limit of {whose}, {claim.most} {_UNITS[limit]}, is reached. Try again in {wait:.3g} s."
    return RateLimited(message, limit=limit, scope=claim.scope, quota=claim.most, retry_after=wait)


def _is_spent(claim: Claim, standing: Standing) -> bool:
    return claim.limit.is_budget and not standing.wait
