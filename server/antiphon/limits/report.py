"""Usage reports for admins: the ledger as written to the database, summed by the requested dimensions, in pages.

Writes nothing but removals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Subquery, and_, case, delete, func, literal, or_, select, tuple_, union_all

from antiphon.database import paging
from antiphon.database.base import Database
from antiphon.database.tables import ID, api_keys, model_usage, tag_usage
from antiphon.database.tables import usage as table
from antiphon.database.text import clean
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.limits.base import NANOS

_COUNTS: Final = ("requests", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced")
_KEY_COLUMNS: Final = ("day", "owner", "key")
_STORED: Final = "key:"


class Dimension(StrEnum):
    """The dimensions that usage can be grouped by, in the order of the report."""

    DAY = "day"
    OWNER = "owner"
    KEY = "key"
    PROVIDER = "provider"
    MODEL = "model"
    TAG = "tag"
    """A call counts once for each of its tags. Cannot be combined with provider, model or deployment."""
    DEPLOYMENT = "deployment"


_OF_MODELS: Final = frozenset({Dimension.PROVIDER, Dimension.MODEL, Dimension.DEPLOYMENT})

BY_OWNER: Final = frozenset({Dimension.DAY, Dimension.OWNER})


class DailyUse(Struct, frozen=True):
    """Usage of one owner on one day (UTC), or of another combination of dimensions; a dimension not requested is None or empty.

    `unpriced` counts requests of unknown cost, which `cost_usd` leaves out.
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
    """The name of a stored key, while the key exists."""
    provider: str = ""
    model: str = ""
    tag: str = ""
    deployment: str = ""


class UsePage(Struct, frozen=True):
    """One page of usage; `next_token` requests the next page, and is empty on the last one."""

    uses: tuple[DailyUse, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="w"):
    after: tuple[str, ...]
    filters: tuple[date, date, str, tuple[Dimension, ...]]


class UsageReport:
    """Reads usage from the ledger; shared by all calls of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, first: date, last: date, *, size: int, token: str = "", owner: str = "", by: Collection[Dimension] = BY_OWNER
    ) -> UsePage:
        """Return the usage from `first` to `last`, of one owner or all: newest day first, the other dimensions of `by` in order.

        Raises `InvalidRequest` for a page token of another list, and for tags together with models; and `StoreUnavailable`.
        """
        dimensions = tuple(each for each in Dimension if each in by)
        detailed = not _OF_MODELS.isdisjoint(dimensions)
        if detailed and Dimension.TAG in dimensions:
            wrong = "a tag cannot be told apart by provider, model or deployment"
            raise InvalidRequest(wrong, (Violation(("group_by",), wrong),))
        source = _source(first, last, owner, detailed=detailed, tagged=Dimension.TAG in dimensions)
        columns = [source.c[each] for each in dimensions]
        query = (
            select(*columns, *(func.sum(source.c[name]) for name in _COUNTS))
            .group_by(*columns)
            # Without a grouping, the sum of no rows is a row. A model whose attempts all failed has tokens, but no requests.
            .having(func.sum(source.c.requests) + func.sum(source.c.prompt_tokens) > 0)
            .order_by(*(column.desc() if column is source.c.day else column for column in columns))
            .limit(size + 1)
        )
        filters = (first, last, owner, dimensions)
        if token:
            after = paging.read_token(token, _Token)
            if after.filters != filters or len(after.after) != len(columns):
                raise paging.bad_token()
            query = query.where(_after(columns, [clean(text) for text in after.after], days=Dimension.DAY in dimensions))

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
        """Delete the rows of the oldest day if it is more than `days` ago; return how many. Raises `StoreUnavailable`."""
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
    """Return the rows of usage in those days: by tag, by key, or (`detailed`) by deployment and model, if these are known."""

    def within(of: Any) -> Any:
        days = and_(of.c.day >= first.isoformat(), of.c.day <= last.isoformat())
        return and_(days, of.c.owner == clean(owner)) if owner else days

    if not detailed:
        of = tag_usage if tagged else table
        return select(of).where(within(of)).subquery()
    name, counts = model_usage.c.provider, (model_usage.c[each] for each in _COUNTS)
    # The part before the slash: `rtrim` removes the characters that are no slash, then the slash. Both databases have it.
    provider = case((name.contains("/"), func.rtrim(func.rtrim(name, func.replace(name, "/", "")), "/")), else_=name)
    parts = select(
        *(model_usage.c[each] for each in _KEY_COLUMNS),
        provider.label("provider"),
        name.label("deployment"),
        model_usage.c.model,
        *counts,
    ).where(within(model_usage))
    sums = (func.sum(model_usage.c[name]).label(name) for name in _COUNTS)
    known = (
        select(*(model_usage.c[name] for name in _KEY_COLUMNS), *sums)
        .where(within(model_usage))
        .group_by(*(model_usage.c[name] for name in _KEY_COLUMNS))
        .subquery()
    )
    nothing = literal("", ID)
    rest = (
        select(
            *(table.c[name] for name in _KEY_COLUMNS),
            nothing.label("provider"),
            nothing.label("deployment"),
            nothing.label("model"),
            *((table.c[name] - func.coalesce(known.c[name], 0)).label(name) for name in _COUNTS),
        )
        .select_from(table.outerjoin(known, and_(*(table.c[name] == known.c[name] for name in _KEY_COLUMNS))))
        .where(within(table), or_(known.c.day.is_(None), table.c.requests > known.c.requests))
    )
    return union_all(parts, rest).subquery()


def _after(columns: Sequence[Any], after: Sequence[str], *, days: bool) -> Any:
    """Return the condition for rows after `after` in the report's order: earlier days first, then greater values."""
    if not days:
        return tuple_(*columns) > tuple_(*map(literal, after))
    if len(columns) == 1:
        return columns[0] < after[0]
    return or_(columns[0] < after[0], and_(columns[0] == after[0], tuple_(*columns[1:]) > tuple_(*map(literal, after[1:]))))


def _use(names: dict[str, str], counts: Sequence[Any], keys: dict[str, str]) -> DailyUse:
    requests, asked, answered, cost, unpriced = map(int, counts)  # PostgreSQL returns sums as decimals
    day = date.fromisoformat(names["day"]) if "day" in names else None
    key = names.get("key", "")
    others = (names.get(each, "") for each in ("provider", "model", "tag", "deployment"))
    figures = (requests, asked, answered, cost / NANOS, unpriced)
    return DailyUse(day, names.get("owner", ""), *figures, key, keys.get(key, ""), *others)
