"""Prepared statements give what SQLAlchemy's own execution gives: rows, errors and events, on both databases."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, event, insert, select, update
from sqlalchemy.exc import IntegrityError

from antiphon.database.prepared import PreparedStatement, together
from antiphon.database.sqlite import SqliteDatabase
from antiphon.database.tables import trees
from antiphon.domain.content import Message, Role, Text
from antiphon.history import statements
from antiphon.history.base import Store
from antiphon.history.sql import SqlStore

ME = "an owner"


async def test_rows_are_those_of_sqlalchemy(store: Store) -> None:
    """A row has the same values of the same types, with its columns as attributes; without a match there is none."""
    assert isinstance(store, SqlStore)
    made = await store.create(ME, title="t", source="s", pinned=True, messages=[Message(Role.USER, (Text("hello"),))])

    def work(connection: Connection) -> tuple[Any, Any, Any]:
        at = {"mine": ME, "conversation": made.id}
        prepared = PreparedStatement(statements.GET)
        expected = connection.execute(statements.GET, at).one()
        return expected, prepared.first(connection, at), prepared.first(connection, at | {"mine": "another"})

    expected, found, missing = await store._database.read(work)
    assert tuple(found) == tuple(expected)
    assert found.pinned is True
    assert found.tree_id == expected.tree_id
    assert missing is None


async def test_errors_are_those_of_sqlalchemy(store: Store) -> None:
    """A row that exists already is an `IntegrityError`, and nothing of its transaction stays."""
    assert isinstance(store, SqlStore)
    add = PreparedStatement(insert(trees))

    def twice(connection: Connection) -> None:
        add.each(connection, [{"id": "one", "owner": ME}, {"id": "two", "owner": ME}])
        add.count(connection, {"id": "one", "owner": ME})

    with pytest.raises(IntegrityError) as raised:
        await store._database.write(twice)
    assert ME not in str(raised.value), "values are users' text"
    assert await store._database.write(lambda connection: add.count(connection, {"id": "one", "owner": ME})) == 1


async def test_its_events_are_seen(store: Store) -> None:
    """What observes an engine's statements sees prepared ones too."""
    assert isinstance(store, SqlStore)
    seen: list[str] = []

    def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", see)
    try:
        at = {"mine": ME, "conversation": "none"}
        await store._database.read(lambda connection: PreparedStatement(statements.GET).first(connection, at))
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    assert any("FROM conversations" in statement for statement in seen)


async def test_changes_are_made_together(store: Store) -> None:
    """Rows are inserted and updated in one call, which tells their number: PostgreSQL gets one statement for it."""
    assert isinstance(store, SqlStore)
    add = PreparedStatement(insert(trees))
    rename = PreparedStatement(update(trees).where(trees.c.owner == bindparam("mine")), ("owner",))
    seen: list[str] = []

    def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    def work(connection: Connection) -> tuple[list[int], list[Any]]:
        add.each(connection, [{"id": "1", "owner": "old"}, {"id": "2", "owner": "old"}])
        seen.clear()
        counts = together(
            connection,
            (rename, {"owner": "new", "mine": "old"}),
            (add, {"id": "3", "owner": "$1, (it's)"}),
            (add, [{"id": str(number), "owner": f'"several" \\u0041 é\n {number}'} for number in range(4, 7)]),
            (rename, {"owner": "none", "mine": "nobody"}),
        )
        statements_run = len(seen)
        rows = connection.execute(select(trees.c.owner).order_by(trees.c.id)).scalars().all()
        return [*counts, statements_run], list(rows)

    event.listen(Engine, "before_cursor_execute", see)
    try:
        counts, owners = await store._database.write(work)
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    assert counts == [2, 1, 3, 0, 4 if isinstance(store._database, SqliteDatabase) else 1]
    assert owners == ["new", "new", "$1, (it's)", *(f'"several" \\u0041 é\n {number}' for number in range(4, 7))]
