"""The schema, and how a database is migrated to it."""

import asyncio
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from antiphon.auth.api_keys.store import Grants, KeyStore
from antiphon.auth.audit import REFUSED, AuditLog, CallOrigin, Event
from antiphon.config import ConfigError
from antiphon.database.migrate import SCRIPTS, migrate
from antiphon.database.open import open_database
from antiphon.database.tables import METADATA
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal, Scope
from antiphon.history.base import MessageState, Store, TurnEnd
from antiphon.history.sql import SqlStore
from antiphon.limits.ledger import Ledger

HELLO = [Message(Role.USER, (Text("hello 🎉"),))]

NEXT = '''
"""A migration of a later version: a column with a value for each existing row, and an index."""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("conversations", sa.Column("note", sa.Text, nullable=False, server_default="none"))
    op.execute("UPDATE conversations SET note = title")
    op.create_index("conversations_note", "conversations", ["note"])
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Return the migrations of an imagined later version."""
    scripts = tmp_path / "100% later"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "next.py").write_text(NEXT)
    return scripts


async def in_database(url: str, statement: str) -> list[tuple[object, ...]]:
    database = open_database(url)
    try:
        return await database.read(lambda connection: [tuple(row) for row in connection.execute(text(statement))])
    finally:
        await database.close()


async def test_the_migrations_make_the_tables(store: Store) -> None:
    """The migrations make the tables, columns and indices that the program expects."""
    assert isinstance(store, SqlStore)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    assert await store._database.read(differences) == []


async def test_an_older_database_is_upgraded_without_loss(url: str, later: Path) -> None:
    """An upgrade keeps every conversation, message and turn, and a second migration changes nothing."""
    store = SqlStore(open_database(url))
    made = await store.create("me", title="t", source="s", pinned=True, messages=HELLO * 3)
    fork = await store.fork("me", made.id, title="f")
    turn = await store.begin_turn("me", fork.id, HELLO, request_id="r")
    end = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("hi"),)), usage=Usage(1, 2, 3))
    await store.end_turn("me", turn.reply.id, end)
    await store.begin_turn("me", made.id, HELLO)
    before = [(each, await store.messages("me", each.id)) for each in (await store.list("me", size=9)).conversations]
    await store._database.close()
    await migrate(url, scripts=later)
    await migrate(url, scripts=later)
    store = SqlStore(open_database(url))
    assert [(each, await store.messages("me", each.id)) for each in (await store.list("me", size=9)).conversations] == before
    await store.end_turn("me", (await store.begin_turn("me", made.id, HELLO)).reply.id, end)
    await store.append("me", made.id, HELLO)
    await store._database.close()
    assert sorted(await in_database(url, "SELECT note FROM conversations")) == [("f",), ("t",)]


async def test_a_newer_database_is_refused(url: str, later: Path) -> None:
    """A newer database is refused with advice, and is not changed."""
    await migrate(url, scripts=later)
    with pytest.raises(ConfigError, match="newer version"):
        await migrate(url)
    assert await in_database(url, "SELECT version_num FROM alembic_version") == [("next",)]


def add(scripts: Path, revision: str, before: str, *, additive: bool) -> None:
    """Add a migration that makes a table."""
    text = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, additive = {revision!r}, {before!r}, {additive}


def upgrade() -> None:
    op.create_table("of_{revision}", sa.Column("id", sa.Text, primary_key=True))
"""
    (scripts / "versions" / f"{revision}.py").write_text(text)


async def test_a_newer_database_of_additions_is_gone_on_with(url: str, later: Path) -> None:
    """A newer database with only additive changes is used unchanged, and the newer version reads what was written."""
    script = later / "versions" / "next.py"
    script.write_text(script.read_text().replace("revision =", "additive = True\nrevision =", 1))
    add(later, "after", "next", additive=True)
    await migrate(url, scripts=later)
    with capture_logs() as logged:
        await migrate(url)
    assert [(entry["log_level"], entry["schema"]) for entry in logged] == [("warning", "after")]
    assert await in_database(url, "SELECT version_num FROM alembic_version") == [("after",)]
    database = open_database(url)
    store, keys, ledger, audit = SqlStore(database), KeyStore(database), Ledger(database), AuditLog(database)
    await store.heartbeat()
    made = await store.create("me", title="t", source="s", pinned=True, messages=HELLO)
    fork = await store.fork("me", made.id)
    turn = await store.begin_turn("me", fork.id, HELLO, request_id="r")
    end = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("hi"),)), usage=Usage(1, 2, 3))
    assert await store.end_turn("me", turn.reply.id, end)
    await store.update("me", made.id, title="u")
    key, _ = await keys.create(name="k", owner="", grants=Grants((Scope.CHAT,)), expires=None, origin=CallOrigin("a", "b", "c"))
    ledger.add(Principal("me", "me", f"key:{key.id}"), Usage(1, 2, 3), 1.0)
    await ledger.write()
    audit.refused(Event(REFUSED, "x", "y", "z"))
    await audit.write()
    await store.delete("me", made.id)
    await store.settle()
    await database.close()
    await migrate(url, scripts=later)
    assert await in_database(url, "SELECT title, note FROM conversations") == [("t", "none")]


@pytest.mark.parametrize("steps", [[False], [False, True], [True, False], [True, False, True]])
async def test_one_step_that_is_no_addition_is_enough_to_refuse(url: str, tmp_path: Path, steps: list[bool]) -> None:
    """One new migration that is not additive, in any position, is enough to refuse the database."""
    scripts = tmp_path / "later"
    shutil.copytree(SCRIPTS, scripts)
    for number, additive in enumerate(steps):
        add(scripts, f"n{number}", f"n{number - 1}" if number else "0010", additive=additive)
    await migrate(url, scripts=scripts)
    with pytest.raises(ConfigError, match="newer version"):
        await migrate(url)


async def test_how_far_back_the_schema_can_be_used_is_written_down(url: str) -> None:
    """The oldest compatible version is stored, however the database got its schema."""
    assert await in_database(url, "SELECT oldest FROM compatibility") == [("0004",)]


async def test_a_migration_that_fails_changes_nothing(url: str, later: Path) -> None:
    """A failed migration changes nothing, not even what it did before it failed."""
    script = later / "versions" / "next.py"
    script.write_text(script.read_text() + "    op.execute('SELECT nonsense')\n")
    with pytest.raises(StoreUnavailable):
        await migrate(url, scripts=later)
    assert await in_database(url, "SELECT version_num FROM alembic_version") == [("0010",)]
    with pytest.raises(StoreUnavailable):
        await in_database(url, "SELECT note FROM conversations")


async def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    """Of several processes that migrate a new database at once, one does it, and the others find it done."""
    code = f"import asyncio; from antiphon.database.migrate import migrate; asyncio.run(migrate({empty_url!r}))"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    await asyncio.gather(*(migrate(empty_url) for _ in range(4)))
    assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0, 0, 0]
    assert await in_database(empty_url, "SELECT version_num FROM alembic_version") == [("0010",)]


async def test_a_sqlite_file_is_its_owners_alone(sqlite_url: str, tmp_path: Path) -> None:
    """Only its owner can read a SQLite file, the files beside it, and the folder that `migrate` makes."""
    path = tmp_path / "deep" / "er" / "history.db"
    await migrate(f"sqlite:///{path}")
    store = SqlStore(open_database(f"sqlite:///{path}"))
    await store.create("me", title="", source="", pinned=False, messages=HELLO)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await store._database.close()
    assert modes == dict.fromkeys(["history.db", "history.db-wal", "history.db-shm"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "bad", ["", "x", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "sqlite:///", "postgresql+asyncpg://h/d"]
)
async def test_an_invalid_url_is_refused(bad: str) -> None:
    """An invalid URL is refused with the name of the setting."""
    with pytest.raises(ConfigError, match=r"database\.url"):
        SqlStore(open_database(bad))
    with pytest.raises(ConfigError, match=r"database\.url"):
        await migrate(bad)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is not a SQLite database is refused with a clear message, and is not changed."""
    file = tmp_path / "notes.txt"
    file.write_bytes(b"something else" * 1000)
    with pytest.raises(ConfigError, match=r"database\.url: the file .*notes\.txt is not a SQLite database"):
        await migrate(f"sqlite:///{file}")
    assert file.read_bytes() == b"something else" * 1000


async def test_an_unreachable_server_is_unavailable(unused_tcp_port: int) -> None:
    """An unreachable server raises `StoreUnavailable`."""
    with pytest.raises(StoreUnavailable):
        await migrate(f"postgresql://u:p@127.0.0.1:{unused_tcp_port}/d", timeout=1)
