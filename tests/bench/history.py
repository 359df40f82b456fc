"""Measures the history with much data: `python -m tests.bench.history [URL] --conversations 100000 --messages 50`.

Fills a database with the conversations of one owner, unless it has as many already, and prints how long each call takes, and with
`--plans` the database's query plans. The messages are written in rounds, one for each conversation, so that no two of a
conversation are adjacent, as after months of use. Without a URL it uses SQLite in a temporary folder, and then a PostgreSQL server
of its own.
"""

import argparse
import asyncio
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import asyncpg
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import Connection, event, func, select
from sqlalchemy.engine import make_url

from antiphon.database import clock, paging
from antiphon.database.ids import new_id
from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.database.postgres import PostgresDatabase
from antiphon.database.sqlite import SqliteDatabase
from antiphon.database.tables import METADATA, conversations
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.events import Usage
from antiphon.history import rows
from antiphon.history.base import MessageState, TurnEnd
from antiphon.history.sql import SqlStore
from tests.postgres import Postgres

OWNER = "bench"
CHUNK = 50_000
WORDS = ["kitchen", "harvest", "lantern", "quiet", "river", "anchor", "marble", "window", "copper", "garden", "signal", "winter"]

out = Console(highlight=False)


class Data:
    """The rows of every table, generated on demand."""

    def __init__(self, count: int, depth: int, length: int) -> None:
        self.count, self.depth = count, depth
        self.start = clock.now() - count * depth * 100
        self.trees = [new_id() for _ in range(count)]
        self.ids = [new_id() for _ in range(count)]
        self.heads: list[str | None] = [None] * count
        self.bodies = rows.bodies(
            [
                Message(role, (Text((" ".join(WORDS[number:]) * length)[:length]),))
                for number in range(8)
                for role in (Role.USER, Role.ASSISTANT)
            ]
        )

    def messages(self) -> Iterator[tuple[Any, ...]]:
        created = self.start
        for depth in range(self.depth):
            for at in range(self.count):
                created += 100
                id_, parent, self.heads[at] = new_id(), self.heads[at], None
                self.heads[at] = id_
                reply = depth % 2
                body = self.bodies[(at * 2 + reply) % len(self.bodies)]
                request = f"r{depth}" if reply else None
                model = "gpt-4o-mini" if reply else ""
                yield (
                    id_, self.trees[at], self.ids[at], parent, depth, "complete", created, request, None,
                    model, "openai" if reply else "", "stop" if reply else None, "", None, body,
                )  # fmt: skip

    def conversations(self) -> Iterator[tuple[Any, ...]]:
        for at in range(self.count):
            title = f"{WORDS[at % 12].title()} {WORDS[at // 12 % 12]} {at}"
            updated = self.start + (self.count * (self.depth - 1) + at) * 100
            source = ("web", "app", "", "rare")[3 if at % 1000 == 0 else at % 3]
            yield (
                self.ids[at], OWNER, self.trees[at], title, title.casefold(), at % 500 == 0, source,
                self.start, updated, self.heads[at], self.depth, None, None,
            )  # fmt: skip


async def fill(url: str, data: Data) -> None:
    """Insert all rows in the fastest way. The indices exist from the start, so the time includes them."""
    tables: list[tuple[str, Iterator[tuple[Any, ...]], int]] = [
        ("trees", ((tree, OWNER) for tree in data.trees), data.count),
        ("messages", data.messages(), data.count * data.depth),
        ("conversations", data.conversations(), data.count),
    ]
    lite = sqlite3.connect(make_url(url).database or "") if url.startswith("sqlite") else None
    if lite is not None:
        lite.execute("PRAGMA synchronous = OFF")
        lite.execute("PRAGMA cache_size = -2000000")
    pg = None if lite is not None else await asyncpg.connect(url)
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*bar, console=out) as progress:
        for name, values, total in tables:
            task = progress.add_task(name, total=total)
            names = [column.name for column in METADATA.tables[name].columns]
            while chunk := list(islice(values, CHUNK)):
                if lite is not None:
                    with lite:
                        lite.executemany(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", chunk)  # noqa: S608 - the names are the tables' own
                elif pg is not None:
                    await pg.copy_records_to_table(name, records=chunk, columns=names)
                progress.advance(task, len(chunk))
    if lite is not None:
        lite.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        lite.close()
    elif pg is not None:
        await pg.execute("VACUUM ANALYZE")
        await pg.execute("CHECKPOINT")
        await pg.close()


class Plans:
    """Records the statements of a call, and prints the database's plans for them."""

    def __init__(self, store: SqlStore) -> None:
        self._database = store._database
        self.seen: list[tuple[str, Any]] = []
        if isinstance(self._database, SqliteDatabase):
            engines = [self._database._read_engine, self._database._write_engine]
            self._how = "EXPLAIN QUERY PLAN "
        else:
            assert isinstance(self._database, PostgresDatabase)
            engines = [self._database._write_engine]
            self._how = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) "
        for engine in engines:
            event.listen(engine, "before_cursor_execute", self._see)

    def _see(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and statement.split(maxsplit=1)[0] in {"SELECT", "WITH", "UPDATE", "DELETE"}:
            self.seen.append((statement, parameters))

    async def show(self, name: str) -> None:
        seen, self.seen = self.seen, []
        for statement, parameters in seen:

            def explain(connection: Connection, statement: str = statement, parameters: Any = parameters) -> list[str]:
                found = connection.exec_driver_sql(self._how + statement, parameters).all()
                connection.rollback()
                return [str(row[-1]) for row in found]

            # In a transaction that is never committed: ANALYZE executes the statement.
            try:
                lines = await self._database.write(_rolled_back(explain))
            except _Explained as explained:
                lines = explained.lines
            out.print(f"[bold]{name}[/]: {' '.join(statement.split())[:100]}...", markup=True)
            for line in lines:
                out.print("    " + line, markup=False, soft_wrap=True)
        self.seen = []


class _Explained(Exception):
    """Carries a plan out of a transaction that is rolled back."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines


def _rolled_back(work: Callable[[Connection], list[str]]) -> Callable[[Connection], list[str]]:
    def run(connection: Connection) -> list[str]:
        raise _Explained(work(connection))

    return run


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(url: str, count: int, depth: int, length: int, repeat: int, *, plans: bool) -> None:
    await migrate(url)
    store = SqlStore(open_database(url, 60))
    assert isinstance(store, SqlStore)
    query = select(func.count()).select_from(conversations)
    existing = await store._database.read(lambda connection: connection.execute(query).scalar_one())
    if existing < count:
        began = time.perf_counter()
        await fill(url, Data(count, depth, length))
        out.print(f"{count:,} conversations of {depth} messages of {length} characters, in {time.perf_counter() - began:.0f} s")
    some = (await store.list(OWNER, size=1000)).conversations
    middle = await store._database.read(
        lambda connection: connection.execute(
            select(*conversations.c).order_by(conversations.c.id).offset(count // 2).limit(repeat * 4)
        ).all()
    )
    deep = paging.token(rows.ListToken(rows.digest(OWNER, None, "", ""), False, middle[0].updated, middle[0].id))
    each = iter([*(row.id for row in middle), *(c.id for c in some)] * 4)
    end = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("x" * length),)), "m", "p", Usage(1, 2, 3))
    messages = [Message(Role.USER, (Text("x" * length),))]
    replies: list[str] = []

    async def begin() -> None:
        replies.append((await store.begin_turn(OWNER, next(each), messages, request_id=new_id())).reply.id)

    async def begin_new() -> None:
        await store.begin_turn(OWNER, None, messages, title="new", request_id=new_id())

    calls: list[tuple[str, Callable[[], Awaitable[object]], int]] = [
        ("list, first 50", lambda: store.list(OWNER, size=50), repeat),
        ("list, 50 in the middle", lambda: store.list(OWNER, size=50, token=deep), repeat),
        ("list, pinned", lambda: store.list(OWNER, size=50, pinned=True), repeat),
        ("list, source of 1 in 1000", lambda: store.list(OWNER, size=50, source="rare"), repeat),
        ("list, title of 1 in 12", lambda: store.list(OWNER, size=50, title_contains="RIVER"), repeat),
        ("list, title that none has", lambda: store.list(OWNER, size=50, title_contains="nowhere"), max(3, repeat // 20)),
        ("get", lambda: store.get(OWNER, next(each)), repeat),
        (f"messages, all {depth}", lambda: store.messages(OWNER, next(each)), repeat),
        ("messages, a page of 20", lambda: store.messages(OWNER, next(each), size=20), repeat),
        (f"begin_turn behind {depth}", begin, repeat),
        ("end_turn", lambda: store.end_turn(OWNER, replies.pop(), end), repeat),
        ("begin_turn of a new one", begin_new, repeat),
        ("append", lambda: store.append(OWNER, next(each), messages), repeat),
        ("update", lambda: store.update(OWNER, next(each), title="renamed"), repeat),
        ("fork", lambda: store.fork(OWNER, next(each)), repeat),
        ("delete", lambda: store.delete(OWNER, next(each)), repeat),
        ("settle", store.settle, repeat),
    ]
    table = Table("call", "p50 ms", "p99 ms", "our CPU ms", title=make_url(url).drivername)
    planner = Plans(store)
    for name, call, times in calls:
        taken: list[float] = []
        before = cpu()
        for _ in range(times):
            began = time.perf_counter()
            await call()
            taken.append((time.perf_counter() - began) * 1000)
        used = (cpu() - before) / times * 1000
        worst = sorted(taken)[int(len(taken) * 0.99)]
        table.add_row(name, f"{statistics.median(taken):.2f}", f"{worst:.2f}", f"{used:.2f}")
        if plans and not name.startswith(("begin_turn of", "end_turn")):
            planner.seen = []
            await call()
            await planner.show(name)
        planner.seen = []
    for tasks in (1, 16, 64):
        table.add_row(f"turns, {tasks} at once", *(await turns(store, tasks, repeat, messages, end)))
    out.print(table)
    await store._database.close()


async def turns(store: SqlStore, tasks: int, repeat: int, messages: list[Message], end: TurnEnd) -> tuple[str, str, str]:
    """Measure whole turns by concurrent tasks, each in its own conversation.

    Returns the table's cells: median and 99th percentile in ms, and CPU ms for each turn.
    """
    taken: list[float] = []
    made = [(await store.create(OWNER, title="", source="", pinned=False, messages=messages * 10)).id for _ in range(tasks)]

    async def work(at: int) -> None:
        for _ in range(max(2, repeat // tasks)):
            began = time.perf_counter()
            # Always after the same ten messages.
            fork = made[at]
            turn = await store.begin_turn(OWNER, fork, messages, parent_id=heads[at])
            await store.end_turn(OWNER, turn.reply.id, end)
            taken.append((time.perf_counter() - began) * 1000)

    heads = [(await store.get(OWNER, id_)).head_id for id_ in made]
    before, began = cpu(), time.perf_counter()
    await asyncio.gather(*map(work, range(tasks)))
    used, wall = cpu() - before, time.perf_counter() - began
    out.print(f"{tasks} at once: {len(taken) / wall:,.0f} turns/s")
    return (
        f"{statistics.median(taken):.2f}",
        f"{sorted(taken)[int(len(taken) * 0.99)]:.2f}",
        f"{used / len(taken) * 1000:.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="the database to use; None: SQLite, then PostgreSQL")
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=50, help="of each conversation")
    parser.add_argument("--length", type=int, default=200, help="characters of each message")
    parser.add_argument("--repeat", type=int, default=200, help="how often each call is measured")
    parser.add_argument("--plans", action="store_true", help="print the plans")
    options = parser.parse_args()

    def run(url: str) -> None:
        uvloop.run(measure(url, options.conversations, options.messages, options.length, options.repeat, plans=options.plans))

    if options.url:
        run(options.url)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(f"sqlite:///{folder}/history.db")
    with Postgres() as server:
        run(server.url)


if __name__ == "__main__":
    main()
