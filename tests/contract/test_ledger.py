"""The ledger, on SQLite and on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.database.tables import tag_usage
from antiphon.database.tables import usage as table
from antiphon.domain.call import Call, FailedUse
from antiphon.domain.errors import StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.limits.base import NANOS
from antiphon.limits.ledger import OTHER, TAGS, Ledger
from antiphon.limits.report import Dimension, UsageReport

ANN = Principal("ann", owner="acme", id="key:ann")
BEN = Principal("ben", owner="acme", id="key:ben")
EVE = Principal("eve", owner="other", id="key:eve")


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.set(2026, 11, 25, 12)

    def set(self, *when: int) -> None:
        self.now = datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(url)
    yield opened
    await opened.close()


def spent(ledger: Ledger, name: str) -> tuple[float, float]:
    """Return what was spent today and this month, in USD."""
    today, month = ledger.periods()
    return ledger.spent(name, today) / NANOS, ledger.spent(name, month) / NANOS


async def written(database: Database) -> list[Any]:
    """Return the ledger's rows in order.

    The columns are day, owner, key, requests, prompt tokens, completion tokens, nano-dollars and unpriced requests.
    """
    query = select(
        table.c.day,
        table.c.owner,
        table.c.key,
        table.c.requests,
        table.c.prompt_tokens,
        table.c.completion_tokens,
        table.c.cost_nanos,
        table.c.unpriced,
    ).order_by(table.c.day, table.c.owner, table.c.key)
    return [tuple(row) for row in await database.read(lambda connection: connection.execute(query).all())]


async def test_what_failed_attempts_used_is_booked_to_their_models(database: Database, clock: Clock) -> None:
    """Each model has its own tokens and cost, and the call is one request, of the model that answered."""
    ledger = Ledger(database, clock)
    failed = FailedUse("p", "dear", "p/east", Usage(10, 0, 10), 0.5)
    unknown = FailedUse("p", "unknown", "p/east", Usage(7, 0, 7))
    call = Call(caller=ANN, provider="p", model="cheap", usage=Usage(1, 2, 3), cost_usd=0.25, failed_uses=(failed, unknown))
    assert call.total_usage == Usage(18, 2, 20)
    assert call.total_cost_usd == 0.75
    ledger.settled(call)
    assert spent(ledger, "key:key:ann") == (0.75, 0.75)
    await ledger.write()
    assert await written(database) == [("2026-11-25", "acme", "key:ann", 1, 18, 2, 750_000_000, 0)]
    day = date(2026, 11, 25)
    page = await UsageReport(database).page(day, day, size=10, by={Dimension.MODEL})
    assert [(use.model, use.requests, use.prompt_tokens, use.completion_tokens, use.cost_usd) for use in page.uses] == [
        ("cheap", 1, 1, 2, 0.25),
        ("dear", 0, 10, 0, 0.5),
        ("unknown", 0, 7, 0, 0),
    ]


async def test_what_was_used_is_there_after_a_restart(database: Database, clock: Clock) -> None:
    """Usage by day and key survives a restart, and is summed by owner and overall."""
    ledger = Ledger(database, clock)
    for principal, cost in ((ANN, 0.25), (ANN, 0.5), (BEN, 1.0), (EVE, 2.0)):
        ledger.add(principal, Usage(10, 5, 15), cost)
    ledger.add(ANN, Usage(1, 1, 2), None)
    ledger.add(BEN, None, None)
    assert spent(ledger, "owner:acme") == (1.75, 1.75)
    await ledger.write()
    again = Ledger(database, clock)
    await again.read()
    for known in (ledger, again):
        assert spent(known, "key:key:ann") == (0.75, 0.75)
        assert spent(known, "owner:acme") == (1.75, 1.75)
        assert spent(known, "overall") == (3.75, 3.75)
    assert await written(database) == [
        ("2026-11-25", "acme", "key:ann", 3, 21, 11, 750_000_000, 1),
        ("2026-11-25", "acme", "key:ben", 2, 10, 5, NANOS, 0),
        ("2026-11-25", "other", "key:eve", 1, 10, 5, 2 * NANOS, 0),
    ]


async def test_two_servers_add_up(database: Database, clock: Clock) -> None:
    """Two servers' spending adds up: each knows what the other has written and its own unwritten usage."""
    one, two = Ledger(database, clock), Ledger(database, clock)
    assert spent(two, "overall") == (0, 0)  # asking for spending makes it read the budgets
    for _ in range(3):
        one.add(ANN, Usage(1, 1, 2), 1.0)
        two.add(ANN, Usage(1, 1, 2), 1.0)
        await asyncio.gather(one.write(), two.write())
    one.add(BEN, Usage(1, 1, 2), 1.0)
    await one.write()
    two.add(EVE, Usage(1, 1, 2), 0.5)
    await two.read()
    assert spent(two, "owner:acme") == (7, 7)
    assert spent(two, "overall") == (7.5, 7.5)


async def test_what_comes_while_it_writes_is_counted_once(database: Database, clock: Clock) -> None:
    """Usage added before, during or after a write is counted once."""
    ledger = Ledger(database, clock)
    assert spent(ledger, "overall") == (0, 0)
    for _ in range(20):
        ledger.add(ANN, Usage(1, 1, 2), 0.5)
        writing = asyncio.create_task(ledger.write())
        await asyncio.sleep(0)
        ledger.add(ANN, Usage(1, 1, 2), 0.5)
        await writing
    assert spent(ledger, "overall") == (20, 20)
    await ledger.write()
    again = Ledger(database, clock)
    await again.read()
    assert spent(again, "overall") == (20, 20)


async def test_days_and_months_end_at_midnight_utc(database: Database, clock: Clock) -> None:
    """Days and months end at midnight UTC."""
    ledger = Ledger(database, clock)
    clock.set(2026, 11, 30, 23, 59, 59)
    ledger.add(ANN, Usage(1, 1, 2), 1.0)
    clock.set(2026, 12, 1)
    assert spent(ledger, "overall") == (0, 0)
    ledger.add(ANN, Usage(1, 1, 2), 2.0)
    clock.set(2026, 12, 2)
    ledger.add(ANN, Usage(1, 1, 2), 4.0)
    assert spent(ledger, "overall") == (4, 6)
    await ledger.write()
    again = Ledger(database, clock)
    await again.read()
    assert spent(again, "overall") == (4, 6)
    days = [(row[0], row[6] / NANOS) for row in await written(database)]
    assert days == [("2026-11-30", 1), ("2026-12-01", 2), ("2026-12-02", 4)]


async def test_without_budgets_nothing_is_read(database: Database, clock: Clock) -> None:
    """Without budgets nothing is read, and without usage nothing is written."""
    ledger = Ledger(database, clock)
    calls = []
    read, write = database.read, database.write
    database.read = lambda work: calls.append("read") or read(work)  # type: ignore[method-assign,func-returns-value]
    database.write = lambda work: calls.append("write") or write(work)  # type: ignore[method-assign,func-returns-value]
    await ledger.write()
    ledger.add(ANN, None, None)
    await ledger.write()
    await ledger.write()
    assert calls == ["write"]
    ledger.spent("overall", ledger.periods()[0])
    await ledger.write()
    assert calls == ["write", "read"]


async def test_a_database_that_is_out_of_reach_loses_nothing(database: Database, clock: Clock) -> None:
    """Usage that could not be written is written later, together with newer usage."""
    ledger = Ledger(database, clock)
    assert spent(ledger, "overall") == (0, 0)
    write = database.write

    async def fails(work: object) -> None:
        raise StoreUnavailable

    database.write = fails  # type: ignore[method-assign,assignment]
    ledger.add(ANN, Usage(1, 2, 3), 1.0)
    with pytest.raises(StoreUnavailable):
        await ledger.write()
    ledger.add(ANN, Usage(1, 2, 3), 1.0)
    assert spent(ledger, "overall") == (2, 2)
    database.write = write  # type: ignore[method-assign]
    await ledger.write()
    assert spent(ledger, "overall") == (2, 2)
    assert await written(database) == [("2026-11-25", "acme", "key:ann", 2, 2, 4, 2 * NANOS, 0)]


async def test_names_that_a_database_cannot_hold_stop_nothing(database: Database, clock: Clock) -> None:
    """Names that a database cannot store, which may come from tokens, do not stop a write."""
    ledger = Ledger(database, clock)
    ledger.add(Principal("x", owner="a\0b", id="jwt:\ud800"), None, None)
    ledger.add(ANN, None, None)
    await ledger.write()
    assert {row[1] for row in await written(database)} == {"a�b", "acme"}


async def by_tag(database: Database) -> dict[tuple[str, str], tuple[int, int, int, int, int]]:
    """Return the counts by key and tag."""
    rows = await database.read(lambda connection: connection.execute(select(tag_usage)).all())
    return {
        (row.key, row.tag): (row.requests, row.prompt_tokens, row.completion_tokens, row.cost_nanos, row.unpriced) for row in rows
    }


async def test_usage_is_counted_by_tag(database: Database, clock: Clock) -> None:
    """A call counts for each of its tags. Tag usage that could not be written is written later."""
    ledger = Ledger(database, clock)
    for _ in range(2):
        ledger.add(ANN, Usage(10, 5, 15), 0.25, tags={"team": "search", "feature": "x"})
        await ledger.write()
    ledger.add(ANN, Usage(1, 1, 2), None, tags={"team": "search"})
    ledger.add(BEN, None, None, tags={"team": "ads"})
    ledger.add(BEN, Usage(1, 1, 2), 1.0)
    write = database.write

    async def fails(work: object) -> None:
        raise StoreUnavailable

    database.write = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        await ledger.write()
    database.write = write  # type: ignore[method-assign]
    await ledger.write()
    assert await by_tag(database) == {
        ("key:ann", "team=search"): (3, 21, 11, NANOS // 2, 1),
        ("key:ann", "feature=x"): (2, 20, 10, NANOS // 2, 0),
        ("key:ben", "team=ads"): (1, 0, 0, 0, 0),
    }
    assert [row[3] for row in await written(database)] == [3, 2]


async def test_a_caller_fills_the_ledger_with_no_more_than_so_many_tags(database: Database, clock: Clock) -> None:
    """Beyond a maximum of tags per key and day, calls are counted under one tag for all others."""
    ledger = Ledger(database, clock)
    for number in range(TAGS + 50):
        ledger.add(ANN, Usage(1, 1, 2), 0.0, tags={"job": str(number), "other": str(number)})
    ledger.add(ANN, Usage(1, 1, 2), 0.0, tags={"job": "0"})
    await ledger.write()
    found = await by_tag(database)
    assert len(found) == TAGS + 1
    assert found["key:ann", OTHER][0] == 100, "the calls that were counted under no tag of their own"
    assert found["key:ann", "job=0"][0] == 2
