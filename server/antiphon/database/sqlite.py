"""SQLite with one thread for writing and a few for reading; no await inside a transaction.

Concurrent writes share a commit: those that arrive while one is being flushed to the disk are committed together next, since the
flush is nearly all the time of a small transaction. Where several meet, more come soon, so the commit waits a few milliseconds for
them: under load that saves more than half of the CPU time of a write. Writes that come one by one never wait.

This uses the plain driver in its own thread instead of aiosqlite, which switches threads for each statement and each fetch.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, NullPool, QueuePool, Table, create_engine, event, literal
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DisconnectionError

from antiphon.database import clock
from antiphon.database.base import Translation, log_unavailable
from antiphon.database.prepared import run
from antiphon.domain.errors import AntiphonError, StoreUnavailable

T = TypeVar("T")

_READERS: Final = 4
"""The number of reading threads: more than the cores of a small machine, as some of them wait for the disk."""

_BATCH: Final = 256
"""The most transactions that share a commit."""

_GATHER: Final = 0.008
"""Seconds for which a commit waits for more transactions, if several came at once just now."""

_TRANSLATION: Final = Translation((OSError,), None)


def engine(path: Path, timeout: float, *, begin: str = "", readers: int = 0) -> Engine:
    """Return connections to the file, at most `readers` of them pooled. Nothing is opened yet.

    `begin` is the statement that begins a transaction; empty if the caller begins and commits by itself. With `readers` the
    connections are read-only; 0 means no pool.
    """
    file = str(path)
    url = URL.create("sqlite", database=file)
    arguments = {"isolation_level": None, "timeout": timeout, "check_same_thread": False}
    pool: dict[str, Any] = {"poolclass": NullPool}
    if readers:
        pool = {"poolclass": QueuePool, "pool_size": readers, "max_overflow": 0, "pool_timeout": timeout}
    created = create_engine(url, connect_args=arguments, hide_parameters=True, **pool)

    @event.listens_for(created, "connect")
    def _connect(connection: Any, _: Any) -> None:
        # Readers do not wait for the writer, nor it for them. The mode is stored in the file.
        connection.execute("PRAGMA journal_mode = WAL")
        # A commit is on the disk when it returns. NORMAL would keep the file intact, but lose the last commits in a power failure.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if readers:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(created, "checkout")
    def _checkout(_: Any, record: Any, *__: Any) -> None:
        # A connection to a file that was replaced would show the old content.
        identity = _identity(file)
        if record.info.setdefault("file", identity) != identity:
            raise DisconnectionError

    if begin:

        @event.listens_for(created, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    return created


class _Job(Generic[T]):
    """A unit of work for another thread, and the future of its result."""

    def __init__(self, work: Callable[..., T]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self._claimed = Lock()
        self._begun = False

    def begin(self) -> bool:
        """Return whether its caller still waits; if so, it can no longer be cancelled. Called by the thread that does the work."""
        self._begun = self._begun or self.cancel()
        return self._begun

    def cancel(self) -> bool:
        """Return whether it had neither begun nor been cancelled; now it will not begin."""
        return self._claimed.acquire(blocking=False)

    def end(self, result: Any, error: BaseException | None) -> None:
        """Give its caller the result, or the error, unless the caller is gone. Called on the event loop."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class SqliteDatabase:
    """A SQLite file as a `Database`. Several processes may use the file at once."""

    def __init__(self, path: Path, timeout: float) -> None:
        """`timeout` limits in seconds the wait for a transaction's turn, and again the transaction. Nothing is opened yet."""
        self._timeout = timeout
        self._file = str(path)
        self._write_engine = engine(path, timeout)
        self._read_engine = engine(path, timeout, begin="BEGIN", readers=_READERS)
        self._readers = ThreadPoolExecutor(_READERS, "history-reader")
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._writer: Thread | None = None
        self._connection: Connection | None = None
        self._connected: tuple[int, int] | None = None

    def read(self, work: Callable[[Connection], T]) -> Coroutine[Any, Any, T]:
        def read() -> T:
            with _TRANSLATION:
                _identity(self._file)
            with _TRANSLATION, self._read_engine.connect() as connection, connection.begin():
                return work(connection)

        job = _Job(read)
        self._readers.submit(self._read, job)
        return self._wait(job)

    def write(self, work: Callable[[Connection], T], *, single: bool = False) -> Coroutine[Any, Any, T]:
        if self._writer is None:
            self._writer = Thread(target=self._write, name="history-writer", daemon=True)
            self._writer.start()
        job = _Job(work)
        self._jobs.put(job)
        return self._wait(job)

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

    async def _wait(self, job: _Job[T]) -> T:
        timer = job.loop.call_later(self._timeout, self._time_out, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            job.cancel()  # it does not begin if it has not yet
            raise
        finally:
            timer.cancel()

    def _time_out(self, job: _Job[Any], *, last: bool = False) -> None:
        if job.future.done():
            return
        if last or job.cancel():
            log_unavailable(TimeoutError("it took too long"), None)
            job.future.set_exception(StoreUnavailable())
        else:  # it has begun, so its outcome is only known at its end
            job.loop.call_later(self._timeout, partial(self._time_out, job, last=True))

    def _read(self, job: _Job[Any]) -> None:
        """Run a job in a reading thread."""
        if job.begin():
            try:
                _end([(job, job.work(), None)])
            except BaseException as error:  # noqa: BLE001  # the caller gets it
                _end([(job, None, error)])

    def _write(self) -> None:
        """Run the writing thread."""
        jobs: list[_Job[Any]] = []
        ended = False
        while not ended and (first := self._jobs.get()) is not None:
            several = len(jobs) > 1
            jobs = [first]
            ended = self._gather(jobs)
            if (several or len(jobs) > 1) and not ended:
                time.sleep(_GATHER)
                ended = self._gather(jobs)
            self._run(jobs)
        self._disconnect()

    def _gather(self, jobs: list[_Job[Any]]) -> bool:
        """Add the jobs that wait, and return whether the last one has come."""
        while len(jobs) < _BATCH and not self._jobs.empty():
            following = self._jobs.get_nowait()  # no other thread takes jobs
            if following is None:
                return True
            jobs.append(following)
        return False

    def _run(self, jobs: list[_Job[Any]]) -> None:
        begun: list[_Job[Any]] = []
        try:
            with _TRANSLATION:
                results = self._commit(jobs, begun)
        except BaseException as error:  # noqa: BLE001  # the callers get it, and the thread continues
            self._disconnect()
            if len(begun) > 1 and not isinstance(error, StoreUnavailable):
                for job in begun:  # one of them caused it; the others must not fail with it
                    self._run([job])
                return
            _end([(job, None, error) for job in begun or jobs if job.begin()])
            return
        _end(
            [
                (job, None, result) if isinstance(result, AntiphonError) else (job, result, None)
                for job, result in zip(begun, results, strict=True)
            ]
        )

    def _commit(self, jobs: list[_Job[Any]], begun: list[_Job[Any]]) -> list[Any]:
        # Writes to a file that was removed or replaced are lost, unnoticed until the next start.
        identity = _identity(self._file)
        if identity != self._connected:
            self._disconnect()
        if self._connection is None:
            self._connection = self._write_engine.connect()
            self._connected = identity
        results: list[Any] = []
        # IMMEDIATE takes the file's write lock at the beginning; a transaction that reads first and locks later may only fail.
        run(self._connection, "BEGIN IMMEDIATE")
        # Waiting for the lock may have taken long, and callers may have given up.
        begun += [job for job in jobs if job.begin()]
        for job in begun:
            try:
                results.append(job.work(self._connection))
            except StoreUnavailable:
                raise
            except AntiphonError as error:  # raised before the first change: see `Database`
                results.append(error)
        run(self._connection, "COMMIT")
        return results

    def _disconnect(self) -> None:
        """Close the connection after a failure, so that the next transaction opens a new one: the file may have been replaced."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with _silenced():
                connection.close()


def _identity(file: str) -> tuple[int, int]:
    """Return the device and inode of a file. Raises `OSError` if it does not exist."""
    found = os.stat(file)  # noqa: PTH116  # at each commit, and a `Path` takes twice as long
    return found.st_dev, found.st_ino


def _end(ended: list[tuple[_Job[Any], Any, BaseException | None]]) -> None:
    """Give the callers of jobs their results or errors, all in one step of their event loop."""
    if not ended:
        return

    def tell() -> None:
        for job, result, error in ended:
            job.end(result, error)

    loop = ended[0][0].loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(tell)


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppress errors while closing a broken connection; the failure itself was logged."""
    try:
        with _TRANSLATION:
            yield
    except StoreUnavailable:
        pass
