"""Deployments that an admin takes out of use or trips, on SQLite and on PostgreSQL."""

import time
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest
import pytest_asyncio

from antiphon.auth.audit import AuditLog, CallOrigin
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.domain.errors import ProviderNotFound
from antiphon.routing.breaker import BreakerState
from antiphon.routing.candidate import Candidate
from antiphon.routing.drains import Drains
from antiphon.routing.router import Router
from tests.unit.scripted import ScriptedProvider
from tests.waiting import until

BOSS = CallOrigin("static:boss", "request-1", "203.0.113.9")
NAME = ScriptedProvider.name


class Worker:
    """What one worker knows of its only deployment."""

    def __init__(self, database: Database) -> None:
        router = Router([(ScriptedProvider(), ["one"])])
        self.drains = Drains(database, router)
        (self.deployment,) = router.deployments()

    @property
    def one(self) -> Candidate:
        return self.deployment.candidate("one")

    @property
    def state(self) -> BreakerState:
        return self.one.breaker.refresh(time.monotonic())


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(url)
    yield opened
    await opened.close()


async def actions(database: Database) -> list[tuple[str, str, str]]:
    """Return action, target and actor of what the audit log has, the oldest first."""
    events = (await AuditLog(database).list(size=50)).events
    return [(found.event.action, found.event.target, found.event.actor) for found in reversed(events)]


async def test_a_trip_is_in_force_everywhere_until_it_is_restored(database: Database) -> None:
    """Every worker opens the breaker for the time left, once, also one that starts later; a restore closes it on all of them."""
    here, there = Worker(database), Worker(database)
    await here.drains.trip(NAME, timedelta(seconds=60), BOSS)
    await there.drains.refresh()
    late = Worker(database)
    await late.drains.refresh()
    for worker in (here, there, late):
        assert 55 < worker.one.wait(time.monotonic()) <= 60
        assert not worker.deployment.drained
        epoch = worker.one.breaker.epoch
        await worker.drains.refresh()
        assert worker.one.breaker.epoch == epoch, "it is opened once"
    await there.drains.restore(NAME, BOSS)
    for worker in (here, there, late):
        await worker.drains.refresh()
        assert worker.state is BreakerState.CLOSED
    assert await actions(database) == [
        ("deployments.trip", NAME, "static:boss"),
        ("deployments.restore", NAME, "static:boss"),
    ]


async def test_a_trip_that_is_over_is_left_to_the_breaker(database: Database) -> None:
    """After its time the breaker is half-open, and what it does then stands; a worker that starts later is not concerned."""
    worker = Worker(database)
    await worker.drains.trip(NAME, timedelta(milliseconds=100), BOSS)
    await until(lambda: worker.state is BreakerState.HALF_OPEN)
    await worker.drains.refresh()
    assert worker.state is BreakerState.HALF_OPEN
    now = time.monotonic()
    worker.one.breaker.fail(now, worker.one.breaker.begin(now))
    await worker.drains.refresh()
    assert worker.state is BreakerState.OPEN
    late = Worker(database)
    await until(lambda: not worker.deployment.is_tripped)
    await late.drains.refresh()
    assert late.state is BreakerState.CLOSED


async def test_a_later_trip_replaces_the_one_before(database: Database) -> None:
    """Also a longer one: what the admin said last counts."""
    here, there = Worker(database), Worker(database)
    for seconds in (60, 10, 30):
        await here.drains.trip(NAME, timedelta(seconds=seconds), BOSS)
        await there.drains.refresh()
        for worker in (here, there):
            assert seconds - 5 < worker.one.wait(time.monotonic()) <= seconds


async def test_a_drain_outlives_a_trip(database: Database) -> None:
    """A deployment may be out of use and tripped; a restore ends both."""
    worker = Worker(database)
    await worker.drains.drain(NAME, None, BOSS)
    await worker.drains.trip(NAME, timedelta(milliseconds=10), BOSS)
    await until(lambda: not worker.deployment.is_tripped)
    await worker.drains.refresh()
    assert worker.deployment.drained
    await worker.drains.trip(NAME, timedelta(seconds=60), BOSS)
    await worker.drains.restore(NAME, BOSS)
    assert not worker.deployment.drained
    assert worker.state is BreakerState.CLOSED
    await worker.drains.drain(NAME, timedelta(milliseconds=10), BOSS)
    assert await actions(database) == [
        (f"deployments.{action}", NAME, "static:boss") for action in ("drain", "trip", "trip", "restore", "drain")
    ]


@pytest.mark.parametrize("action", ["drain", "trip"])
async def test_what_does_not_exist_cannot_be_taken_out_of_use(database: Database, action: str) -> None:
    """Neither drained nor tripped; nothing is recorded."""
    drains = Worker(database).drains
    with pytest.raises(ProviderNotFound):
        await getattr(drains, action)("nobody", timedelta(seconds=1), BOSS)
    assert await actions(database) == []
