"""The choice of the next candidate of one call, among the tiers of its route. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from antiphon.domain.attempt_class import AttemptClass
from antiphon.routing.affinity import prefer
from antiphon.routing.backoff import Backoff
from antiphon.routing.balance import choose
from antiphon.routing.breaker import BreakerState
from antiphon.routing.candidate import Candidate
from antiphon.routing.router import Tier, WeightedCandidate

_RECHECK: Final = 0.2
"""Seconds between two looks at a candidate that may be available at any moment."""


class Why(Enum):
    """Why a call has to wait for a candidate."""

    BACKOFF = auto()
    COOLING = auto()
    """The candidate limits its rate."""
    BROKEN = auto()
    """Its breaker is open, or lets only a part of the calls pass."""


class Failure(Struct, frozen=True):
    """A failed attempt: its class, and whether the same candidate may be tried again."""

    found: AttemptClass
    again: bool
    until: float = 0.0
    """The moment, by the monotonic clock, before which its provider does not want to be asked again."""


class Wait(Struct, frozen=True):
    """The candidate to wait for, and for how many seconds before it is called or looked at again.

    `is_early`: it is called then although its breaker is open, or admits only a part of the calls.
    """

    candidate: Candidate
    seconds: float
    why: Why
    is_early: bool = False


class Picker(Struct, frozen=True):
    """How a candidate is picked out of those of a tier. `random` returns numbers from 0 to 1.

    `owners` are names of deployments that are preferred, the first one most; `conversation`, if not empty, keeps a conversation at
    one of the candidates.
    """

    random: Callable[[], float]
    owners: Sequence[str] = ()
    conversation: bytes = b""

    def pick(self, choices: Sequence[WeightedCandidate], now: float) -> Candidate:
        """Return one of the candidates, of which there must be one at least."""
        if len(choices) == 1:
            return choices[0].candidate
        by_name = {choice.candidate.deployment.name: choice.candidate for choice in reversed(choices)}
        for owner in self.owners:
            if owner in by_name:
                return by_name[owner]
        loads = [choice.candidate.load(choice.weight, now) for choice in choices]
        if self.conversation:
            return choices[prefer(self.conversation, [choice.candidate.route for choice in choices], loads)].candidate
        return choices[choose(loads, self.random)].candidate


def next_candidate(
    tiers: Sequence[Tier],
    failed: Mapping[Candidate, Failure],
    now: float,
    left: float,
    picker: Picker,
    short: Collection[Candidate] = (),
) -> Candidate | None:
    """Return a candidate that can be called now; None if there is none.

    `failed` are those that this call has tried, and its failures; `short` those whose providers grant no more at the moment.
    After a failure, those that usually take longer until the first token than the seconds that are `left` are passed over.
    """
    for tier in tiers:
        free = [
            choice
            for choice in tier
            if (candidate := choice.candidate) not in failed
            and candidate not in short
            and not candidate.deployment.is_full
            and candidate.is_available(now)
            and not (failed and (candidate.first_token.value or 0.0) > left)
        ]
        if free:
            return picker.pick(free, now)
    return None


def to_queue_at(
    tiers: Sequence[Tier], failed: Collection[Candidate], now: float, short: Collection[Candidate] = ()
) -> Candidate | None:
    """Return a candidate that only has too many calls at the moment: that of the first such tier with the shortest queue."""
    for tier in tiers:
        full = [
            choice.candidate
            for choice in tier
            if choice.candidate not in failed
            and choice.candidate not in short
            and choice.candidate.deployment.is_full
            and choice.candidate.is_available(now)
        ]
        if full:
            return min(full, key=lambda candidate: candidate.deployment.queued)
    return None


def retry(
    failed: Mapping[Candidate, Failure],
    now: float,
    retries: int,
    retry_after_most: float,
    backoff: Backoff,
    random: Callable[[], float],
) -> Wait | None:
    """Return the candidate to try again when no other one is left; None if there is none, or its budget does not allow it.

    `retries` is how often the call did so before.
    """

    def pause(candidate: Candidate, failure: Failure) -> Wait:
        if failure.found is AttemptClass.RATE_LIMITED:
            return Wait(candidate, max(0.0, candidate.cool_until - now, failure.until - now), Why.COOLING)
        return Wait(candidate, max(backoff.seconds(retries, random()), failure.until - now), Why.BACKOFF)

    waits = [
        pause(candidate, failure)
        for candidate, failure in failed.items()
        if failure.again and not candidate.deployment.drained and candidate.breaker.refresh(now) is not BreakerState.OPEN
    ]
    fitting = [wait for wait in waits if wait.seconds <= retry_after_most]
    if not fitting:
        return None
    soonest = min(fitting, key=lambda wait: wait.seconds)
    return soonest if soonest.candidate.deployment.budget.withdraw() else None


def first_wait(tiers: Sequence[Tier], now: float, random: Callable[[], float], failed: Collection[Candidate] = ()) -> Wait | None:
    """Return what to wait for when no candidate can be called: the one that may be the first, and was not tried.

    None if there is none, as all are drained, or were tried and `failed`. If no candidate works at all, the call need not wait for
    the end of a breaker's time, as an early probe can show sooner that the candidate is well again. And one that is returning is
    called at once if few others call it.
    """
    in_use = [choice.candidate for tier in tiers for choice in tier if not choice.candidate.deployment.drained]
    none_works = all(candidate.is_down(now) for candidate in in_use)

    def block(candidate: Candidate) -> Wait:
        opens = candidate.breaker.wait(now)
        if candidate.cool_until > now and candidate.cool_until - now >= opens:
            return Wait(candidate, candidate.cool_until - now, Why.COOLING)
        if candidate.deployment.is_full:
            early = None
        elif candidate.breaker.may_start(now):
            early = 0.0
        else:
            early = candidate.breaker.early_wait(now) if none_works else None
        if early is not None:
            return Wait(candidate, max(early, candidate.cool_until - now), Why.BROKEN, is_early=True)
        return Wait(candidate, opens or _RECHECK * (0.5 + random()), Why.BROKEN)

    waits = [block(candidate) for candidate in in_use if candidate not in failed]
    return min(waits, key=lambda wait: wait.seconds, default=None)
