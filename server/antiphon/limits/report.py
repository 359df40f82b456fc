"""What was used, for an admin to read: the ledger as it is written, by day and owner, a page at a time. Writes nothing."""

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
    """What one owner has used in one day, in UTC. `unpriced` counts the requests whose cost is not known, and not in `cost_usd`."""

    day: date
    owner: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int


class UsePage(Struct, frozen=True):
    """One page of uses; `next_token` asks for the next one, and is empty at the end."""

    uses: tuple[DailyUse, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="u"):
    day: date
    owner: str
    filters: tuple[date, date, str]


class UsageReport:
    """Shared by all calls of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, first: date, last: date, *, size: int, token: str = "", owner: str = "") -> UsePage:
        """From `first` to `last`, of one owner or of all: the newest day first, and in a day the owners in order.

        Raises `InvalidRequest` for a page token that is not of this list, `StoreUnavailable`.
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
        # PostgreSQL's sums are no whole numbers by type.
        uses = tuple(
            DailyUse(date.fromisoformat(day), whose, int(requests), int(asked), int(answered), int(cost) / NANOS, int(unpriced))
            for day, whose, requests, asked, answered, cost, unpriced in found[:size]
        )
        more = len(found) > size
        return UsePage(uses, paging.token(_Token(uses[-1].day, uses[-1].owner, (first, last, owner))) if more else "")

    async def prune(self, days: int) -> int:
        """Remove the rows of one day, if one is more than so many days ago, and return how many. Raise `StoreUnavailable`."""
        limit = (datetime.now(UTC).date() - timedelta(days=days)).isoformat()

        def work(connection: Connection) -> int:
            oldest = connection.execute(select(func.min(table.c.day))).scalar()
            if oldest is None or oldest >= limit:
                return 0
            return connection.execute(delete(table).where(table.c.day == oldest)).rowcount

        return await self._database.write(work)
