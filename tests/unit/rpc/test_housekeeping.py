"""Tests of the tasks that a process does every few seconds, with a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from antiphon.auth.api_keys.store import KeyStore
from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.database.base import Database
from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.domain.errors import StoreUnavailable
from antiphon.rpc.housekeeping import Housekeeper
from tests.unit.memory_store import MemoryStore


class FailingStore(MemoryStore):
    """A store whose first heartbeat fails, and which sets `alive` at the next one."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self._failures = [failure]
        self.alive = asyncio.Event()

    async def heartbeat(self) -> None:
        if self._failures:
            raise self._failures.pop()
        self.alive.set()


class AbandonedStore(MemoryStore):
    """A store with two turns of a process that is gone."""

    async def settle(self) -> int:
        return 2


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database, None]:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    await asyncio.to_thread(asyncio.run, migrate(url))
    opened = open_database(url)
    yield opened
    await opened.close()


def housekeeper(database: Database, store: MemoryStore, audit: AuditLog | None = None) -> Housekeeper:
    return Housekeeper(store, StoredKeys(KeyStore(database)), audit or AuditLog(database), [])


async def test_waiting_audit_events_are_written(database: Database) -> None:
    """A refused call is in the audit log after one round, and abandoned turns are settled and logged."""
    audit = AuditLog(database)
    audit.refused(Event(REFUSED, "key:1", "ChatService/Generate", "PERMISSION_DENIED"))
    with capture_logs() as logged:
        await housekeeper(database, AbandonedStore(), audit).round()
    (found,) = (await audit.list(size=10)).events
    assert found.event.actor == "key:1"
    assert [(entry["event"], entry["count"]) for entry in logged] == [("turns of a process that is gone were settled", 2)]


@pytest.mark.parametrize(
    ("failure", "events"), [(StoreUnavailable(), []), (RuntimeError("a fault"), ["house not kept"])], ids=["expected", "a fault"]
)
async def test_a_failure_ends_nothing(database: Database, failure: Exception, events: list[str]) -> None:
    """A failed round does not end the housekeeping.

    Only an unexpected error is logged here, because the store has logged others.
    """
    store = FailingStore(failure)
    with capture_logs() as logged:
        keeping = asyncio.create_task(housekeeper(database, store).run(interval=0))
        async with asyncio.timeout(20):
            await store.alive.wait()
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    assert [entry["event"] for entry in logged] == events


async def test_failed_pruning_does_not_stop_heartbeats(database: Database) -> None:
    """The heartbeat comes first in a round, and pruning that failed is not tried again at once."""

    class FailingAudit(AuditLog):
        tries = 0

        async def prune(self, days: int = 1) -> None:
            self.tries += 1
            raise StoreUnavailable

    class LivingStore(MemoryStore):
        signs = 0

        async def heartbeat(self) -> None:
            self.signs += 1

    audit, store = FailingAudit(database), LivingStore()
    house = housekeeper(database, store, audit)
    with pytest.raises(StoreUnavailable):
        await house.round()
    await house.round()
    assert (store.signs, audit.tries) == (2, 1)


async def test_what_is_kept_for_long_enough_is_removed_in_parts(database: Database) -> None:
    """Old data is removed in parts, one in each round, until none is left; then not again for an hour."""
    parts = [50, 7, 0, 9]
    house = Housekeeper(
        MemoryStore(),
        StoredKeys(KeyStore(database)),
        AuditLog(database),
        [],
        {"usage": partial(asyncio.sleep, 0, 0), "x": take(parts)},
    )
    with capture_logs() as logged:
        for _ in range(5):
            await house.round()
    assert parts == [9]
    assert [(entry["what"], entry["count"]) for entry in logged] == [("x", 50), ("x", 7)]


def take(parts: list[int]) -> Callable[[], Awaitable[int]]:
    async def one() -> int:
        return parts.pop(0)

    return one
