"""What the store asks of a database, and what its failures mean: `sqlite` and `postgres` are the two that there are.

A unit of work is an ordinary function of a SQLAlchemy connection. Where it runs is the database's matter: SQLite runs it whole in
a thread, PostgreSQL on the event loop. So one function serves both, and neither can be left in the middle of a transaction by a
caller that goes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from antiphon.domain.errors import StoreUnavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)

_OURS: Final = (IntegrityError, DataError, NotSupportedError)
"""What the database answers to a statement that is wrong: a fault of this program, not of the database."""


class Database(Protocol):
    """Runs units of work. Shared by all calls of one process, and of one event loop.

    A unit of work may be run again from its beginning, so it changes nothing but the database. It raises errors of our own tree
    only before its first change.
    """

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on one snapshot. Raises what it raises, and `StoreUnavailable`."""
        ...

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction, which is durable when this returns. Raises what `work` raises, and `StoreUnavailable`.

        A caller that is cancelled leaves the transaction to end by itself, either way. `StoreUnavailable` means that nothing was
        changed, unless the database was lost in the moment of the commit: then nobody can know.
        """
        ...

    def insert(self, table: Table) -> Any:
        """The dialect's own INSERT, with `on_conflict_do_update` and `on_conflict_do_nothing`."""
        ...

    def clock(self) -> ColumnElement[int]:
        """The time in microseconds, by the one clock that all processes share."""
        ...

    async def close(self) -> None:
        """Waits for what is running, and ends the connections."""
        ...


@contextmanager
def translated(kinds: tuple[type[Exception], ...], secret: str | None) -> Iterator[None]:
    """Turns the failures of a database into `StoreUnavailable`, and logs what it said, without `secret`.

    `kinds` are what its driver raises past SQLAlchemy.
    """
    known: tuple[type[Exception], ...] = (DBAPIError, PoolTimeout, *kinds)
    try:
        yield
    except _OURS:
        raise
    except known as error:
        unavailable(error, secret)
        raise StoreUnavailable from error


def unavailable(error: Exception, secret: str | None) -> None:
    """Logs a failure of the database. Never the statement and its values: they hold what people wrote."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    text = str(cause).partition("\n")[0]
    if secret:
        text = text.replace(secret, "[redacted]")
    log.error("store_unavailable", kind=type(cause).__name__, error=text)
