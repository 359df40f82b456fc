"""Tests of the wait for the database at a server's start."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from structlog.testing import capture_logs

from antiphon.database import contact
from antiphon.database.contact import SCHEMA, first_contact
from antiphon.database.migrate import SCRIPTS, migrate
from antiphon.database.open import open_database
from tests.waiting import until


@asynccontextmanager
async def waiting(url: str) -> AsyncIterator[asyncio.Task[None]]:
    """Run `first_contact` with the database at `url` as a task, and cancel it at the end."""
    database = open_database(url)
    task = asyncio.create_task(first_contact(database))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await database.close()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "PAUSE", 0.01)


async def test_a_database_without_tables_is_waited_for(tmp_path: Path) -> None:
    """The server waits until the tables exist, and logs the reason once, however often it tries."""
    url = f"sqlite:///{tmp_path}/a.db"
    with capture_logs() as logs:
        async with waiting(url) as task:
            await until(lambda: len([entry for entry in logs if entry["event"] == "store_unavailable"]) > 3)
            assert not task.done()
            await migrate(url)
            await until(task.done)
    (line,) = [entry for entry in logs if entry["event"].startswith("not ready")]
    assert "antiphon migrate" in line["reason"]


async def test_an_older_schema_is_waited_for_and_a_newer_one_is_taken_that_only_adds(tmp_path: Path) -> None:
    """The server waits while the schema is too old, or new and not compatible.

    It accepts a newer schema that says it is compatible.
    """
    url = f"sqlite:///{tmp_path}/a.db"
    await migrate(url)

    def set_to(revision: str, oldest: str) -> None:
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            connection.execute("UPDATE compatibility SET oldest = ?", (oldest,))
        connection.close()

    set_to("0003", "0003")
    with capture_logs() as logs:
        async with waiting(url) as task:
            await until(lambda: logs)
            assert f"its schema is 0003, and {SCHEMA} is needed" in logs[0]["reason"]
            assert not task.done()
            set_to("9999", "9998")
            await until(lambda: len(logs) > 1)
            assert "its schema is 9999, of a newer version" in logs[1]["reason"]
            assert not task.done()
            set_to("9999", SCHEMA)
            await until(task.done)


def test_the_schema_is_that_of_the_newest_migration() -> None:
    """SCHEMA is the newest migration, so that a new migration has to decide whether servers need it."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
