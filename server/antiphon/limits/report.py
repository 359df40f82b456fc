"""What was used, for an admin to read: the ledger as it is written, added up by what is asked for, a page at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Subquery, and_, delete, func, literal, or_, select, tuple_, union_all

from antiphon.database import paging
from antiphon.database.base import Database
from antiphon.database.tables import ID, api_keys, model_usage, tag_usage
from antiphon.database.tables import usage as table
from antiphon.database.text import clean
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.limits.base import NANOS

_COUNTS: Final = ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")
_WHOSE: Final = ("day", "owner", "key")
_STORED: Final = "key:"


class Dimension(StrEnum):
    """By what usage is told apart, in the order in which it is told."""

    DAY = "day"
    OWNER = "owner"
    KEY = "key"
    PROVIDER = "provider"
    MODEL = "model"
    TAG = "tag"
    """A call counts once for each of its tags. Not together with provider or model."""


_OF_MODELS: Final = frozenset({Dimension.PROVIDER, Dimension.MODEL})

BY_OWNER: Final = frozenset({Dimension.DAY, Dimension.OWNER})


class DailyUse(Struct, frozen=True):
    """What was used: by one owner in one day, in UTC, or by whatever was asked for.

    `unpriced` counts the requests whose cost is not known, and not in `cost_usd`. What is not told apart is None or empty.
    """

    day: date | None
    owner: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int
    key: str = ""
    key_name: str = ""
    """What a stored key is called, while there is one."""
    provider: str = ""
    model: str = ""
    tag: str = ""


class UsePage(Struct, frozen=True):
    """One page of uses; `next_token` asks for the next one, and is empty at the end."""

    uses: tuple[DailyUse, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="w"):
    after: tuple[str, ...]
    filters: tuple[date, date, str, tuple[Dimension, ...]]


class UsageReport:
    """Shared by all calls of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, first: date, last: date, *, size: int, token: str = "", owner: str = "", by: Collection[Dimension] = BY_OWNER
    ) -> UsePage:
        """From `first` to `last`, of one owner or of all: the newest day first, and then in order of the other dimensions of `by`.

        Raises `InvalidRequest` for a page token that is not of this list, and for tags by model; `StoreUnavailable`.
        """
        dimensions = tuple(each for each in Dimension if each in by)
        detailed = not _OF_MODELS.isdisjoint(dimensions)
        if detailed and Dimension.TAG in dimensions:
            wrong = "a tag cannot be told apart by provider or model"
            raise InvalidRequest(wrong, (Violation(("group_by",), wrong),))
        source = _source(first, last, owner, detailed=detailed, tagged=Dimension.TAG in dimensions)
        columns = [source.c[each] for each in dimensions]
        query = (
            select(*columns, *(func.sum(source.c[name]) for name in _COUNTS))
            .group_by(*columns)
            .having(func.sum(source.c.requests) > 0)  # where nothing is grouped by, a sum of nothing is a row
            .order_by(*(column.desc() if column is source.c.day else column for column in columns))
            .limit(size + 1)
        )
        filters = (first, last, owner, dimensions)
        if token:
            after = paging.read_token(token, _Token)
            if after.filters != filters or len(after.after) != len(columns):
                raise paging.bad_token()
            query = query.where(_later(columns, [clean(text) for text in after.after], days=Dimension.DAY in dimensions))

        def work(connection: Connection) -> tuple[Sequence[Any], dict[str, str]]:
            rows = connection.execute(query).all()
            ids = [row.key.removeprefix(_STORED) for row in rows] if Dimension.KEY in dimensions else []
            named = select(api_keys.c.id, api_keys.c.name).where(api_keys.c.id.in_(ids))
            return rows, {f"{_STORED}{id_}": name for id_, name in connection.execute(named)} if ids else {}

        found, names = await self._database.read(work)
        uses = tuple(_use(dict(zip(dimensions, row, strict=False)), row[len(dimensions) :], names) for row in found[:size])
        more = len(found) > size
        return UsePage(uses, paging.token(_Token(tuple(found[size - 1][: len(columns)]), filters)) if more else "")

    async def prune(self, days: int) -> int:
        """Remove the rows of one day, if one is more than so many days ago, and return how many. Raise `StoreUnavailable`."""
        limit = (datetime.now(UTC).date() - timedelta(days=days)).isoformat()

        def work(connection: Connection) -> int:
            oldest = connection.execute(select(func.min(table.c.day))).scalar()
            if oldest is None or oldest >= limit:
                return 0
            for other in (model_usage, tag_usage):
                connection.execute(delete(other).where(other.c.day <= oldest))
            return connection.execute(delete(table).where(table.c.day == oldest)).rowcount

        return await self._database.write(work)


def _source(first: date, last: date, owner: str, *, detailed: bool, tagged: bool) -> Subquery:
    """Rows of usage in those days: by tag; or `detailed` with provider and model, which are empty for what is in `usage` alone."""

    def within(of: Any) -> Any:
        days = and_(of.c.day >= first.isoformat(), of.c.day <= last.isoformat())
        return and_(days, of.c.owner == clean(owner)) if owner else days

    if not detailed:
        of = tag_usage if tagged else table
        return select(of).where(within(of)).subquery()
    parts = select(model_usage).where(within(model_usage))
    sums = (func.sum(model_usage.c[name]).label(name) for name in _COUNTS)
    known = (
        select(*(model_usage.c[name] for name in _WHOSE), *sums)
        .where(within(model_usage))
        .group_by(*(model_usage.c[name] for name in _WHOSE))
        .subquery()
    )
    nothing = literal("", ID)
    rest = (
        select(
            *(table.c[name] for name in _WHOSE),
            nothing.label("provider"),
            nothing.label("model"),
            *((table.c[name] - func.coalesce(known.c[name], 0)).label(name) for name in _COUNTS),
        )
        .select_from(table.outerjoin(known, and_(*(table.c[name] == known.c[name] for name in _WHOSE))))
        .where(within(table), or_(known.c.day.is_(None), table.c.requests > known.c.requests))
    )
    return union_all(parts, rest).subquery()


def _later(columns: Sequence[Any], after: Sequence[str], *, days: bool) -> Any:
    """Return the condition for what comes after `after`: a day before, if that is the first column, else whatever is greater."""
    if not days:
        return tuple_(*columns) > tuple_(*map(literal, after))
    if len(columns) == 1:
        return columns[0] < after[0]
    return or_(columns[0] < after[0], and_(columns[0] == after[0], tuple_(*columns[1:]) > tuple_(*map(literal, after[1:]))))


def _use(names: dict[str, str], counts: Sequence[Any], keys: dict[str, str]) -> DailyUse:
    requests, asked, answered, cost, unpriced = map(int, counts)  # PostgreSQL's sums are no whole numbers by type
    day = date.fromisoformat(names["day"]) if "day" in names else None
    key = names.get("key", "")
    others = (names.get(each, "") for each in ("provider", "model", "tag"))
    figures = (requests, asked, answered, cost / NANOS, unpriced)
    return DailyUse(day, names.get("owner", ""), *figures, key, keys.get(key, ""), *others)
