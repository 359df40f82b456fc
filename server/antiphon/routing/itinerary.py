"""The itinerary of one call: which candidate it tries next, and what it waits for before."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from antiphon.config import RoutingConfig
from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import Call
from antiphon.domain.deadline import Deadline
from antiphon.domain.errors import ProviderError, ProviderRateLimited, RateLimited, RouteUnavailable, Unsupported, copy_of
from antiphon.domain.request import ChatRequest
from antiphon.limits.base import Limit
from antiphon.limits.estimate import estimated_tokens
from antiphon.routing.backoff import Backoff
from antiphon.routing.breaker import BreakerState
from antiphon.routing.candidate import Candidate
from antiphon.routing.router import Route
from antiphon.routing.rules import RULES
from antiphon.routing.selection import Failure, Picker, Wait, Why, first_wait, next_candidate, retry, to_queue_at
from antiphon.routing.shaper import Allowance, Demand, NoRoom
from antiphon.routing.state import state_owners, without_state

_GRAIN: Final = 0.01
"""Seconds by which a sleep may be too short."""


class Itinerary:
    """The candidates of one call, in the order in which it tries them."""

    def __init__(self, call: Call, route: Route, request: ChatRequest, rules: RoutingConfig, deadline: Deadline) -> None:
        self._owner = call.caller.owner
        self._route = route
        self._tiers = route.tiers
        self._request = request
        self._rules = rules
        self._deadline = deadline
        self._waited = 0.0
        """Seconds waited since the last attempt."""
        self._failed: dict[Candidate, Failure] = {}
        self._retries = 0
        self._made_picker: Picker | None = None
        self._forced: Candidate | None = None
        """The candidate to try next, whatever else there is."""
        self._state_failed = False
        self._short: dict[Candidate, tuple[float, NoRoom]] = {}
        """The candidates whose providers grant no more at the moment, with the time when that was found out."""
        self._demand: Demand | None = None
        self.allowance: Allowance | None = None
        """What the next attempt took of what its provider grants; None if any number is granted. To be settled at its end."""

    async def next(self) -> Candidate | None:  # noqa: C901  # one branch for each way in which a candidate is found
        """Return the next candidate, once it can be called, and enter its deployment. None: no other attempt may follow a failure.

        Raises `RouteUnavailable`, `RateLimited` or the reason why all are left alone.
        """
        since = now = time.monotonic()
        self._short = {}
        try:
            while True:
                if self._forced is not None:
                    forced = await self._enter_forced(self._forced, since, now)
                    if forced is not None:
                        return forced
                    now = time.monotonic()
                candidate = next_candidate(self._tiers, self._failed, now, self._deadline.left, self._picker(), self._short)
                if candidate is not None:
                    candidate.deployment.enter()
                    if await self._take(candidate):
                        return candidate
                    now = time.monotonic()
                    continue
                full = to_queue_at(self._tiers, self._failed, now, self._short)
                if full is not None:
                    await self._queue(full, since, now)
                    now = time.monotonic()
                    if not full.is_available(now):
                        full.deployment.leave()  # it failed meanwhile
                    elif await self._take(full):
                        return full
                    continue
                short = self._first_with_room(since, now)
                if short is not None:
                    if await self._wait_for_room(short, since):
                        return short
                    now = time.monotonic()
                    continue
                wait = first_wait(self._tiers, now, random.random, self._failed)
                if self._failed and not self._may_wait(wait, since, now):
                    return await self._again(now)
                probed = await self._wait(wait, since, now)
                if probed is not None:
                    return probed
                now = time.monotonic()
        finally:
            self._waited += time.monotonic() - since

    def take_waited(self) -> float:
        """Return the seconds waited since the attempt before."""
        waited, self._waited = self._waited, 0.0
        return waited

    def is_first(self, candidate: Candidate) -> bool:
        """Return whether the call has not tried this candidate yet."""
        return candidate not in self._failed

    def fail(
        self, candidate: Candidate, error: ProviderError | Unsupported, request: ChatRequest, number: int
    ) -> ChatRequest | None:
        """Note the failure of attempt `number`, and return the request for the next one. None: there must be none."""
        found = classify(error, has_output=False)
        rule = RULES[found]
        until = time.monotonic() + (error.retry_after or 0.0)
        if isinstance(error, ProviderRateLimited) and error.retryable:
            # If this is what the caller gets: the time after which the first candidate is available.
            now = time.monotonic()
            waits = [wait for tier in self._tiers for choice in tier if (wait := choice.candidate.wait(now)) > 0]
            error.retry_after = round(min(waits), 2) if waits else error.retry_after
        if number >= self._rules.attempts:
            return None
        if self.turns(found):
            self._tiers = self._route.when[found]
            self._route = Route(self._route.provider, self._route.model, self._tiers)
            self._failed = {}
            return request
        if found is AttemptClass.STATE and any(state_owners(request)):
            # Not even the owner takes it if the conversation has state of several.
            owner = None if self._state_failed else self._state_owner(candidate)
            self._state_failed = True
            self._forced = owner or candidate
            return request if owner is not None else without_state(request)
        if not (rule.again or rule.onward):
            return None
        self._failed[candidate] = Failure(found, rule.again and error.retryable, until)
        return request

    def for_last_attempt(self, request: ChatRequest, candidate: Candidate) -> ChatRequest:
        """Return the request for the last attempt: without state of others than `candidate` if it was refused, or its owner failed.

        There is no attempt left to find out whether that is taken, and the caller would be told that its request is invalid.
        """
        owners = set(state_owners(request))
        is_doubtful = self._state_failed or any(failed.deployment.name in owners for failed in self._failed)
        return without_state(request) if is_doubtful and owners - {candidate.deployment.name} else request

    def turns(self, found: AttemptClass) -> bool:
        """Return whether the route has other candidates for failures of this class, that were not turned to yet."""
        return found in self._route.when

    def has_other(self, candidate: Candidate) -> bool:
        """Return whether there is another candidate to go to, if this one fails."""
        return any(
            choice.candidate is not candidate and choice.candidate not in self._failed for tier in self._tiers for choice in tier
        )

    def has_quicker(self, candidate: Candidate, seconds: float) -> bool:
        """Return whether another candidate can be called now that usually sends its first token within so many seconds."""
        now = time.monotonic()
        return any(
            other is not candidate
            and other not in self._failed
            and (usual := other.first_token.value) is not None
            and usual < seconds
            and not other.deployment.is_full
            and other.is_available(now)
            for tier in self._tiers
            for other in (choice.candidate for choice in tier)
        )

    async def settle(self, candidate: Candidate, tokens: int) -> None:
        """Note how many tokens an attempt used, if its provider grants only so many. To be called at its end."""
        allowance, self.allowance = self.allowance, None
        if allowance is not None and candidate.shaper is not None:
            await candidate.shaper.settle(allowance, tokens)

    async def _enter_forced(self, forced: Candidate, since: float, now: float) -> Candidate | None:
        """Enter the deployment that is to be tried next, once it has a place; None if it cannot be called now, but others may."""
        self._forced = None
        if not forced.is_available(now):
            return None
        if forced.deployment.is_full:
            await self._queue(forced, since, now)
            if not forced.is_available(time.monotonic()):
                forced.deployment.leave()  # it failed meanwhile
                return None
        else:
            forced.deployment.enter()
        return forced if await self._take(forced) else None

    async def _take(self, candidate: Candidate) -> bool:
        """Take an attempt's part of what a provider grants. Leave the deployment, which was entered, if that does not fit."""
        shaper = candidate.shaper
        if shaper is None or self._request.api_key is not None:  # a caller's own key has its own grant
            return True
        try:
            found = await shaper.take(self._estimate())
        except BaseException:
            candidate.deployment.leave()
            raise
        if isinstance(found, Allowance):
            self.allowance = found
            return True
        self._short[candidate] = time.monotonic(), found
        candidate.deployment.leave()
        return False

    def _first_with_room(self, since: float, now: float) -> Candidate | None:
        """Return the candidate whose provider grants more first; None if there is none, or if another one failed and may be tried.

        Raises `RateLimited` if no room is expected in time. When there is room for tokens is known only at the latest: calls in
        flight return what they do not use.
        """
        if not self._short:
            return None
        waits = {candidate: found.seconds - (now - at) for candidate, (at, found) in self._short.items()}
        candidate = min(waits, key=waits.__getitem__)
        deployment, found = candidate.deployment, self._short[candidate][1]
        most = self._most_wait(candidate, since, now)
        may_be_earlier = found.limit is Limit.TOKENS and deployment.in_flight > 0
        if most > 0 and (waits[candidate] <= most or may_be_earlier) and not deployment.queue_is_full:
            return candidate
        if self._failed:
            return None
        wait = max(1.0, waits[candidate])
        what = "tokens" if found.limit is Limit.TOKENS else "requests"
        message = f"The provider {deployment.name} grants no more {what} at the moment. Try again in {wait:.3g} s."
        raise RateLimited(message, limit=found.limit, scope="provider", quota=found.maximum, retry_after=wait)

    async def _wait_for_room(self, candidate: Candidate, since: float) -> bool:
        """Wait until a provider grants an attempt, and enter the deployment. Return False if another candidate is to be chosen."""
        deployment, shaper = candidate.deployment, candidate.shaper
        assert shaper is not None, "its provider grants no more at the moment"
        most = self._most_wait(candidate, since, time.monotonic())
        deployment.waiting += 1
        try:
            self.allowance = await shaper.wait(self._owner, self._estimate(), most)
        finally:
            deployment.waiting -= 1
        if self.allowance is None:
            return False
        now = time.monotonic()
        if candidate.is_available(now) and not deployment.is_full:
            deployment.enter()
            return True
        del self._short[candidate]  # it failed or filled up meanwhile
        await self.settle(candidate, 0)
        return False

    def _most_wait(self, candidate: Candidate, since: float, now: float) -> float:
        return min(candidate.deployment.config.queue.wait - (now - since), self._deadline.left)

    def _estimate(self) -> Demand:
        if self._demand is None:
            self._demand = Demand(*estimated_tokens(self._request))
        return self._demand

    async def _again(self, now: float) -> Candidate | None:
        """Wait until a candidate that failed can be tried again, and enter its deployment; None if none may be."""
        again = retry(self._failed, now, self._retries, self._rules.retry_after_most, self._backoff(), random.random)
        if again is None or again.seconds >= self._deadline.left:
            return None
        self._retries += 1
        await asyncio.sleep(again.seconds)
        candidate, now = again.candidate, time.monotonic()
        if candidate.deployment.is_full:
            await self._queue(candidate, now, now)
        else:
            candidate.deployment.enter()
        if not candidate.is_available(time.monotonic() + _GRAIN):
            candidate.deployment.leave()  # it failed meanwhile
            return None
        return candidate if await self._take(candidate) else None

    def _picker(self) -> Picker:
        if self._made_picker is None:
            affinity = self._rules.affinity
            owners = () if affinity == "none" else tuple(state_owners(self._request))
            conversation = _beginning(self._request) if affinity == "conversation" else b""
            self._made_picker = Picker(random.random, owners, conversation)
        return self._made_picker

    def _state_owner(self, tried: Candidate) -> Candidate | None:
        """Return the candidate that made the newest state of the request, if it is another one than those that were tried."""
        now = time.monotonic()
        by_name = {choice.candidate.deployment.name: choice.candidate for tier in self._tiers for choice in tier}
        for name in state_owners(self._request):
            owner = by_name.get(name)
            if owner is not None and owner is not tried and owner not in self._failed and owner.is_available(now):
                return owner
        return None

    async def _queue(self, candidate: Candidate, since: float, now: float) -> None:
        """Wait for a place at a deployment that has too many calls. Raises `RateLimited`."""
        deployment = candidate.deployment
        queue = deployment.config.queue
        seconds = min(queue.wait - (now - since), self._deadline.left)
        if seconds <= 0 or deployment.queue_is_full or not await deployment.wait_for_place(self._owner, seconds):
            message = f"The provider {deployment.name} has as many calls as it may have at once. Try again."
            raise RateLimited(message, limit="queue", scope="provider", quota=queue.size, retry_after=max(1.0, queue.wait))

    def _may_wait(self, wait: Wait | None, since: float, now: float) -> bool:
        """Return whether a call waits for what it has not tried yet: not at all, or as all that it tried are left alone by now."""
        if wait is None:
            return False
        if wait.candidate.breaker.may_start(now) and wait.seconds <= 0:
            return True
        return all(each.is_broken(now) for each in self._failed) and self._fits(wait, since, now)

    async def _wait(self, wait: Wait | None, since: float, now: float) -> Candidate | None:
        """Wait until a candidate may be available, or return the one to probe now.

        Raises what the caller gets if that takes too long.
        """
        if wait is None:
            raise RouteUnavailable(self._route.provider.name, None)
        if wait.is_early and wait.seconds <= 0:
            return wait.candidate if await self._probe(wait.candidate) else None
        candidate, deployment = wait.candidate, wait.candidate.deployment
        if not self._fits(wait, since, now):
            if wait.why is Why.COOLING:
                message = f"The provider {deployment.name} limits the rate of calls."
                raise ProviderRateLimited(message, provider=deployment.name, retry_after=wait.seconds)
            if candidate.last_error is not None:
                raise copy_of(candidate.last_error)
            raise RouteUnavailable(deployment.name, max(1.0, wait.seconds))
        deployment.waiting += 1
        try:
            await asyncio.sleep(wait.seconds)
        finally:
            deployment.waiting -= 1
        return None

    def _fits(self, wait: Wait, since: float, now: float) -> bool:
        """Return whether a call that waits since then may wait so long."""
        deployment = wait.candidate.deployment
        most = self._rules.retry_after_most if wait.why is Why.COOLING else deployment.config.queue.wait
        return wait.seconds <= min(most - (now - since), self._deadline.left) and not deployment.queue_is_full

    async def _probe(self, candidate: Candidate) -> bool:
        """Enter a deployment that is not available to all. Return False if its provider grants no attempt at the moment."""
        candidate.deployment.enter()
        if candidate.breaker.state is BreakerState.RAMP:
            return await self._take(candidate)
        place, is_taken = candidate.breaker.probe_early(), False
        try:
            is_taken = await self._take(candidate)
        finally:
            if not is_taken:
                candidate.breaker.release(place)
        return is_taken

    def _backoff(self) -> Backoff:
        return Backoff(self._rules.backoff.first, self._rules.backoff.most)


def _beginning(request: ChatRequest) -> bytes:
    """Return the beginning of a conversation: everything up to the first message of the user, 4 KiB at most."""
    text = repr(request.tools)
    for message in request.messages:
        text += repr(message.blocks)
        if message.role.value == "user" or len(text) >= 4096:
            break
    return text[:4096].encode()
