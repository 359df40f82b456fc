"""A database that hangs, stops, is locked or full: clear errors in time, nothing lost, and no restart needed afterwards."""

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import Connection, Engine, event, insert, make_url, select, text
from sqlalchemy.exc import IntegrityError

from antiphon.database import sqlite
from antiphon.database.open import open_database
from antiphon.database.prepared import PreparedStatement, together
from antiphon.database.sqlite import SqliteDatabase
from antiphon.database.tables import trees
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import StoreUnavailable
from antiphon.history.base import MessageState, Store, StoredMessage, Turn, TurnEnd
from antiphon.history.sql import SqlStore
from tests.postgres import Postgres

ME = "me"
TIMEOUT = 1.0
HELLO = [Message(Role.USER, (Text("hello"),))]
DONE = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("done"),)))

needs_own_server = pytest.mark.skipif("ANTIPHON_TEST_POSTGRES_URL" in os.environ, reason="the tests must not stop this server")


@pytest_asyncio.fixture
async def lite(sqlite_url: str) -> AsyncGenerator[SqlStore, None]:
    opened = SqlStore(open_database(sqlite_url, TIMEOUT))
    yield opened
    await opened._database.close()


@pytest_asyncio.fixture
async def pg(fresh_postgres_url: str) -> AsyncGenerator[SqlStore, None]:
    opened = SqlStore(open_database(fresh_postgres_url, TIMEOUT))
    yield opened
    await opened._database.close()


async def new(store: Store, messages: list[Message] | None = None) -> str:
    return (await store.create(ME, title="", source="", pinned=False, messages=messages or [])).id


async def ids(store: Store, conversation: str) -> list[str]:
    return [stored.id for stored in (await store.messages(ME, conversation)).messages]


async def every_call_fails(store: Store, conversation: str, reply: str, at_once: int = 1) -> None:
    """Check that each kind of call, several at once, raises `StoreUnavailable` in time."""
    began = time.monotonic()
    calls: list[Any] = []
    for _ in range(at_once):
        calls += [
            new(store, HELLO),
            store.get(ME, conversation),
            store.list(ME, size=1),
            store.update(ME, conversation, title="x"),
            store.fork(ME, conversation),
            store.messages(ME, conversation),
            store.append(ME, conversation, HELLO),
            store.begin_turn(ME, conversation, HELLO),
            store.end_turn(ME, reply, DONE),
            store.settle(),
            store.heartbeat(),
            store.delete(ME, conversation),
        ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    # begin_turn may have to renew the heartbeat first.
    assert time.monotonic() - began < 3 * TIMEOUT


@needs_own_server
async def test_a_server_that_hangs(pg: SqlStore, postgres: Postgres) -> None:
    """Calls to a hanging server fail in time, later ones work, and none of the failed calls has begun a turn."""
    conversation = await new(pg, HELLO)
    turn = await pg.begin_turn(ME, conversation, HELLO)
    postgres.pause()
    try:
        await every_call_fails(pg, conversation, turn.reply.id, at_once=4)
        await every_call_fails(pg, conversation, turn.reply.id)
    finally:
        postgres.resume()
    assert await ids(pg, conversation) == [*(stored.id for stored in turn.path), turn.reply.id]
    await pg.end_turn(ME, turn.reply.id, DONE)
    assert await pg.settle() == 0


@needs_own_server
async def test_a_server_that_is_restarted(pg: SqlStore, postgres: Postgres) -> None:
    """Calls fail while the server is down. Afterwards the next ones work, many at once, despite dead connections."""
    conversation = await new(pg, HELLO)
    turn = await pg.begin_turn(ME, conversation, HELLO)
    await asyncio.gather(*(pg.append(ME, conversation, HELLO) for _ in range(20)))
    postgres.stop()
    try:
        await every_call_fails(pg, conversation, turn.reply.id)
    finally:
        postgres.start()
    await asyncio.gather(*(pg.append(ME, conversation, HELLO) for _ in range(20)))
    postgres.restart()
    await asyncio.gather(*(pg.append(ME, conversation, HELLO) for _ in range(20)))
    await pg.end_turn(ME, turn.reply.id, DONE)
    assert len(await ids(pg, conversation)) == 63


@needs_own_server
async def test_a_server_that_is_killed(pg: SqlStore, postgres: Postgres) -> None:
    """After kills under load every confirmed turn is stored, and none twice."""
    conversation = await new(pg)
    confirmed: list[str] = []

    async def write(task: int) -> None:
        for number in range(15):
            message = [Message(Role.USER, (Text(f"{task} {number}"),))]
            while True:
                try:
                    turn = await pg.begin_turn(ME, conversation, message, request_id=f"{task} {number}")
                    await pg.end_turn(ME, turn.reply.id, DONE)
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(turn.reply.id)
                    break

    async def crash() -> None:
        for count in (20, 60):
            while len(confirmed) < count:
                await asyncio.sleep(0)
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)

    await asyncio.gather(crash(), *map(write, range(8)))
    await pg.settle()
    found = (await pg.messages(ME, conversation)).messages
    replies = [stored for stored in found if stored.message.role is Role.ASSISTANT]
    assert sorted(confirmed) == sorted(stored.id for stored in replies)
    assert len(found) == 240
    assert {stored.state for stored in replies} == {MessageState.COMPLETE}


@needs_own_server
async def test_a_server_that_is_killed_while_conversations_are_made(pg: SqlStore, postgres: Postgres) -> None:
    """After a kill under load every confirmed turn that made its conversation is stored, whole and once."""
    confirmed: list[Turn] = []

    async def write(task: int) -> None:
        for number in range(15):
            while True:
                try:
                    turn = await pg.begin_turn(ME, None, [Message(Role.USER, (Text(f"{task} {number}"),))])
                    assert await pg.end_turn(ME, turn.reply.id, DONE)
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(turn)
                    break

    async def crash() -> None:
        while len(confirmed) < 30:
            await asyncio.sleep(0)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)

    await asyncio.gather(crash(), *map(write, range(8)))
    assert len({turn.conversation.id for turn in confirmed}) == 120
    for turn in confirmed:
        asked, reply = (await pg.messages(ME, turn.conversation.id)).messages
        assert asked == turn.path[0]
        assert (reply.id, reply.state) == (turn.reply.id, MessageState.COMPLETE)


async def test_a_turn_whose_confirmation_is_lost(pg: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose connection is lost after its statement was committed is stored once, as if the confirmation had arrived."""
    fetch = asyncpg.prepared_stmt.PreparedStatement.fetch
    lost: list[str] = []

    async def lose(self: Any, *args: Any, **options: Any) -> Any:
        found = await fetch(self, *args, **options)
        if (query := self.get_query()) not in lost:
            lost.append(query)
            self._connection.terminate()
            raise asyncpg.ConnectionDoesNotExistError("lost")
        return found

    await pg.heartbeat()
    monkeypatch.setattr(asyncpg.prepared_stmt.PreparedStatement, "fetch", lose)
    turn = await pg.begin_turn(ME, None, HELLO * 2, title="one")
    assert await pg.end_turn(ME, turn.reply.id, DONE)
    # The third one finds that the end is stored already.
    assert [(query.count("INSERT"), query.count("UPDATE")) for query in lost] == [(3, 0), (0, 2), (0, 0)]
    monkeypatch.undo()
    (made,) = (await pg.list(ME, size=10)).conversations
    assert (made.id, made.title, made.message_count) == (turn.conversation.id, "one", 3)
    found = (await pg.messages(ME, made.id)).messages
    assert [stored.id for stored in found] == [*(stored.id for stored in turn.path), turn.reply.id]
    assert found[-1].state is MessageState.COMPLETE


async def test_a_transaction_after_a_single_statement_that_failed(fresh_postgres_url: str) -> None:
    """A connection that committed by itself has whole transactions again, even if its statement failed."""
    database = open_database(fresh_postgres_url, TIMEOUT, connections=1)
    add = PreparedStatement(insert(trees))

    def one(connection: Connection) -> None:
        together(connection, (add, {"id": "one", "owner": ME}))

    def two(connection: Connection) -> None:
        add.count(connection, {"id": "two", "owner": ME})
        one(connection)

    await database.write(one, single=True)
    for work, single in ((one, True), (two, False)):
        with pytest.raises(IntegrityError):
            await database.write(work, single=single)
    assert await database.read(lambda connection: connection.execute(select(trees.c.id)).scalars().all()) == ["one"]
    await database.close()


async def test_the_end_of_a_turn_locks_the_conversation_first(pg: SqlStore, fresh_postgres_url: str) -> None:
    """While the end of a turn waits for its conversation, its reply is not locked: one order of locks, so no deadlocks."""
    turn = await pg.begin_turn(ME, None, HELLO)
    elsewhere = await asyncpg.connect(fresh_postgres_url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    try:
        async with elsewhere.transaction():
            await elsewhere.execute("SELECT 1 FROM conversations FOR UPDATE")
            ending = asyncio.create_task(pg.end_turn(ME, turn.reply.id, DONE))
            while not await elsewhere.fetchval(waiting):
                await asyncio.sleep(0)
            assert await elsewhere.fetchval("SELECT id FROM messages WHERE id = $1 FOR UPDATE NOWAIT", turn.reply.id)
        assert await ending
    finally:
        await elsewhere.close()


async def test_a_row_that_somebody_else_locks(pg: SqlStore, fresh_postgres_url: str) -> None:
    """A locked row is waited for until the time-out, and is usable when the lock is gone."""
    conversation = await new(pg)
    elsewhere = await asyncpg.connect(fresh_postgres_url)
    try:
        transaction = elsewhere.transaction()
        await transaction.start()
        await elsewhere.execute("SELECT 1 FROM conversations FOR UPDATE")
        calls = [pg.append(ME, conversation, HELLO) for _ in range(3)]
        assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {StoreUnavailable}
        assert (await pg.get(ME, conversation)).message_count == 0
        await transaction.rollback()
        await pg.append(ME, conversation, HELLO)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert await elsewhere.fetchval(waiting) == 0
    finally:
        await elsewhere.close()


async def test_a_log_without_secrets(fresh_postgres_url: str) -> None:
    """A failure is logged with the driver's message, but without the password or message texts."""
    url = make_url(fresh_postgres_url).set(database="nowhere", password="pg-password")  # noqa: S106 - of no server but the tests'
    opened = SqlStore(open_database(url.render_as_string(hide_password=False), TIMEOUT))
    with structlog.testing.capture_logs() as lines, pytest.raises(StoreUnavailable):
        await new(opened, HELLO)
    await opened._database.close()
    assert [line["event"] for line in lines] == ["store_unavailable"]
    assert "nowhere" in lines[0]["error"]
    assert "pg-password" not in str(lines)
    assert "hello" not in str(lines)


async def test_a_full_disk(lite: SqlStore, sqlite_url: str) -> None:
    """With a full disk writes fail and reads work. The file stays valid, and writes work again when there is room."""
    database = lite._database
    assert isinstance(database, SqliteDatabase)
    path = make_url(sqlite_url).database
    assert path is not None
    pages = {"limit": 0}

    @event.listens_for(database._write_engine, "connect")
    def _limit(connection: Any, _: Any) -> None:
        if pages["limit"]:
            connection.execute(f"PRAGMA max_page_count = {pages['limit']}")

    large = [Message(Role.USER, (Text("x" * 100_000),))]
    pages["limit"] = 200
    conversation = await new(lite)
    confirmed: list[str] = []
    with pytest.raises(StoreUnavailable):
        while True:
            confirmed.append((await lite.append(ME, conversation, large))[1][0].id)
    results = await asyncio.gather(*(lite.append(ME, conversation, large) for _ in range(8)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    assert confirmed
    assert await ids(lite, conversation) == confirmed
    check = text("PRAGMA integrity_check")
    assert await database.read(lambda connection: connection.execute(check).scalar_one()) == "ok"
    pages["limit"] = 100_000
    confirmed.append((await lite.append(ME, conversation, large))[1][0].id)
    assert await ids(lite, conversation) == confirmed


async def test_a_file_that_another_process_locks(lite: SqlStore, sqlite_url: str) -> None:
    """Writes to a locked file fail in time and reads work. Writes work again after the lock."""
    path = make_url(sqlite_url).database
    assert path is not None
    conversation = await new(lite)
    elsewhere = sqlite3.connect(path, isolation_level=None)
    elsewhere.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    calls = [lite.append(ME, conversation, HELLO) for _ in range(4)]
    assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {StoreUnavailable}
    assert time.monotonic() - began < 3 * TIMEOUT
    assert await ids(lite, conversation) == []
    elsewhere.execute("ROLLBACK")
    elsewhere.close()
    _, stored = await lite.append(ME, conversation, HELLO)
    assert await ids(lite, conversation) == [stored[0].id]


async def test_a_file_that_is_removed(lite: SqlStore, sqlite_url: str, sqlite_template: Path) -> None:
    """Nothing is confirmed for a removed file. Another file in its place is used without a restart."""
    path = make_url(sqlite_url).database
    assert path is not None
    conversation = await new(lite, HELLO)
    assert len(await ids(lite, conversation)) == 1
    for name in (path, f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)
    with pytest.raises(StoreUnavailable):
        await lite.append(ME, conversation, HELLO)
    with pytest.raises(StoreUnavailable):
        await lite.list(ME, size=1)
    shutil.copy(sqlite_template, path)
    assert (await lite.list(ME, size=9)).conversations == ()
    made = await new(lite, HELLO)
    assert [found.id for found in (await lite.list(ME, size=9)).conversations] == [made]
    with sqlite3.connect(path) as elsewhere:
        assert elsewhere.execute("SELECT count(*) FROM conversations").fetchone() == (1,)


async def test_a_file_that_is_no_database(lite: SqlStore, sqlite_url: str) -> None:
    """A file that is not a database is reported, and not overwritten."""
    path = make_url(sqlite_url).database
    assert path is not None
    file = Path(path)
    file.write_bytes(b"something else" * 1000)
    with pytest.raises(StoreUnavailable):
        await new(lite)
    with pytest.raises(StoreUnavailable):
        await lite.list(ME, size=1)
    assert file.read_bytes().startswith(b"something else")


async def test_one_bad_write_does_not_spoil_the_others(lite: SqlStore) -> None:
    """Writes that share a commit fail or succeed independently."""
    conversation = await new(lite)
    database = lite._database

    async def bad(kind: int) -> None:
        def work(connection: Any) -> None:
            connection.execute(text("INSERT INTO workers (id, seen) VALUES ('half', 1)"))
            if kind:
                raise ZeroDivisionError
            connection.execute(text("INSERT INTO workers (id, seen) VALUES ('half', 1)"))

        await database.write(work)

    good: list[Any] = [lite.append(ME, conversation, HELLO) for _ in range(20)]
    results = await asyncio.gather(*good[:10], bad(0), bad(1), lite.get(ME, conversation), *good[10:], return_exceptions=True)
    assert {type(result) for result in results if isinstance(result, Exception)} == {IntegrityError, ZeroDivisionError}
    found: tuple[StoredMessage, ...] = (await lite.messages(ME, conversation)).messages
    assert len(found) == 20
    count = text("SELECT count(*) FROM workers WHERE id = 'half'")
    assert await database.read(lambda connection: connection.execute(count).scalar_one()) == 0


async def test_it_is_durable(lite: SqlStore) -> None:
    """The writer flushes each commit and checks foreign keys, and readers cannot write."""
    database = lite._database

    def pragmas(connection: Any) -> list[Any]:
        return [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in names]

    names = ["journal_mode", "synchronous", "foreign_keys"]
    assert await database.write(pragmas) == ["wal", 2, 1]
    with pytest.raises(StoreUnavailable):
        await database.read(lambda connection: connection.execute(text("DELETE FROM trees")).rowcount)


async def test_writes_that_meet_wait_for_more(lite: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit after which several writes wait is shared with those that come soon; a write alone waits for no other."""
    monkeypatch.setattr(sqlite, "_GATHER", 0.3)
    database = lite._database
    commits: list[str] = []

    def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        commits.extend([statement] if statement == "COMMIT" else [])

    event.listen(Engine, "before_cursor_execute", see)
    try:
        busy = threading.Event()
        first = asyncio.create_task(database.write(lambda _: busy.wait(TIMEOUT)))
        await asyncio.sleep(0)
        met = [asyncio.create_task(new(lite)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not commits
        busy.set()
        await asyncio.wait([first])
        await asyncio.sleep(0.1)
        assert len(commits) == 1
        await asyncio.gather(new(lite), *met)
        assert len(commits) == 2
        monkeypatch.setattr(sqlite, "_GATHER", 0.0)
        await new(lite)
        monkeypatch.setattr(sqlite, "_GATHER", 60.0)
        for _ in range(3):
            await new(lite)
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    assert len(commits) == 6
