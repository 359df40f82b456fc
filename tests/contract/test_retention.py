"""Removal of data that was not changed for long, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import delete, func, insert, select, update

from antiphon.database import clock
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.database.tables import conversations, messages, model_usage, tag_usage, trees, usage
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ConversationNotFound
from antiphon.history import retention
from antiphon.history.base import Conversation
from antiphon.history.retention import Retention
from antiphon.history.sql import SqlStore
from antiphon.limits.report import UsageReport

DAYS = 30
DAY = 86_400_000_000
HELLO = [Message(Role.USER, (Text("hello"),))]


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(url)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlStore:
    return SqlStore(database)


async def make(store: SqlStore, count: int = 1, owner: str = "me") -> Conversation:
    return await store.create(owner, title="t", source="", pinned=False, messages=HELLO * count)


async def age(database: Database, *made: Conversation, days: float = DAYS + 1) -> None:
    """Make conversations look unchanged for this many days."""
    old = update(conversations).where(conversations.c.id.in_([each.id for each in made]))
    await database.write(lambda connection: connection.execute(old.values(updated=clock.now() - int(days * DAY))) and None)


async def counts(database: Database) -> list[int]:
    tables = (conversations, trees, messages)
    return [
        await database.read(
            lambda connection, table=table: connection.execute(select(func.count()).select_from(table)).scalar_one()
        )  # type: ignore[misc]
        for table in tables
    ]


async def test_conversations_that_were_not_changed_for_long_are_removed(database: Database, store: SqlStore) -> None:
    """Old conversations are removed with their messages, for all owners; recently changed ones stay."""
    old, other, young, taken_up = [await make(store, 3, owner) for owner in ("me", "you", "me", "me")]
    await age(database, old, other, taken_up)
    await age(database, young, days=DAYS - 1)
    await store.append("me", taken_up.id, HELLO)
    assert await Retention(database, DAYS).prune() == 2
    assert await Retention(database, DAYS).prune() == 0
    assert {each.id for each in (await store.list("me", size=9)).conversations} == {young.id, taken_up.id}
    assert await counts(database) == [2, 2, 7]


async def test_a_fork_keeps_what_it_shares(database: Database, store: SqlStore) -> None:
    """A fork keeps the messages that it shares with a removed conversation, until it is old itself."""
    old = await make(store, 3)
    fork = await store.fork("me", old.id)
    await store.append("me", old.id, HELLO)
    await age(database, old)
    assert await Retention(database, DAYS).prune() == 1
    with pytest.raises(ConversationNotFound):
        await store.get("me", old.id)
    assert len((await store.messages("me", fork.id)).messages) == 3
    await age(database, fork)
    assert await Retention(database, DAYS).prune() == 1
    assert await counts(database) == [0, 0, 0]


async def test_a_part_at_a_time(database: Database, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations are removed in limited portions, the oldest first; a very long one is removed alone."""
    monkeypatch.setattr(retention, "CONVERSATIONS", 3)
    monkeypatch.setattr(retention, "MESSAGES", 10)
    for number, count in enumerate([20, 1, 1, 1, 9, 2]):
        await age(database, await make(store, count), days=100 - number)
    pruner = Retention(database, DAYS)
    assert [await pruner.prune() for _ in range(5)] == [1, 3, 1, 1, 0]


async def test_several_processes_prune_at_once(database: Database, store: SqlStore, url: str) -> None:
    """Several processes prune at once while conversations are in use, and each conversation is removed once."""
    await age(database, *[await make(store, 2) for _ in range(120)])
    alive = await make(store)
    others = [open_database(url) for _ in range(3)]

    async def prune(each: Database) -> int:
        return sum([await Retention(each, DAYS).prune() for _ in range(4)])

    async def talk() -> int:
        for _ in range(20):
            await store.append("me", alive.id, HELLO)
        return 0

    assert sum(await asyncio.gather(*map(prune, others), talk())) == 120
    assert await counts(database) == [1, 1, 21]
    for each in others:
        await each.close()


async def test_usage_of_days_long_ago_is_removed(database: Database) -> None:
    """Old usage is removed one day at a time, the oldest first. The day at the limit stays."""
    today = datetime.now(UTC).date()
    figures = {"requests": 1, "prompt_tokens": 1, "completion_tokens": 1, "cost_nanos": 1, "unpriced": 0}
    rows = [
        {"day": (today - timedelta(days=days)).isoformat(), "owner": owner, "key": "k", **figures}
        for days in (0, 40, 41, 400)
        for owner in ("a", "b")
    ]
    await database.write(lambda connection: connection.execute(insert(usage), rows) and None)
    detailed = [row | {"provider": "p", "model": "m"} for row in rows]
    await database.write(lambda connection: connection.execute(insert(model_usage), detailed) and None)
    tagged = [row | {"tag": "team=search"} for row in rows]
    await database.write(lambda connection: connection.execute(insert(tag_usage), tagged) and None)
    report = UsageReport(database)
    assert [await report.prune(40) for _ in range(3)] == [2, 2, 0]
    assert len((await report.page(today - timedelta(days=500), today, size=9)).uses) == 4
    assert await database.read(lambda connection: len(connection.execute(select(model_usage)).all())) == 4
    assert await database.read(lambda connection: len(connection.execute(select(tag_usage)).all())) == 4
    await database.write(lambda connection: connection.execute(delete(usage)) and None)
    assert await report.prune(40) == 0
