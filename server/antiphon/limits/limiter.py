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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from antiphon.domain import headers
from antiphon.domain.errors import AntiphonError, BudgetExceeded, LimitsUnavailable, RateLimited, StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.domain.measure import prompt_tokens
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.limits import headers as ratelimit
from antiphon.limits.base import NANOS, WINDOW, Claim, Counters, Limit, Standing, Ticket
from antiphon.limits.ledger import Ledger
from antiphon.limits.memory import MemoryCounters
from antiphon.limits.quotas import Bound, Quotas
from antiphon.limits.stand_in import StandIn

if TYPE_CHECKING:
    from antiphon.limits.redis import RedisCounters  # the app imports it where it is used: its client takes 7 MB

BEAT: Final = 5.0
"""Seconds between two writes of the ledger, and between two renewals of leases."""

COMPLETION: Final = 512
"""Tokens that a reply is expected to have, where the request names no most."""

SHARE: Final = 4
"""The reply's part of an estimate is at most the limit divided by this: most replies end long before the most that they may have,
and a call that names a generous one is not to wait for a minute without any other."""

_UNITS: Final = {Limit.REQUESTS: "requests a minute", Limit.TOKENS: "tokens a minute", Limit.STREAMS: "calls at once"}
_PERIODS: Final = {Limit.DAY: "today", Limit.MONTH: "this month"}
_WHOSE: Final = {"key": "this key", "owner": "the owner of this key", "overall": "this gateway"}

Price: TypeAlias = Callable[[Usage], float | None]

log = structlog.get_logger(__name__)


class Grant:
    """One call that was let through. It ends with `settle`."""

    __slots__ = ("_counters", "_ledger", "_principal", "_ticket", "open")

    def __init__(self, principal: Principal, ledger: Ledger | None, counters: Counters | None, ticket: Ticket | None) -> None:
        self._principal = principal
        self._ledger = ledger
        self._counters = counters
        self._ticket = ticket
        self.open = True
        """Whether it has still to be settled."""

    @property
    def weighs(self) -> bool:
        """Whether it matters how many tokens the call has."""
        claims = () if self._ticket is None else self._ticket.claims
        return any(claim.limit is Limit.TOKENS or claim.limit.is_budget for claim in claims)

    async def settle(self, usage: Usage | None = None, cost: float | None = None) -> None:
        """Gives back the call's place, and what was taken beyond `usage`; None: nothing is known to be used. `cost` is in USD.

        Only the first settlement counts. Raises nothing but a cancellation, which changes nothing: it is settled all the same.
        """
        if not self.open:
            return
        self.open = False
        try:
            if self._counters is not None and self._ticket is not None:
                # Some hosts tell the tokens of thoughts in the sum alone.
                tokens = 0 if usage is None else max(usage.prompt_tokens + usage.completion_tokens, usage.total_tokens)
                # Before the ledger: what it tells raises the counters, and would be counted twice.
                await self._counters.settle(self._ticket, tokens, round((cost or 0.0) * NANOS))
        except LimitsUnavailable:
            pass  # told by those who count; all but money comes back by itself, and that is in the ledger
        finally:
            if self._ledger is not None:
                self._ledger.add(self._principal, usage, cost)

    async def give_back(self) -> None:
        """Gives back what was taken but the request itself, before it is known whether the call goes on."""
        counters, ticket, self._ticket = self._counters, self._ticket, None
        if counters is not None and ticket is not None:
            with suppress(LimitsUnavailable):
                await counters.settle(ticket, 0, 0)


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

    async def admit(
        self, principal: Principal, request: ChatRequest | None = None, price: Price | None = None, *, spends: bool = True
    ) -> Grant:
        """Lets a call through, and takes its part of each limit. None of a request: its tokens and its cost are nobody's to know.

        `price` tells what usage costs in USD, None where nobody knows; nothing is held of a budget then.
        A call that does not spend asks no budget: its caller pays the provider.

        Raises `RateLimited`, `BudgetExceeded`, `LimitsUnavailable`.
        """
        return await self._grant(principal, self._quotas.of(principal), request, price, spends=spends)

    async def readmit(
        self, grant: Grant, principal: Principal, request: ChatRequest, price: Price | None = None, *, spends: bool = True
    ) -> Grant:
        """Lets a call through that was let through before it was known that it comes to this `request`. It is one request still.

        The new grant takes the place of the old one, which holds nothing any more, even if this raises. As `admit`.
        """
        await grant.give_back()
        bounds = [bound for bound in self._quotas.of(principal) if bound.limit is not Limit.REQUESTS]
        return await self._grant(principal, bounds, request, price, spends=spends)

    async def _grant(
        self, principal: Principal, bounds: Sequence[Bound], request: ChatRequest | None, price: Price | None, *, spends: bool
    ) -> Grant:
        if not bounds:
            return Grant(principal, self._ledger, None, None)
        if self._shared is not None:
            try:
                return await self._admit(principal, self._claims(request, price, bounds, 1, spends=spends), self._shared)
            except LimitsUnavailable:
                if self._closed:
                    raise
        claims = self._claims(request, price, bounds, self._workers, spends=spends)
        return await self._admit(principal, claims, self._own)

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

    async def _admit(self, principal: Principal, claims: Sequence[Claim], counters: Counters) -> Grant:
        ticket = await counters.take(claims)
        for name, value in ratelimit.of(ticket):
            headers.add(name, value)
        if ticket.refused:
            raise _refusal(ticket)
        return Grant(principal, self._ledger, counters, ticket)

    def _claims(
        self, request: ChatRequest | None, price: Price | None, bounds: Sequence[Bound], workers: int, *, spends: bool
    ) -> list[Claim]:
        claims = []
        prompt: int | None = None  # counted once, and only where something wants to know
        held: int | None = None
        for bound in bounds:
            limit = bound.limit
            most = bound.most if limit.is_budget else -(-bound.most // workers)
            match limit:
                case Limit.TOKENS:
                    if request is not None:
                        prompt = prompt_tokens(request) if prompt is None else prompt
                        wanted = _estimate(prompt, request, bound, most)
                        claims.append(Claim(limit, bound.scope, f"tokens:{bound.subject}", most, wanted))
                case Limit.DAY | Limit.MONTH:
                    if request is not None and spends and self._ledger is not None:
                        period = self._ledger.day() if limit is Limit.DAY else self._ledger.month()
                        known = self._ledger.spent(bound.subject, period)
                        if held is None:
                            prompt = prompt_tokens(request) if prompt is None else prompt
                            held = _cost(prompt, request, price)
                        claims.append(Claim(limit, bound.scope, f"usd:{period}:{bound.subject}", most, min(held, most), known))
                case Limit.REQUESTS:
                    claims.append(Claim(limit, bound.scope, f"requests:{bound.subject}", most, 1))
                case Limit.STREAMS:
                    claims.append(Claim(limit, bound.scope, f"streams:{bound.subject}", most, 1))
        return claims


def _estimate(prompt: int, request: ChatRequest, bound: Bound, share: int) -> int:
    """Tokens to take for a call, of a limit of which `share` is ours. Raises `RateLimited` for a prompt that never fits."""
    if prompt > bound.most:
        raise RateLimited(
            f"The request is too large: it has about {prompt} tokens, and {_WHOSE[bound.scope]} has {bound.most} a minute.",
            limit=bound.limit,
            scope=bound.scope,
            quota=bound.most,
            retry_after=WINDOW,
            retryable=False,
        )
    completion = min(_completion(request), share // SHARE)
    # What fits the limit fits a share as well, if nothing else is in it.
    return min(prompt + completion, share)


def _completion(request: ChatRequest) -> int:
    sampling = request.sampling
    # Which of the two is followed is the provider's to say.
    return (max(sampling.max_completion_tokens or 0, sampling.max_tokens or 0) or COMPLETION) * (sampling.choices or 1)


def _cost(prompt: int, request: ChatRequest, price: Price | None) -> int:
    """Nano-dollars to hold of a budget for a call: nothing where its price is not known."""
    if price is None:
        return 0
    completion = min(_completion(request), 1 << 40)  # whatever a caller names
    return round((price(Usage(prompt, completion, prompt + completion)) or 0.0) * NANOS)


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
