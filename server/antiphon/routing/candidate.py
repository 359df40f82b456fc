"""Candidates: one model at one deployment, with all that is known of its health."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from antiphon.config import RoutingConfig
from antiphon.domain.attempt_class import AttemptClass
from antiphon.domain.errors import ProviderCredentials, ProviderError, copy_of
from antiphon.routing.balance import Average, FailureRate, Load
from antiphon.routing.breaker import Breaker, BreakerRules, BreakerState
from antiphon.routing.rules import RULES, Verdict

if TYPE_CHECKING:
    from antiphon.routing.deployment import Deployment

TRIP: Final = 60.0
"""Seconds for which a candidate is left alone whose every call would fail until somebody changes something."""

_FORBIDDEN: Final = 403
"""A status that some hosts also send for the content of one request: it says nothing about the next one."""


class Candidate:
    """One model at one deployment. Times are in seconds of the monotonic clock."""

    def __init__(self, deployment: Deployment, model: str, rules: RoutingConfig) -> None:
        self.deployment = deployment
        self.model = model
        self.route = f"{deployment.name}/{model}"
        """Its name for callers, logs and operators."""
        found = rules.breaker
        self.breaker = Breaker(
            BreakerRules(found.consecutive, found.ratio, found.of, found.window, found.open, found.open_most), random.random
        )
        self.first_token = Average()
        self.failures = FailureRate()
        self.shaper = deployment.shaper(self.route)
        """Keeps its calls within what its provider grants a minute; None if any number is granted."""
        self.cool_until = 0.0
        """It limits its rate until then."""
        self.last_error: ProviderError | None = None
        """Why its breaker was tripped; None also if an admin did it."""

    def is_available(self, now: float) -> bool:
        """Return whether it may be called now, apart from the number of calls at its deployment. Runs for every call."""
        return (
            self.cool_until <= now
            and not self.deployment.drained
            and (self.breaker.state is BreakerState.CLOSED or self.breaker.admits(now))
        )

    def try_enter(self, now: float) -> bool:
        """Enter its deployment for a first attempt, and return True; or return False if it cannot be called at once.

        Runs for every call, so it repeats `is_available` and `Deployment.enter`.
        """
        deployment = self.deployment
        if self.cool_until > now or deployment.drained or self.breaker.state is not BreakerState.CLOSED:
            return False
        if self.shaper is not None:
            return False
        if deployment.concurrent is not None and deployment.in_flight >= deployment.concurrent:
            return False
        deployment.in_flight += 1
        return True

    @property
    def is_idle(self) -> bool:
        """Whether its state is that of a new one, so that it can be forgotten."""
        now = time.monotonic()
        is_well = self.breaker.refresh(now) is BreakerState.CLOSED and self.cool_until <= now
        return is_well and (self.shaper is None or self.shaper.is_idle)

    def is_down(self, now: float) -> bool:
        """Return whether it fails, as far as is known, or limits its rate; one that comes back slowly works."""
        return self.cool_until > now or self.is_broken(now)

    def is_broken(self, now: float) -> bool:
        """Return whether it failed so often that no call, or only a probe, may be made."""
        return self.breaker.refresh(now) in (BreakerState.OPEN, BreakerState.HALF_OPEN)

    def load(self, weight: float, now: float) -> Load:
        """Return what the balance has to know."""
        return Load(weight, self.deployment.in_flight, self.first_token.value, self.failures.at(now))

    def wait(self, now: float) -> float:
        """Return the seconds until it may be called, as far as it is known."""
        return max(self.cool_until - now, self.breaker.wait(now), 0.0)

    def cool(self, until: float) -> None:
        """Leave it alone until then. A later failure never makes that time shorter."""
        self.cool_until = max(self.cool_until, until)

    def trip(self, until: datetime) -> None:
        """Open its breaker until then, as an admin wants it."""
        seconds = (until - datetime.now(UTC)).total_seconds()
        if seconds > 0:
            self.last_error = None
            self.breaker.hold_open(time.monotonic(), seconds)

    def record(
        self, now: float, epoch: int, found: AttemptClass, error: BaseException | None, *, own_key: bool, alone: bool
    ) -> None:
        """Note the outcome of a call.

        `own_key`: it used the caller's own key, so it says nothing about the gateway's. `alone`: the route has no other candidate,
        so to leave this one alone at once would help nobody, and would hide for a while that the cause is removed.
        """
        if found is AttemptClass.OK:
            self.breaker.succeed(now, epoch)
            if self.failures.value:
                self.failures.add(now, failed=False)
            return
        match RULES[found].verdict:
            case Verdict.FAILED:
                self.last_error = None
                self.breaker.fail(now, epoch)
                self.failures.add(now, failed=True)
            case Verdict.COOLS if not own_key and isinstance(error, ProviderError):
                self.breaker.release(epoch)
                self.cool(now + (error.retry_after or 0.0))
                if self.deployment.cooled is not None:
                    self.deployment.cooled(self, self.cool_until - now)
            case Verdict.TRIPS if not own_key and isinstance(error, ProviderError):
                self.last_error = copy_of(error)
                if alone or (error.status == _FORBIDDEN and isinstance(error, ProviderCredentials)):
                    self.breaker.fail(now, epoch)
                else:
                    self.breaker.trip(now, TRIP)
            case _:
                self.breaker.release(epoch)
