"""The interface of a database, and the translation of its errors. `sqlite` and `postgres` implement it.

A unit of work is an ordinary function of a SQLAlchemy connection. The database decides where it runs: SQLite in a thread,
PostgreSQL on the event loop. So one function serves both, and a caller that is cancelled cannot leave a transaction half done.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from antiphon.domain.errors import StoreUnavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)

_STATEMENT_ERRORS: Final = (IntegrityError, DataError, NotSupportedError)
"""Errors for a wrong statement: a bug in this program, not a failure of the database."""


class Database(Protocol):
    """Runs units of work. Shared by all calls of one process and event loop.

    A unit of work may be run again from the start, so it must change nothing but the database. It may raise an `AntiphonError` only
    before its first change.
    """

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot. Raises what it raises, and `StoreUnavailable`."""
        ...

    async def write(self, work: Callable[[Connection], T], *, single: bool = False) -> T:
        """Run `work` in a transaction, which is durable on return. Raises what `work` raises, and `StoreUnavailable`.

        If the caller is cancelled, the transaction still ends, committed or not. `StoreUnavailable` means that nothing was changed,
        unless the connection was lost during the commit: then the outcome is unknown.

        `single`: `work` makes all of its changes in one call of `prepared.together`, and may run again after they were committed.
        PostgreSQL then needs no round trips for BEGIN and COMMIT; what is said of the commit is true of that statement.
        """
        ...

    def insert(self, table: Table) -> Any:
        """Return the dialect's INSERT, which has `on_conflict_do_update` and `on_conflict_do_nothing`."""
        ...

    def clock(self) -> ColumnElement[int]:
        """Return the time in microseconds, from the one clock that all processes share."""
        ...

    async def close(self) -> None:
        """Wait for running work, and close the connections."""
        ...


class Translation:
    """A context manager that turns the errors of a database into `StoreUnavailable`, and logs their text. Can be used again."""

    def __init__(self, kinds: tuple[type[Exception], ...], secret: str | None) -> None:
        """`kinds` are the exceptions that the driver raises without SQLAlchemy's wrapping; `secret` is left out of the log."""
        self._known: tuple[type[Exception], ...] = (DBAPIError, PoolTimeout, *kinds)
        self._secret = secret

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, self._known) and not isinstance(error, _STATEMENT_ERRORS):
            log_unavailable(error, self._secret)
            raise StoreUnavailable from error


def log_unavailable(error: Exception, secret: str | None) -> None:
    """Log a failure of the database, never the statement or its values: they contain users' text."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    text = str(cause).partition("\n")[0]
    if secret:
        text = text.replace(secret, "[redacted]")
    log.error("store_unavailable", kind=type(cause).__name__, error=text)
