"""The ledger: requests, tokens and money used, by day, owner and key. Budgets are checked against it.

The database is not used during a request. Usage is added up in memory, and written every few seconds and when the server stops, so
a process that is killed loses what it had not written. While the database is unreachable, usage is kept for later; if the
connection is lost during a commit, that batch may be counted twice.

Days are in UTC. The key is `Principal.id`, which outlives the credential and contains no part of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, case, func, select

from antiphon.database.base import Database
from antiphon.database.tables import usage as table
from antiphon.database.text import clean
from antiphon.domain.call import Call, Observer
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.limits.base import NANOS
from antiphon.limits.quotas import subject

_DAY: Final = 86400

_Key = tuple[str, str, str]
"""A day, an owner, and the id of a key."""


class _Sums:
    """What one key used in one day and is not written yet."""

    __slots__ = ("completion_tokens", "cost", "prompt_tokens", "requests", "unpriced")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = self.cost = self.unpriced = 0

    def add(self, other: _Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Ledger(Observer):
    """The ledger of one process, and the sums that other processes wrote. It observes what calls use."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns Unix time."""
        self._database = database
        self._clock = clock
        self._pending: defaultdict[_Key, _Sums] = defaultdict(_Sums)
        self._spent: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._has_budgets = False
        self._day_number = -1
        self._today = self._month = ""

    def settled(self, call: Call) -> None:
        """Add a request to what its caller used."""
        self.add(call.caller, call.usage, call.cost_usd)

    def add(self, principal: Principal, usage: Usage | None, cost: float | None) -> None:
        """Add a request. `usage` is None if the tokens are not known; `cost`, in USD, is None if the price is not known."""
        self._start_day()
        sums = self._pending[self._today, principal.owner, principal.id]
        sums.requests += 1
        if usage is None:
            return
        sums.prompt_tokens += usage.prompt_tokens
        sums.completion_tokens += usage.completion_tokens
        if cost is None:
            sums.unpriced += 1
        elif cost:
            nanos = round(cost * NANOS)
            sums.cost += nanos
            self._add_spending(principal.owner, principal.id, self._today, nanos)
            self._add_spending(principal.owner, principal.id, self._month, nanos)

    def day(self) -> str:
        """Return today in UTC, such as 2026-11-25."""
        self._start_day()
        return self._today

    def month(self) -> str:
        """Return this month in UTC, such as 2026-11."""
        self._start_day()
        return self._month

    def spent(self, name: str, period: str) -> int:
        """Return what a key, an owner or all spent in a day or month, in nano-dollars, with what others have written."""
        self._has_budgets = True
        return self._spent.get((name, period), 0)

    async def write(self) -> None:
        """Write what is pending, and read what others wrote if there are budgets. Raises `StoreUnavailable`."""
        if not self._pending:
            if self._has_budgets:
                await self.read()
            return
        self._start_day()
        today, month = self._today, self._month
        writing, self._pending = self._pending, defaultdict(_Sums)

        def work(connection: Connection) -> list[tuple[str, str, int, int]]:
            # In order of key, so that two processes cannot deadlock.
            for (day, owner, key), sums in sorted(writing.items(), key=lambda item: item[0]):
                self._insert(connection, day, owner, key, sums)
            return _sums(connection, today, month) if self._has_budgets else []

        try:
            found = await self._database.write(work)
        except Exception:
            for key, sums in writing.items():
                self._pending[key].add(sums)
            raise
        if self._has_budgets:
            self._replace_spent(found, today, month)

    async def read(self) -> None:
        """Read this month's spending. Raises `StoreUnavailable`."""
        self._start_day()
        today, month = self._today, self._month
        self._replace_spent(await self._database.read(lambda connection: _sums(connection, today, month)), today, month)

    def _start_day(self) -> None:
        """If a new day has begun, update the day and month, and drop the sums of earlier ones."""
        number = int(self._clock() // _DAY)
        if number != self._day_number:
            self._day_number = number
            self._today = datetime.fromtimestamp(number * _DAY, UTC).date().isoformat()
            self._month = self._today[:7]
            for key in [key for key in self._spent if key[1] not in {self._today, self._month}]:
                del self._spent[key]

    def _add_spending(self, owner: str, key: str, period: str, nanos: int) -> None:
        for name in (subject("key", key), subject("owner", owner), "overall"):
            self._spent[name, period] += nanos

    def _replace_spent(self, found: list[tuple[str, str, int, int]], today: str, month: str) -> None:
        """Replace the spending by the database's sums plus what is not written yet."""
        self._spent.clear()
        for owner, key, day_nanos, month_nanos in found:
            self._add_spending(owner, key, today, day_nanos)
            self._add_spending(owner, key, month, month_nanos)
        for (day, owner, key), sums in self._pending.items():
            if sums.cost:
                self._add_spending(owner, key, day, sums.cost)
                self._add_spending(owner, key, day[:7], sums.cost)

    def _insert(self, connection: Connection, day: str, owner: str, key: str, sums: _Sums) -> None:
        counts = {
            "requests": sums.requests,
            "prompt_tokens": sums.prompt_tokens,
            "completion_tokens": sums.completion_tokens,
            "cost_nanos": sums.cost,
            "unpriced": sums.unpriced,
        }
        insert: Any = self._database.insert(table).values(day=day, owner=clean(owner), key=clean(key), **counts)
        added = {name: table.c[name] + insert.excluded[name] for name in counts}
        connection.execute(insert.on_conflict_do_update(index_elements=["day", "owner", "key"], set_=added))


def _sums(connection: Connection, today: str, month: str) -> list[tuple[str, str, int, int]]:
    """Return owner, key, and the nano-dollars of today and of this month."""
    day_nanos = func.sum(case((table.c.day == today, table.c.cost_nanos), else_=0))
    query = (
        select(table.c.owner, table.c.key, day_nanos, func.sum(table.c.cost_nanos))
        .where(table.c.day >= f"{month}-01", table.c.day <= today)
        .group_by(table.c.owner, table.c.key)
    )
    return [(owner, key, int(day), int(month)) for owner, key, day, month in connection.execute(query)]
