"""Statements that nearly every call runs: their text is made once, and the driver runs it directly.

SQLAlchemy takes 20 to 40 us for each execution, of which a driver needs 3 to 9. What a caller sees is the same: rows with their
columns as attributes, SQLAlchemy's exceptions, and the event `before_cursor_execute`.

`together` makes several changes: on PostgreSQL, where each statement costs a round trip, with one statement.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.exc import DBAPIError

Values: TypeAlias = Mapping[str, Any]
"""The values of the bound parameters, by name; of a column by its name, if the statement sets it without a parameter."""

_PARAMETER: Final = re.compile(r"\$(\d+)")
_INSERT: Final = re.compile(r"(INSERT INTO (\w+) \(([^()]*)\)) VALUES \([^()]*\)(.*)")


class _Text:
    """A statement as one dialect writes it."""

    def __init__(
        self, statement: Select[Any] | Insert | Update | Delete, sets: Sequence[str], ending: str, connection: Connection
    ) -> None:
        dialect = connection.dialect
        made = statement.compile(dialect=dialect, column_keys=sets or None)
        self.text: Final = str(made) + ending
        # Literals of the statement are parameters too.
        literals = {name: value for name, value in made.params.items() if not made.binds[name].required}
        self.values: Final = _picking(tuple(made.positiontup or ()), literals)
        columns = statement.exported_columns
        self._row: Final[Callable[[Any], Any]] = getattr(namedtuple("Row", map(str, columns.keys())), "_make")  # noqa: B009, PYI024  # mypy does not know it
        processors = [each.type.dialect_impl(dialect).result_processor(dialect, None) for each in columns]
        self._processed: Final = [(at, process) for at, process in enumerate(processors) if process is not None]

    def read(self, found: Sequence[Any]) -> Any:
        if not self._processed:
            return self._row(found)
        changed = list(found)
        for at, process in self._processed:
            changed[at] = process(changed[at])
        return self._row(changed)


def _picking(names: tuple[str, ...], literals: Values) -> Callable[[Values], tuple[Any, ...]]:
    """Return a function that returns the values of these parameters, in this order; those of `literals` need not be given."""
    if len(names) > 1 and not literals:
        return itemgetter(*names)
    return lambda given: tuple([given[name] if name in given else literals[name] for name in names])


class PreparedStatement:
    """A statement whose parameters all have fixed names."""

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, sets: Sequence[str] = (), *, ending: str = "") -> None:
        """Set the statement. `sets` are the columns that an UPDATE sets to the values of the same name.

        `ending` is SQL to add at the end, in words that both databases have.
        """
        self._statement = statement
        self._sets = sets
        self._ending = ending
        self._texts: dict[str, _Text] = {}

    def all(self, connection: Connection, values: Values) -> list[Any]:
        """Return the rows that the statement selects or returns. Raises SQLAlchemy's `DBAPIError`, as the other methods do."""
        text = self._text(connection)
        return list(map(text.read, run(connection, text.text, text.values(values)).fetchall()))

    def first(self, connection: Connection, values: Values) -> Any | None:
        """Return the first row, or None."""
        return next(iter(self.all(connection, values)), None)

    def count(self, connection: Connection, values: Values) -> int:
        """Return the number of rows that the statement changed."""
        text = self._text(connection)
        changed: int = run(connection, text.text, text.values(values)).rowcount
        return changed

    def each(self, connection: Connection, values: Sequence[Values]) -> None:
        """Run the statement with each of `values`."""
        text = self._text(connection)
        run(connection, text.text, list(map(text.values, values)), many=True)

    def _text(self, connection: Connection) -> _Text:
        name = connection.dialect.name
        if name not in self._texts:
            self._texts[name] = _Text(self._statement, self._sets, self._ending, connection)
        return self._texts[name]


Change: TypeAlias = tuple[PreparedStatement, dict[str, Any] | list[dict[str, Any]]]
"""An INSERT or UPDATE and its values; an INSERT may have those of several rows."""


def together(connection: Connection, *changes: Change) -> list[int]:
    """Make the changes, and return the number of rows of each.

    None may depend on another, as PostgreSQL runs them as one statement: each sees the rows as they were before all of them. Each
    UPDATE needs conditions, all joined by AND, and locks its rows after the changes before it have locked theirs. Raises
    `DBAPIError`.
    """
    made = [(statement._text(connection), values) for statement, values in changes]  # noqa: SLF001
    if connection.dialect.name != "postgresql":
        return [
            run(connection, text.text, text.values(values)).rowcount
            if isinstance(values, dict)
            else run(connection, text.text, list(map(text.values, values)), many=True).rowcount
            for text, values in made
        ]
    texts: list[str] = []
    parameters: list[Any] = []
    for text, values in made:
        if isinstance(values, dict):
            texts.append(text.text)
            parameters += text.values(values)
        else:
            texts.append(_of_rows(text.text))
            parameters.append(msgspec.json.encode(values).decode())
    return list(run(connection, _as_one(tuple(texts)), parameters).fetchone())


@cache
def _of_rows(text: str) -> str:
    """Return the text of an INSERT of one row as that of several, in a JSON array of objects."""
    found = _INSERT.fullmatch(text)
    assert found is not None
    head, table, columns, ending = found.groups()
    return f"{head} SELECT {columns} FROM json_populate_recordset(NULL::{table}, $1::text::json){ending}"  # noqa: S608  # our own text


@cache
def _as_one(texts: tuple[str, ...]) -> str:
    """Return one statement for PostgreSQL that makes several changes, and selects the number of rows of each."""
    parts: list[str] = []
    counts: list[str] = []
    before = 0  # the number of parameters of the changes before
    for number, text in enumerate(texts):
        own = _PARAMETER.sub(partial(_moved, before), text)
        if counts and text.startswith("UPDATE"):
            own += f" AND {counts[-1]} >= 0"  # always true, but known only after the change before
        parts.append(f"change_{number} AS ({own} RETURNING 1)")
        counts.append(f"(SELECT count(*) FROM change_{number})")  # noqa: S608  # as above
        before += max(map(int, _PARAMETER.findall(text)))
    return f"WITH {', '.join(parts)} SELECT {', '.join(counts)}"


def _moved(by: int, parameter: re.Match[str]) -> str:
    """Return a parameter with a higher number."""
    return f"${by + int(parameter[1])}"


def run(connection: Connection, text: str, values: Sequence[Any] = (), *, many: bool = False) -> Any:
    """Run a text with the driver, and return its cursor. `many`: run it with each of `values`. Raises `DBAPIError`."""
    driver: Any = connection.connection.dbapi_connection
    cursor: Any = driver.cursor()
    if connection.engine._has_events:  # noqa: SLF001  # looking for observers takes as long as a short statement
        for see in connection.dispatch.before_cursor_execute:
            see(connection, cursor, text, values, None, many)
    try:
        (cursor.executemany if many else cursor.execute)(text, values)
    except connection.dialect.loaded_dbapi.Error as error:
        dialect, known = connection.dialect, connection.dialect.loaded_dbapi
        lost = dialect.is_disconnect(error, driver, cursor)
        if lost or isinstance(error, known.NotSupportedError):  # the latter: tables have changed under the statements it prepared
            connection.invalidate(error)
        raise DBAPIError.instance(
            text, None, error, known.Error, hide_parameters=True, connection_invalidated=lost, dialect=dialect
        ) from error
    return cursor
