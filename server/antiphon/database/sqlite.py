"""SQLite: one thread that writes, and a few that read; no await inside a transaction.

Concurrent writes share a commit: what waits while one is written to the disk goes into the next one together, since the disk's
flush is nearly all that a small transaction takes. The plain driver in a thread of our own, and not aiosqlite: that one hops
between threads for each statement and each fetch, at a cost of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, NullPool, QueuePool, Table, create_engine, event, literal
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DisconnectionError

from antiphon.database import clock
from antiphon.database.base import translated, unavailable
from antiphon.domain.errors import AntiphonError, StoreUnavailable

T = TypeVar("T")
Work = Callable[[Connection], Any]

_READERS: Final = 4
"""Threads that read: more than the cores of a small machine, as some of them wait for the disk."""

_BATCH: Final = 256
"""The most transactions that share a commit."""


def engine(path: Path, timeout: float, *, begin: str, readers: int = 0) -> Engine:
    """Connections to the file. `begin` begins their transactions; `readers` is how many to keep, 0 none. Opens nothing yet."""
    url = URL.create("sqlite", database=str(path))
    arguments = {"isolation_level": None, "timeout": timeout, "check_same_thread": False}
    pool: dict[str, Any] = {"poolclass": NullPool}
    if readers:
        pool = {"poolclass": QueuePool, "pool_size": readers, "max_overflow": 0, "pool_timeout": timeout}
    made = create_engine(url, connect_args=arguments, hide_parameters=True, **pool)

    @event.listens_for(made, "connect")
    def _connect(connection: Any, _: Any) -> None:
        # Readers do not wait for the writer, nor it for them. It stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
        # A commit is on the disk when it returns. NORMAL would keep the file whole, and lose the last commits with the power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if readers:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(made, "checkout")
    def _checkout(_: Any, record: Any, *__: Any) -> None:
        # A connection to a file that was replaced meanwhile shows what is gone.
        identity = _identity(path)
        if record.info.setdefault("file", identity) != identity:
            raise DisconnectionError

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return made


class _Job:
    """One transaction that waits, and where its caller waits for it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self._begun = False

    def begin(self) -> bool:
        """Whether somebody waits for it; from now on it cannot be taken back."""
        self._begun = self._begun or self.future.set_running_or_notify_cancel()
        return self._begun


class SqliteDatabase:
    """A SQLite file, which several processes may use at once."""

    def __init__(self, path: Path, timeout: float) -> None:
        """`timeout` in seconds bounds the wait for a transaction's turn, and again the transaction. Opens nothing yet."""
        self._timeout = timeout
        self._path = path
        # IMMEDIATE takes the file's one write lock at the beginning; a transaction that reads first and locks later can only fail.
        self._write_engine = engine(path, timeout, begin="BEGIN IMMEDIATE")
        self._read_engine = engine(path, timeout, begin="BEGIN", readers=_READERS)
        self._readers = ThreadPoolExecutor(_READERS, "history-reader")
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._writer: Thread | None = None
        self._connection: Connection | None = None
        self._connected: tuple[int, int] | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with _translated():
                _identity(self._path)
            with _translated(), self._read_engine.connect() as connection, connection.begin():
                return work(connection)

        return await self._wait(self._readers.submit(run))

    async def write(self, work: Callable[[Connection], T]) -> T:
        if self._writer is None:
            self._writer = Thread(target=self._write, name="history-writer", daemon=True)
            self._writer.start()
        job = _Job(work)
        self._jobs.put(job)
        return await self._wait(job.future)

    def insert(self, table: Table) -> Any:
        return sqlite.insert(table)

    def clock(self) -> ColumnElement[int]:
        return literal(clock.now())

    async def close(self) -> None:
        self._jobs.put(None)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._read_engine.dispose()

    async def _wait(self, future: Future[T]) -> T:
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(_seen)
        try:
            done, _ = await asyncio.wait({waiting}, timeout=self._timeout)
            if not done and not future.cancel():
                # It has begun, and what comes of it is only known at its end.
                done, _ = await asyncio.wait({waiting}, timeout=self._timeout)
        except asyncio.CancelledError:
            future.cancel()  # takes it out of the queue, and leaves it alone if it has begun
            raise
        if not done:
            unavailable(TimeoutError("it took too long"), None)
            raise StoreUnavailable
        return waiting.result()

    def _write(self) -> None:
        """The writer's thread."""
        while (first := self._jobs.get()) is not None:
            jobs = [first]
            ended = False
            try:
                while len(jobs) < _BATCH and not ended:
                    following = self._jobs.get_nowait()
                    if following is None:
                        ended = True
                    else:
                        jobs.append(following)
            except Empty:
                pass
            self._run(jobs)
            if ended:
                break
        self._disconnect()

    def _run(self, jobs: list[_Job]) -> None:
        begun: list[_Job] = []
        try:
            with _translated():
                results = self._commit(jobs, begun)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the callers are told, and the thread goes on
            self._disconnect()
            if len(begun) > 1 and not isinstance(error, StoreUnavailable):
                for job in begun:  # one of them is at fault, and the others are not
                    self._run([job])
                return
            for job in begun or jobs:
                if job.begin():
                    job.future.set_exception(error)
            return
        for job, result in zip(begun, results, strict=True):
            if isinstance(result, AntiphonError):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def _commit(self, jobs: list[_Job], begun: list[_Job]) -> list[Any]:
        # What is written to a file that was removed, or replaced, is lost with it: nobody would know before the next start.
        identity = _identity(self._path)
        if identity != self._connected:
            self._disconnect()
        if self._connection is None:
            self._connection = self._write_engine.connect()
            self._connected = identity
        results: list[Any] = []
        with self._connection.begin():
            # Here the file is locked. Another process may have had it for long, and callers may have given up.
            begun += [job for job in jobs if job.begin()]
            for job in begun:
                try:
                    results.append(job.work(self._connection))
                except StoreUnavailable:
                    raise
                except AntiphonError as error:  # raised before the first change: see `Database`
                    results.append(error)
        return results

    def _disconnect(self) -> None:
        """After a failure the next transaction gets a new connection: the file may be another, or the disk back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with _silenced():
                connection.close()


def _identity(path: Path) -> tuple[int, int]:
    """Which file this is. Raises `OSError` if it is gone."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _seen(future: asyncio.Future[Any]) -> None:
    """An error that nobody waits for any more is no mistake."""
    if not future.cancelled():
        future.exception()


@contextmanager
def _translated() -> Iterator[None]:
    with translated((OSError,), None):
        yield


@contextmanager
def _silenced() -> Iterator[None]:
    """For closing what is broken already; its failure was told."""
    try:
        with _translated():
            yield
    except StoreUnavailable:
        pass
