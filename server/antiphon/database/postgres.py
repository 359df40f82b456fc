"""PostgreSQL through asyncpg.

A server that hangs is cut off: each transaction has a watchdog that drops its connection at the time-out, so the driver fails by
itself and is never cancelled in the middle of its protocol.
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

from antiphon.database.base import Translation, log_unavailable
from antiphon.domain.errors import StoreUnavailable

T = TypeVar("T")

_RETRYABLE: Final = frozenset({"40001", "40P01"})
"""SQLSTATEs after which a transaction may be run again: serialization failure, deadlock."""

# Exceptions of the driver that SQLAlchemy does not wrap, while it connects.
FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def engine(
    url: str, timeout: float, *, connections: int, bounded: bool = True, pooler: bool = False, statement_cache: bool = True
) -> AsyncEngine:
    """Return pooled connections. `timeout` in seconds limits connecting, and statements if `bounded`.

    `pooler`: a pooler in transaction mode, such as PgBouncer, is in front of the server. It may use another server connection for
    each transaction, and a setting would stay for the next user of that connection, so each transaction makes its own settings.
    Nothing is opened yet.
    """
    milliseconds = str(max(1, round(timeout * 1000)))
    settings = {"application_name": "antiphon", "idle_in_transaction_session_timeout": milliseconds}
    if bounded:
        # The watchdog cuts off a server that hangs; this ends statements at the server that no caller waits for.
        settings["statement_timeout"] = milliseconds
        # Each query has its index. If one owner has nearly all rows, or a plan dates from when there were few, the planner would
        # prefer to read the whole table, with the rows of all owners. Where a scan is unavoidable, "off" makes it look so costly
        # that the planner would compile the query first, hence `jit`.
        settings |= {"enable_seqscan": "off", "jit": "off"}

    options: dict[str, Any] = {"connection_class": _setting_each_transaction(settings)} if pooler else {"server_settings": settings}
    statements: dict[str, Any] = {}
    if not statement_cache:
        options["statement_cache_size"] = 0
        # Unnamed statements, which the driver sends with each execution.
        statements = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        # The driver parses the URL: it supports `sslmode`, several hosts and Unix sockets.
        return await asyncpg.connect(url, timeout=timeout, command_timeout=timeout if bounded else None, **options)

    created = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        connect_args=statements,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout,
        hide_parameters=True,
    )

    @event.listens_for(created.sync_engine, "checkout")
    def _checkout(connection: Any, *_: Any) -> None:
        # The driver knows at once when the server closes the connection, so no test query is needed.
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    return created


def _setting_each_transaction(settings: Mapping[str, str]) -> type[asyncpg.Connection[asyncpg.Record]]:
    """Return a connection class that applies the settings in each transaction, without an extra round trip."""
    local = "".join(f" SET LOCAL {name} = '{value}';" for name, value in settings.items())

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # it has no types
        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
            if not query.startswith("BEGIN"):
                return await super().execute(query, *args, timeout=timeout)
            try:
                return await super().execute(query + local, timeout=timeout)
            except BaseException:
                self.terminate()  # a transaction may have begun, and nothing would end it
                raise

    return Connection


class _Call:
    """A unit of work: its deadline on the loop's clock, and whether its caller still waits."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.awaited = True


class PostgresDatabase:
    """A PostgreSQL server as a `Database`."""

    def __init__(self, url: str, timeout: float, *, connections: int, pooler: bool, statement_cache: bool) -> None:
        """`timeout` limits each transaction in seconds, with the wait for a connection. Nothing is opened yet."""
        self._timeout = timeout
        self._secret = make_url(url).password
        self._translation = Translation(FAULTS, self._secret)
        self._engine = engine(url, timeout, connections=connections, pooler=pooler, statement_cache=statement_cache)
        self._write_engine = self._engine.sync_engine
        # One snapshot for all reads of a transaction; the setting costs no round trip.
        self._read_engine = self._write_engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._pooler = pooler
        self._running: set[asyncio.Task[Any]] = set()

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._wait(self._read_engine, work)

    async def write(self, work: Callable[[Connection], T], *, single: bool = False) -> T:
        # A pooler's connection has its settings within a transaction only: see `engine`.
        return await self._wait(self._write_engine, work, single=single and not self._pooler)

    def insert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def clock(self) -> ColumnElement[int]:
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def _wait(self, engine: Engine, work: Callable[[Connection], T], *, single: bool = False) -> T:
        # In its own task, which ends by itself if the caller is cancelled, or does not begin if it has not yet.
        call = _Call(asyncio.get_running_loop().time() + self._timeout)
        task = asyncio.create_task(self._run(engine, work, call, single=single))
        self._running.add(task)
        task.add_done_callback(self._untrack)
        try:
            # The watchdog acts first; this time-out is for a server that hangs while a connection is opened or closed.
            done, _ = await asyncio.wait({task}, timeout=self._timeout + 0.1)
        finally:
            call.awaited = False
        if not done:
            log_unavailable(TimeoutError("it took too long"), self._secret)
            raise StoreUnavailable
        return task.result()

    def _untrack(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, or was cancelled; retrieved here so that asyncio does not log it

    async def _run(self, engine: Engine, work: Callable[[Connection], T], call: _Call, *, single: bool) -> T:
        loop = asyncio.get_running_loop()
        committing = False

        def run() -> T:
            nonlocal committing
            with engine.connect() as connection:
                if not call.awaited:
                    raise asyncio.CancelledError
                adapter: Any = connection.connection.dbapi_connection
                watchdog = loop.call_at(call.deadline, adapter.driver_connection.terminate)
                try:
                    if single:
                        adapter.autocommit = True
                        return work(connection)
                    with connection.begin():
                        result = work(connection)
                        committing = True
                    return result
                finally:
                    watchdog.cancel()
                    if single:
                        adapter.autocommit = False

        with self._translation:
            while True:
                try:
                    # One greenlet for the whole transaction: `AsyncConnection` starts one for each step, a third of its CPU time.
                    return await greenlet_spawn(run)
                except DBAPIError as error:
                    # A restarted server leaves dead connections in the pool. Before the commit nothing was changed, so the work
                    # can be run again.
                    retry = (error.connection_invalidated and not committing) or getattr(error.orig, "sqlstate", None) in _RETRYABLE
                    if not retry or loop.time() >= call.deadline:
                        raise
