"""The database behind a pooler in transaction mode, where callers share connections for one transaction at a time."""

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import Connection, text

from antiphon.database.base import Database
from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.domain.errors import StoreUnavailable
from antiphon.history.sql import SqlStore
from tests.pgbouncer import PgBouncer

SETTINGS = ("statement_timeout", "idle_in_transaction_session_timeout", "enable_seqscan", "jit")


@pytest_asyncio.fixture
async def pooled(pooled_url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(pooled_url, 2.0, pooler=True, statement_cache=False)
    yield opened
    await opened.close()


def settings(connection: Connection) -> list[str]:
    return [str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in SETTINGS]


async def test_each_transaction_has_its_settings_and_leaves_none(pooled: Database, pooled_url: str) -> None:
    """Settings apply to one transaction only; the next user of the connection does not have them."""
    assert await pooled.read(settings) == await pooled.write(settings) == ["2s", "2s", "off", "off"]
    other = await asyncpg.connect(pooled_url, statement_cache_size=0)
    try:
        assert [await other.fetchval(f"SHOW {name}") for name in SETTINGS] == ["0", "0", "on", "on"]
        assert await other.fetch("SELECT name FROM pg_prepared_statements") == []
    finally:
        await other.close()


async def test_many_more_callers_than_connections_to_the_server(pooled_url: str) -> None:
    """Two processes with ten connections each work over three connections to the server."""
    both = [open_database(pooled_url, pooler=True, statement_cache=False) for _ in range(2)]
    stores = [SqlStore(database) for database in both]
    made = await asyncio.gather(
        *(
            store.create(f"owner {number}", title="t", source="", pinned=False, messages=[])
            for number in range(40)
            for store in stores
        )
    )
    found = await asyncio.gather(*(store.list(f"owner {number}", size=9) for number in range(40) for store in stores))
    assert len(made) == 80
    assert [len(page.conversations) for page in found] == [2] * 80
    for database in both:
        await database.close()


async def test_without_the_setting_a_pooler_refuses_the_connection(pooled_url: str) -> None:
    """Without `database.pooler` the pooler refuses the startup parameters, which raises `StoreUnavailable`."""
    opened = open_database(pooled_url)
    with pytest.raises(StoreUnavailable):
        await opened.read(settings)
    await opened.close()


async def test_a_database_is_migrated_through_a_pooler(pgbouncer: PgBouncer, empty_postgres_url: str) -> None:
    """Several processes may migrate at once through a pooler."""
    url = pgbouncer.url_of(empty_postgres_url)
    await asyncio.gather(*(migrate(url, pooler=True) for _ in range(3)))
    opened = open_database(url, pooler=True, statement_cache=False)
    store = SqlStore(opened)
    await store.create("me", title="t", source="", pinned=False, messages=[])
    assert len((await store.list("me", size=9)).conversations) == 1
    await opened.close()


async def test_the_work_goes_on_when_the_pooler_is_started_again(pooled: Database, pgbouncer: PgBouncer) -> None:
    """After a restart of the pooler its dead connections are not used again."""
    assert await pooled.read(settings)
    pgbouncer.kill()
    with pytest.raises(StoreUnavailable):
        await pooled.read(settings)
    pgbouncer.start()
    assert await pooled.read(settings)


@pytest.mark.parametrize("cached", [True, False])
async def test_settings_go_with_transactions_where_statements_are_kept_too(fresh_postgres_url: str, *, cached: bool) -> None:
    """Settings per transaction and cached statements are independent, as some poolers support prepared statements."""
    opened = open_database(fresh_postgres_url, 2.0, connections=1, pooler=True, statement_cache=cached)
    assert await opened.read(settings) == ["2s", "2s", "off", "off"]
    assert await opened.read(settings) == ["2s", "2s", "off", "off"]
    names = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
    statements = await opened.read(lambda connection: connection.execute(names).scalar_one())
    assert (statements > 0) is cached
    await opened.close()


async def test_no_more_connections_than_configured(fresh_postgres_url: str) -> None:
    """No more connections are opened than configured. Other callers wait until the time-out."""
    opened = open_database(fresh_postgres_url, connections=2)
    count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'antiphon'")

    def work(connection: Connection) -> int:
        connection.execute(text("SELECT pg_sleep(0.05)"))
        return int(connection.execute(count).scalar_one())

    found = await asyncio.gather(*(opened.read(work) for _ in range(8)))
    assert max(found) <= 2
    await opened.close()
