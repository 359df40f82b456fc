"""Tests of deployments that an admin trips."""

import time
from datetime import UTC, datetime, timedelta

from antiphon.config import ProviderConfig, RoutingConfig
from antiphon.domain.errors import ProviderCredentials
from antiphon.routing.breaker import BreakerState
from antiphon.routing.deployment import Deployment
from tests.unit.scripted import ScriptedProvider


def made() -> Deployment:
    deployment = Deployment(ScriptedProvider(), "scripted", ProviderConfig(), RoutingConfig())
    deployment.candidate("known")
    return deployment


def states(deployment: Deployment) -> dict[str, BreakerState]:
    now = time.monotonic()
    return {each.model: each.breaker.refresh(now) for each in deployment.candidates()}


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_trip_opens_all_models_until_it_is_taken_back() -> None:
    """It opens the breakers of its models for the time left, also of one that is first called later; None closes them."""
    deployment = made()
    known = deployment.candidate("known")
    known.last_error = ProviderCredentials("Refused.", provider="scripted")
    deployment.trip(later(60))
    deployment.candidate("new")
    assert states(deployment) == {"known": BreakerState.OPEN, "new": BreakerState.OPEN}
    assert all(59 < each.wait(time.monotonic()) <= 60 for each in deployment.candidates())
    assert known.last_error is None, "that is not why it is left alone now"
    deployment.trip(later(10))
    assert all(9 < each.wait(time.monotonic()) <= 10 for each in deployment.candidates()), "the later word counts"
    deployment.trip(None)
    assert not deployment.is_tripped
    assert states(deployment) == {"known": BreakerState.CLOSED, "new": BreakerState.CLOSED}


def test_a_trip_that_is_told_again_changes_nothing() -> None:
    """What the breakers did since then stands."""
    deployment = made()
    until = later(60)
    deployment.trip(until)
    deployment.candidate("known").breaker.reset()
    deployment.trip(until)
    assert states(deployment) == {"known": BreakerState.CLOSED}


def test_the_end_of_a_trip_leaves_the_breakers_to_themselves() -> None:
    """A trip that is over opens nothing; that it is gone does not close a breaker, which has to be probed first."""
    deployment = made()
    deployment.trip(later(0.01))
    deadline = time.monotonic() + 10
    while deployment.is_tripped:
        assert time.monotonic() < deadline
    deployment.trip(None)
    assert states(deployment) == {"known": BreakerState.HALF_OPEN}
    deployment.trip(later(-1))
    deployment.candidate("new")
    assert states(deployment)["new"] is BreakerState.CLOSED
