"""Usage reports for admins: the ledger as written to the database, by day and owner, in pages. Writes nothing but removals."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, func, or_, select

from antiphon.database import paging
from antiphon.database.base import Database
from antiphon.database.tables import usage as table
from antiphon.database.text import clean
from antiphon.limits.base import NANOS

_COUNTS: Final = ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")


class DailyUse(Struct, frozen=True):
    """The usage of one owner on one day (UTC). `unpriced` counts requests of unknown cost, which `cost_usd` leaves out."""

    day: date
    owner: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int


class UsePage(Struct, frozen=True):
    """One page of usage; `next_token` requests the next page, and is empty on the last one."""

    uses: tuple[DailyUse, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="u"):
    day: date
    owner: str
    filters: tuple[date, date, str]


class UsageReport:
    """Reads usage from the ledger; shared by all calls of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, first: date, last: date, *, size: int, token: str = "", owner: str = "") -> UsePage:
        """Return the usage from `first` to `last`, of one owner or all: newest day first, owners in order.

        Raises `InvalidRequest` for a page token of another list, and `StoreUnavailable`.
        """
        sums = (func.sum(table.c[name]) for name in _COUNTS)
        query = (
            select(table.c.day, table.c.owner, *sums)
            .where(table.c.day >= first.isoformat(), table.c.day <= last.isoformat())
            .group_by(table.c.day, table.c.owner)
            .order_by(table.c.day.desc(), table.c.owner)
            .limit(size + 1)
        )
        if owner:
            query = query.where(table.c.owner == clean(owner))
        if token:
            after = paging.read_token(token, _Token)
            if after.filters != (first, last, owner):
                raise paging.bad_token()
            day = after.day.isoformat()
            query = query.where(or_(table.c.day < day, and_(table.c.day == day, table.c.owner > clean(after.owner))))
        found = await self._database.read(lambda connection: connection.execute(query).all())
        # PostgreSQL returns sums as decimals.
        uses = tuple(
            DailyUse(date.fromisoformat(day), whose, int(requests), int(asked), int(answered), int(cost) / NANOS, int(unpriced))
            for day, whose, requests, asked, answered, cost, unpriced in found[:size]
        )
        more = len(found) > size
        return UsePage(uses, paging.token(_Token(uses[-1].day, uses[-1].owner, (first, last, owner))) if more else "")

    async def prune(self, days: int) -> int:
        """Delete the rows of the oldest day if it is more than `days` ago; return how many. Raises `StoreUnavailable`."""
        limit = (datetime.now(UTC).date() - timedelta(days=days)).isoformat()

        def work(connection: Connection) -> int:
            oldest = connection.execute(select(func.min(table.c.day))).scalar()
            if oldest is None or oldest >= limit:
                return 0
            return connection.execute(delete(table).where(table.c.day == oldest)).rowcount

        return await self._database.write(work)
