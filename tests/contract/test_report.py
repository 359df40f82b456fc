"""The report of what was used, on SQLite and on a real PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime

import pytest
import pytest_asyncio

from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.domain.errors import InvalidRequest
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.limits.ledger import Ledger
from antiphon.limits.report import DailyUse, UsageReport

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 3)


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    """Three days, two owners, one of them with two keys; and a day before."""
    opened = open_database(url)
    for day in (datetime(2026, 10, 31, tzinfo=UTC), *(datetime(2026, 11, number, 12, tzinfo=UTC) for number in (1, 2, 3))):
        ledger = Ledger(opened, day.timestamp)
        for owner, key in (("acme", "key:1"), ("acme", "key:2"), ("Zoë & co", "key:3")):
            ledger.add(Principal(key, owner=owner, id=key), Usage(10, 5, 15), 0.25)
        ledger.add(Principal("key:1", owner="acme", id="key:1"), Usage(1, 1, 2), None)
        await ledger.write()
    yield opened
    await opened.close()


async def test_it_tells_by_day_and_owner(database: Database) -> None:
    """The newest day first; the keys of an owner are one; the days of the range, and no others."""
    page = await UsageReport(database).page(FIRST, LAST, size=50)
    assert page.next_token == ""
    assert [(use.day.day, use.owner) for use in page.uses if use.owner == "acme"] == [(3, "acme"), (2, "acme"), (1, "acme")]
    assert len(page.uses) == 6
    assert DailyUse(LAST, "acme", 3, 21, 11, 0.5, 1) in page.uses
    assert DailyUse(LAST, "Zoë & co", 1, 10, 5, 0.25, 0) in page.uses


@pytest.mark.parametrize("size", [1, 2, 4, 5])
async def test_pages_are_the_whole(database: Database, size: int) -> None:
    """Each entry once, in order, wherever the pages end."""
    report = UsageReport(database)
    whole = (await report.page(FIRST, LAST, size=50)).uses
    found: list[DailyUse] = []
    token = ""
    while True:
        page = await report.page(FIRST, LAST, size=size, token=token)
        assert len(page.uses) <= size
        found += page.uses
        token = page.next_token
        if not token:
            break
    assert tuple(found) == whole


async def test_of_one_owner(database: Database) -> None:
    """And of nobody else."""
    report = UsageReport(database)
    page = await report.page(FIRST, LAST, size=50, owner="Zoë & co")
    assert {use.owner for use in page.uses} == {"Zoë & co"}
    assert len(page.uses) == 3
    for nobody in ("ACME", "acm", "a%", "a\0b", "' OR 1=1 --"):
        assert (await report.page(FIRST, LAST, size=50, owner=nobody)).uses == ()


async def test_a_token_is_for_the_list_that_gave_it(database: Database) -> None:
    """Other filters, or anything else, are refused."""
    report = UsageReport(database)
    token = (await report.page(FIRST, LAST, size=1)).next_token
    with pytest.raises(InvalidRequest):
        await report.page(FIRST, LAST, size=1, token=token, owner="acme")
    with pytest.raises(InvalidRequest):
        await report.page(date(2026, 10, 1), LAST, size=1, token=token)
    for forged in ("x", "W10", "é", token[:-4]):
        with pytest.raises(InvalidRequest):
            await report.page(FIRST, LAST, size=1, token=forged)
