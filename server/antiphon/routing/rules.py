"""What follows from the class of a failed attempt: whether to try again, where, and what the failure says about the candidate.

A table, and nothing else. It holds as long as nothing of the reply was sent; after that no attempt is followed by another.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from antiphon.domain.attempt_class import AttemptClass


class Verdict(Enum):
    """What a failure says about its candidate."""

    NOTHING = auto()
    FAILED = auto()
    """It counts as a failure of the candidate."""
    COOLS = auto()
    """The candidate is left alone until the time that it named. It is not broken."""
    TRIPS = auto()
    """Every call would fail, until somebody changes something: the breaker opens at once."""


class ClassRule(Struct, frozen=True):
    """One row of the table."""

    again: bool = False
    """The same candidate may be tried once more, after a wait, within the budget."""
    onward: bool = False
    """Another candidate may be tried."""
    verdict: Verdict = Verdict.NOTHING


RULES: Final[Mapping[AttemptClass, ClassRule]] = {
    AttemptClass.OK: ClassRule(),
    AttemptClass.CONNECT: ClassRule(again=True, onward=True, verdict=Verdict.FAILED),
    AttemptClass.OVERLOADED: ClassRule(again=True, onward=True, verdict=Verdict.FAILED),
    AttemptClass.RATE_LIMITED: ClassRule(again=True, onward=True, verdict=Verdict.COOLS),
    AttemptClass.CREDENTIALS: ClassRule(onward=True, verdict=Verdict.TRIPS),
    AttemptClass.UNSUPPORTED: ClassRule(onward=True),
    AttemptClass.TOO_LONG: ClassRule(),
    AttemptClass.REFUSED: ClassRule(),
    AttemptClass.INVALID: ClassRule(),
    AttemptClass.STATE: ClassRule(),
    AttemptClass.LATE: ClassRule(onward=True, verdict=Verdict.FAILED),
    AttemptClass.CUT: ClassRule(verdict=Verdict.FAILED),
    AttemptClass.BLOCKED: ClassRule(),
    AttemptClass.GONE: ClassRule(),
    AttemptClass.DEADLINE: ClassRule(),
    AttemptClass.STOPPING: ClassRule(),
    AttemptClass.INTERNAL: ClassRule(),
}
"""The rule of each class. `too_long` and `refused` are followed by the model that the alias names for them (`when`), and `state` by
one attempt at the candidate that made the state, or else one without it; `antiphon.routing.itinerary` does both."""
