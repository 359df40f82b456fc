"""The commands for backup and restore in docs/guide/data.md, run unchanged."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from antiphon.auth.api_keys.store import Grants, KeyStore
from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import AuditLog, CallOrigin
from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.database.tables import workers
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.principal import Scope
from antiphon.history.base import MessageState, StoredMessage
from antiphon.history.sql import SqlStore
from tests.postgres import BINARIES

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "data.md"


def commands(section: str) -> list[str]:
    """Return the shell commands of a section: those for a backup, and those for a restore."""
    text = PAGE.read_text(encoding="utf-8").split(f"### {section}\n", 1)[1].split("\n#", 1)[0]
    found = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 2
    return found


async def run(script: str, folder: Path, **environment: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), str(BINARIES), os.environ["PATH"]])
    command = ["bash", "-euc", script]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env={"PATH": path, **environment}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def texts(stored: tuple[StoredMessage, ...]) -> list[str]:
    return ["".join(part.text for part in each.message.blocks if isinstance(part, Text)) for each in stored]


class SavedData:
    """The data in the database before the backup, and the check of it after the restore."""

    async def fill(self, url: str) -> None:
        database = open_database(url)
        store = SqlStore(database)
        self.made = await store.create(
            "me", title="Ünï", source="s", pinned=True, messages=user_messages("one", "🎉 two", "x" * 100_000)
        )
        self.fork = await store.fork("me", self.made.id)
        self.turn = await store.begin_turn("me", self.made.id, user_messages("in progress"))
        keys = KeyStore(database)
        _, secret = await keys.create(
            name="k", owner="me", grants=Grants((Scope.CHAT,)), expires=None, origin=CallOrigin("a", "b", "c")
        )
        self.secret = secret.get_secret_value()
        await database.close()

    async def lose(self, url: str) -> None:
        """Change the database after the backup; these changes must not appear in the restored one."""
        database = open_database(url)
        store = SqlStore(database)
        await store.delete("me", self.made.id)
        await store.append("me", self.fork.id, user_messages("later"))
        await database.close()

    async def check(self, url: str) -> None:
        await migrate(url)
        database = open_database(url)
        store = SqlStore(database)
        # The worker that began the turn is gone. In this test it is this process, so its heartbeat is made old.
        await database.write(lambda connection: connection.execute(update(workers).values(seen=0)) and None)
        assert await store.settle() == 1
        (reply,) = (each for each in (await store.messages("me", self.made.id)).messages if each.id == self.turn.reply.id)
        assert reply.state is MessageState.FAILED
        assert texts((await store.messages("me", self.fork.id)).messages) == ["one", "🎉 two", "x" * 100_000]
        assert len((await store.list("me", size=9)).conversations) == 2
        found = await StoredKeys(KeyStore(database)).authenticate(self.secret)
        assert found is not None
        assert found.owner == "me"
        assert [stored.event.action for stored in (await AuditLog(database).list(size=9)).events] == ["keys.create"]
        await store.append("me", self.made.id, user_messages("goes on"))
        await database.close()


def user_messages(*words: str) -> list[Message]:
    return [Message(Role.USER, (Text(word),)) for word in words]


async def test_a_backup_of_sqlite_is_made_while_it_is_written_and_restored(sqlite_url: str, tmp_path: Path) -> None:
    """A backup of SQLite made during writes is consistent and private, and its restore replaces the database."""
    backup, restore = commands("SQLite")
    saved, folder = SavedData(), tmp_path / "data"
    folder.mkdir()
    shutil.copy(tmp_path / "history.db", folder / "antiphon.db")
    url = f"sqlite:///{folder / 'antiphon.db'}"
    await saved.fill(url)
    database = open_database(url)
    store = SqlStore(database)
    busy = await store.create("busy", title="", source="", pinned=False, messages=[])
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await store.append("busy", busy.id, user_messages("a", "b"))

    writing = asyncio.create_task(write())
    await run(backup, folder)
    stop.set()
    await writing
    await database.close()
    assert (folder / "backup.db").stat().st_mode & 0o777 == 0o600
    await saved.lose(url)
    await run(restore, folder)
    await saved.check(url)
    database = open_database(url)
    whole = await SqlStore(database).messages("busy", busy.id)
    assert len(whole.messages) % 2 == 0
    await database.close()


async def test_a_backup_of_postgresql_is_made_and_restored(
    fresh_postgres_url: str, empty_postgres_url: str, tmp_path: Path
) -> None:
    """A backup of PostgreSQL is restored completely into another database, including the unique indices."""
    if not fresh_postgres_url.split("@")[1].startswith("127.0.0.1"):
        pytest.skip("the PostgreSQL tools match only the tests' own server")
    backup, restore = commands("PostgreSQL")
    saved = SavedData()
    await saved.fill(fresh_postgres_url)
    await run(backup, tmp_path, DATABASE_URL=fresh_postgres_url)
    assert (tmp_path / "antiphon.dump").stat().st_mode & 0o777 == 0o600
    await saved.lose(fresh_postgres_url)
    await run(restore, tmp_path, NEW_DATABASE_URL=empty_postgres_url)
    await saved.check(empty_postgres_url)
