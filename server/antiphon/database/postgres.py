"""PostgreSQL, through asyncpg.

A server that hangs is cut off: each transaction has a watchdog that drops its connection when its time is over, so that the
driver fails by itself, and nothing is ever cancelled in the middle of its protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, Table, cast, event, func, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from antiphon.database.base import translated, unavailable
from antiphon.domain.errors import StoreUnavailable

T = TypeVar("T")

_AGAIN: Final = frozenset({"40001", "40P01"})
"""SQLSTATEs of a transaction that would pass if it were run again: serialization failure, deadlock."""

# What the driver raises past SQLAlchemy, while it connects.
FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def engine(
    url: str, timeout: float, *, connections: int, bounded: bool = True, pooler: bool = False, statement_cache: bool = True
) -> AsyncEngine:
    """Pooled connections to the server; connecting takes at most `timeout` seconds, as does a statement if `bounded`.

    `pooler`: one in transaction mode stands between, such as PgBouncer. A connection to that one has another connection to the
    server in each transaction, and what is set for one would be set for whoever has it next; so each transaction sets it for
    itself. Opens nothing yet.
    """
    milliseconds = str(max(1, round(timeout * 1000)))
    settings = {"application_name": "antiphon", "idle_in_transaction_session_timeout": milliseconds}
    if bounded:
        # The watchdog cuts off a server that hangs; this one ends, at the server, what a caller no longer waits for.
        settings["statement_timeout"] = milliseconds
        # Each query has its index. Where one owner has nearly all rows, or a plan is from a time when there were few, the planner
        # would rather read a whole table, with the rows of all owners. Where it has to, it takes that for so dear that it would
        # compile the query first.
        settings |= {"enable_seqscan": "off", "jit": "off"}

    options: dict[str, Any] = {"connection_class": _each_transaction(settings)} if pooler else {"server_settings": settings}
    statements: dict[str, Any] = {}
    if not statement_cache:
        options["statement_cache_size"] = 0
        # Unnamed statements, which the driver sends again with each execution.
        statements = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        # The driver reads the URL: it knows `sslmode`, several hosts and unix sockets.
        return await asyncpg.connect(url, timeout=timeout, command_timeout=timeout if bounded else None, **options)

    made = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        connect_args=statements,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        hide_parameters=True,
    )

    @event.listens_for(made.sync_engine, "checkout")
    def _checkout(connection: Any, *_: Any) -> None:
        # The driver knows at once when the server has closed its end, so nothing need be asked of it first.
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    return made


def _each_transaction(settings: Mapping[str, str]) -> type[asyncpg.Connection[asyncpg.Record]]:
    """Return the class of connections whose transactions each have these settings, with no further round trip."""
    local = "".join(f" SET LOCAL {name} = '{value}';" for name, value in settings.items())

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
            if not query.startswith("BEGIN"):
                return await super().execute(query, *args, timeout=timeout)
            try:
                return await super().execute(query + local, timeout=timeout)
            except BaseException:
                self.terminate()  # nobody would end what may have begun
                raise

    return Connection


class _Call:
    """A unit of work: when its time is over, by the loop's clock, and whether somebody waits for it."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.awaited = True


class PostgresDatabase:
    """A PostgreSQL server."""

    def __init__(self, url: str, timeout: float, *, connections: int, pooler: bool, statement_cache: bool) -> None:
        """`timeout` in seconds bounds every transaction, the wait for a connection included. Opens nothing yet."""
        self._timeout = timeout
        self._secret = make_url(url).password
        self._engine = engine(url, timeout, connections=connections, pooler=pooler, statement_cache=statement_cache)
        self._write_engine = self._engine.sync_engine
        # One snapshot for all that a transaction reads; the setting costs no round trip.
        self._read_engine = self._write_engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._running: set[asyncio.Task[Any]] = set()

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._wait(self._read_engine, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await self._wait(self._write_engine, work)

    def insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def clock(self) -> ColumnElement[int]:
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def _wait(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        # A task of its own, which goes on when the caller is cancelled: but does not begin, if it has not begun.
        call = _Call(asyncio.get_running_loop().time() + self._timeout)
        task = asyncio.create_task(self._run(engine, work, call))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            # The watchdog comes first; this is for a server that hangs while a connection is made or unmade.
            done, _ = await asyncio.wait({task}, timeout=self._timeout + 0.1)
        finally:
            call.awaited = False
        if not done:
            unavailable(TimeoutError("it took too long"), self._secret)
            raise StoreUnavailable
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # it was told to the caller, or there is none any more

    async def _run(self, engine: Engine, work: Callable[[Connection], T], call: _Call) -> T:
        loop = asyncio.get_running_loop()
        committing = False

        def run() -> T:
            nonlocal committing
            with engine.connect() as connection:
                if not call.awaited:
                    raise asyncio.CancelledError
                driver = connection.connection.driver_connection
                assert driver is not None
                watchdog = loop.call_at(call.end, driver.terminate)
                try:
                    with connection.begin():
                        result = work(connection)
                        committing = True
                    return result
                finally:
                    watchdog.cancel()

        with translated(FAULTS, self._secret):
            while True:
                try:
                    # One greenlet for all of it: `AsyncConnection` makes one for each step, a third of a transaction's CPU.
                    return await greenlet_spawn(run)
                except DBAPIError as error:
                    # A server that was started again leaves connections that are dead, and not known to be. Before the commit
                    # nothing was changed, so that the work can be done again.
                    again = (error.connection_invalidated and not committing) or getattr(error.orig, "sqlstate", None) in _AGAIN
                    if not again or loop.time() >= call.end:
                        raise
