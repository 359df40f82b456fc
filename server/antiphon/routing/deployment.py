"""Deployments: the addresses and keys of a provider, each with its calls in flight and its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from antiphon.config import ProviderConfig, RoutingConfig
from antiphon.limits.counting import Counting
from antiphon.providers.base import Provider
from antiphon.routing.budget import RetryBudget
from antiphon.routing.candidate import Candidate
from antiphon.routing.shaper import Shaper
from antiphon.routing.turns import FairQueue

MODELS: Final = 1000
"""The most models of a deployment whose state is kept; callers can name any number of models where a pattern matches them."""


class Deployment:
    """One deployment: its provider object, what it is doing, and the state of each of its models."""

    def __init__(
        self,
        provider: Provider,
        pool: str,
        config: ProviderConfig,
        rules: RoutingConfig,
        *,
        weight: float = 1.0,
        counting: Counting | None = None,
        fingerprint: str = "",
    ) -> None:
        """`pool` is the provider's name in the configuration, and `config` its settings with what the deployment sets itself.

        `counting` counts what the provider grants; None: this process alone does. `fingerprint` changes if the deployment does.
        """
        self.name = provider.name
        """The name of the provider, or "<provider>/<deployment>"."""
        self.pool = pool
        self.provider = provider
        self.weight = weight
        self.config = config
        self.timeouts = config.timeouts
        self.fingerprint = fingerprint
        self.budget = RetryBudget(rules.budget)
        self.in_flight = 0
        self.drained = False
        """An operator has taken it out of use."""
        self.tripped: datetime | None = None
        """The moment until which an admin has opened the breakers of its models; it may be over."""
        self.cooled: Callable[[Candidate, float], None] | None = None
        """Called when one of its models limits its rate, with the seconds for which it is left alone."""
        self.waiting = 0
        """The calls that wait for it, because it is failing, or because it grants no more at the moment."""
        self._rules = rules
        self._counting = counting
        self.concurrent = config.concurrent
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(config.queue.size)
        self._candidates: dict[str, Candidate] = {}
        self._kept: frozenset[str] = frozenset()

    def candidate(self, model: str) -> Candidate:
        """Return one of its models."""
        found = self._candidates.get(model)
        if found is None:
            found = Candidate(self, model, self._rules)
            if self.tripped is not None:
                found.trip(self.tripped)
            if len(self._candidates) >= MODELS:
                self._forget()
            if len(self._candidates) < MODELS:
                self._candidates[model] = found
        return found

    def trip(self, until: datetime | None) -> None:
        """Open the breakers of all models until then. None: close them, if they were tripped and it is not over.

        Nothing happens if this is known already: what the breakers did since then stands.
        """
        if until == self.tripped:
            return
        ends_now = until is None and self.is_tripped
        self.tripped = until
        for candidate in self.candidates():
            if until is not None:
                candidate.trip(until)
            elif ends_now:
                candidate.breaker.reset()

    @property
    def is_tripped(self) -> bool:
        """Whether an admin has opened the breakers of its models, and it is not over."""
        return self.tripped is not None and self.tripped > datetime.now(UTC)

    def shaper(self, route: str) -> Shaper | None:
        """Return a shaper for one of its models; None if any number of calls is granted."""
        config = self.config
        if config.requests_per_minute is None and config.tokens_per_minute is None:
            return None
        if self._counting is None:
            self._counting = Counting()
        return Shaper(route, config.requests_per_minute, config.tokens_per_minute, self._counting, config.queue.size)

    def keep(self) -> None:
        """Keep the models that are known by now for good: those that the configuration names."""
        self._kept = frozenset(self._candidates)

    def candidates(self) -> Sequence[Candidate]:
        """Return the models that were called, or may be called by name."""
        return tuple(self._candidates.values())

    @property
    def is_full(self) -> bool:
        """Whether it has as many calls as it may have at once."""
        return self.concurrent is not None and self.in_flight >= self.concurrent

    @property
    def queued(self) -> int:
        """Return the number of calls that wait for it."""
        return len(self._queue) + self.waiting

    @property
    def queue_is_full(self) -> bool:
        """Whether no further call may wait."""
        return self.queued >= self._queue.size

    async def wait_for_place(self, owner: str, seconds: float) -> bool:
        """Wait for a place among its calls at once, and take it. Return False if there was none within the time.

        The caller must check `queue_is_full` before, and call `leave` at the end of its call.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._queue.push(owner, place):
            return False
        try:
            async with asyncio.timeout(seconds):
                await place
        except BaseException as error:
            if not self._queue.remove(owner, place) and not place.cancelled():
                self.leave()  # the place was given to this call at the same moment
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def enter(self) -> None:
        """Note the start of a call."""
        self.in_flight += 1

    def leave(self) -> None:
        """Note the end of a call: the next one that waits gets its place. Runs for every call."""
        if self.concurrent is not None:
            while (place := self._queue.pop()) is not None:
                if not place.done():
                    place.set_result(None)
                    return
        self.in_flight -= 1

    def _forget(self) -> None:
        """Forget the models that nothing is known of."""
        for model in [name for name, candidate in self._candidates.items() if name not in self._kept and candidate.is_idle]:
            del self._candidates[model]


class Pool:
    """The deployments of one provider. `name` is the provider's name in the configuration."""

    def __init__(self, name: str, deployments: Sequence[Deployment]) -> None:
        self.name = name
        self.deployments = tuple(deployments)

    @classmethod
    def of(cls, provider: Provider, rules: RoutingConfig) -> Pool:
        """Return the pool of a provider that has one deployment, with the defaults of the configuration."""
        return cls(provider.name, [Deployment(provider, provider.name, ProviderConfig(), rules)])
