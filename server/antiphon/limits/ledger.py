"""The ledger: requests, tokens and money used, by day, owner and key. Budgets are checked against it.

Two more tables, for reports only, have the same by deployment and model, and by tag. The number of their rows is limited by key and
day (`MODELS`, `TAGS`).

The database is not used during a request. Usage is added up in memory, and written every few seconds and when the server stops, so
a process that is killed loses what it had not written. While the database is unreachable, usage is kept for later; if the
connection is lost during a commit, that batch may be counted twice.

Days are in UTC. The key is `Principal.id`, which outlives the credential and contains no part of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, case, func, select

from antiphon.database.base import Database
from antiphon.database.tables import model_usage, tag_usage
from antiphon.database.tables import usage as table
from antiphon.database.text import clean
from antiphon.domain.call import Call, Observer
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.limits.base import NANOS
from antiphon.limits.quotas import subject

MODELS: Final = 100
"""The most models counted separately for one key and day; further ones are counted as `OTHER`."""

TAGS: Final = 100
"""The most tags counted separately for one key and day; further ones are counted as `OTHER`."""

OTHER: Final = "*"

_DAY: Final = 86400

_Key = tuple[str, str, str]
"""A day, an owner, and the id of a key."""

_ModelKey = tuple[str, str, str, str, str]
"""A day, an owner, the id of a key, a deployment and a model; the last two are empty if unknown. A deployment is called as its
provider, or `<provider>/<deployment>`."""


_TagKey = tuple[str, str, str, str]
"""A day, an owner, the id of a key, and a tag such as "team=search"."""


class _Sums:
    """What one key used in one day and is not written yet."""

    __slots__ = ("completion_tokens", "cost", "prompt_tokens", "requests", "unpriced")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = self.cost = self.unpriced = 0

    def count(self, usage: Usage | None, nanos: int | None, requests: int) -> None:
        """Add the usage of a request. `nanos` is its cost in nano-dollars; None: the price is not known."""
        self.requests += requests
        if usage is None:
            return
        self.prompt_tokens += usage.input_tokens
        self.completion_tokens += usage.output_tokens
        if nanos is None:
            self.unpriced += requests
        else:
            self.cost += nanos

    def add(self, other: _Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Ledger(Observer):
    """The ledger of one process, and the sums that other processes wrote. It observes what calls use."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns Unix time."""
        self._database = database
        self._clock = clock
        self._pending: dict[_ModelKey, _Sums] = {}
        self._models: defaultdict[_Key, set[tuple[str, str]]] = defaultdict(set)
        self._pending_tags: dict[_TagKey, _Sums] = {}
        self._tags: defaultdict[_Key, set[str]] = defaultdict(set)
        self._spent: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._has_budgets = False
        self._day_number = -1
        self._periods = ("", "")

    def settled(self, call: Call) -> None:
        """Add a request to what its caller used."""
        self.add(call.caller, call.usage, call.cost_usd, call.deployment or call.provider, call.model, call.tags)
        for each in call.failed_uses:
            self.add(call.caller, each.usage, each.cost_usd, each.deployment, each.model, call.tags, requests=0)

    def add(
        self,
        principal: Principal,
        usage: Usage | None,
        cost: float | None,
        deployment: str = "",
        model: str = "",
        tags: Mapping[str, str] | None = None,
        *,
        requests: int = 1,
    ) -> None:
        """Add a request, or with 0 `requests` what another attempt of one used.

        `usage` is None if the tokens are not known; `cost`, in USD, is None if the price is not known.
        """
        today, month = self.periods()
        key = (today, principal.owner, principal.id, deployment, model)
        sums = self._pending.get(key) or self._new_sums(key)
        nanos = None if cost is None else round(cost * NANOS)
        sums.count(usage, nanos, requests)
        if nanos and usage is not None:
            self._add_spending(principal.owner, principal.id, today, nanos)
            self._add_spending(principal.owner, principal.id, month, nanos)
        if tags:
            # A set, so that a call with several tags over the limit counts once under `OTHER`.
            for tag_key in {self._tag_key(key[:3], f"{name}={value}") for name, value in tags.items()}:
                self._pending_tags.setdefault(tag_key, _Sums()).count(usage, nanos, requests)

    def periods(self) -> tuple[str, str]:
        """Return today and this month in UTC, such as 2026-11-25 and 2026-11. On a new day, drop the sums of earlier ones."""
        number = int(self._clock() // _DAY)
        if number != self._day_number:
            self._day_number = number
            today = datetime.fromtimestamp(number * _DAY, UTC).date().isoformat()
            self._periods = (today, today[:7])
            self._models.clear()
            self._tags.clear()
            for key in [key for key in self._spent if key[1] not in self._periods]:
                del self._spent[key]
        return self._periods

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
        today, month = self.periods()
        writing, self._pending = self._pending, {}
        tagged, self._pending_tags = self._pending_tags, {}

        def work(connection: Connection) -> list[tuple[str, str, int, int]]:
            # In order of key, so that two processes cannot deadlock.
            for (day, owner, key), sums in sorted(_by_key(writing).items(), key=lambda item: item[0]):
                self._insert(connection, table, {"day": day, "owner": owner, "key": key}, sums)
            for (day, owner, key, deployment, model), sums in sorted(writing.items(), key=lambda item: item[0]):
                if deployment or model:
                    names = {"day": day, "owner": owner, "key": key, "provider": deployment, "model": model}
                    self._insert(connection, model_usage, names, sums)
            for (day, owner, key, tag), sums in sorted(tagged.items(), key=lambda item: item[0]):
                self._insert(connection, tag_usage, {"day": day, "owner": owner, "key": key, "tag": tag}, sums)
            return _sums(connection, today, month) if self._has_budgets else []

        try:
            found = await self._database.write(work)
        except Exception:
            for key, sums in writing.items():
                self._pending.setdefault(key, _Sums()).add(sums)
            for tag_key, sums in tagged.items():
                self._pending_tags.setdefault(tag_key, _Sums()).add(sums)
            raise
        if self._has_budgets:
            self._replace_spent(found, today, month)

    async def read(self) -> None:
        """Read this month's spending. Raises `StoreUnavailable`."""
        today, month = self.periods()
        self._replace_spent(await self._database.read(lambda connection: _sums(connection, today, month)), today, month)

    def _new_sums(self, key: _ModelKey) -> _Sums:
        """Return the sums for a key that has none pending; those of `OTHER` if the key used `MODELS` other models today."""
        day, owner, id_, deployment, model = key
        known = self._models[day, owner, id_]
        if len(known) < MODELS:
            known.add((deployment, model))
        elif (deployment, model) not in known:
            key = (day, owner, id_, OTHER, OTHER)
        return self._pending.setdefault(key, _Sums())

    def _tag_key(self, key: _Key, tag: str) -> _TagKey:
        """Return the key under which a tag is counted; that of `OTHER` if the key used `TAGS` other tags today."""
        known = self._tags[key]
        if len(known) < TAGS:
            known.add(tag)
        return (*key, tag if tag in known else OTHER)

    def _add_spending(self, owner: str, key: str, period: str, nanos: int) -> None:
        for name in (subject("key", key), subject("owner", owner), "overall"):
            self._spent[name, period] += nanos

    def _replace_spent(self, found: list[tuple[str, str, int, int]], today: str, month: str) -> None:
        """Replace the spending by the database's sums plus what is not written yet."""
        self._spent.clear()
        for owner, key, day_nanos, month_nanos in found:
            self._add_spending(owner, key, today, day_nanos)
            self._add_spending(owner, key, month, month_nanos)
        for (day, owner, key, _, _), sums in self._pending.items():
            if sums.cost:
                self._add_spending(owner, key, day, sums.cost)
                self._add_spending(owner, key, day[:7], sums.cost)

    def _insert(self, connection: Connection, into: Table, names: dict[str, str], sums: _Sums) -> None:
        counts = {
            "requests": sums.requests,
            "prompt_tokens": sums.prompt_tokens,
            "completion_tokens": sums.completion_tokens,
            "cost_nanos": sums.cost,
            "unpriced": sums.unpriced,
        }
        insert: Any = self._database.insert(into).values({name: clean(value) for name, value in names.items()} | counts)
        added = {name: into.c[name] + insert.excluded[name] for name in counts}
        connection.execute(insert.on_conflict_do_update(index_elements=list(names), set_=added))


def _by_key(sums: dict[_ModelKey, _Sums]) -> dict[_Key, _Sums]:
    found: defaultdict[_Key, _Sums] = defaultdict(_Sums)
    for (day, owner, key, _, _), each in sums.items():
        found[day, owner, key].add(each)
    return found


def _sums(connection: Connection, today: str, month: str) -> list[tuple[str, str, int, int]]:
    """Return owner, key, and the nano-dollars of today and of this month."""
    day_nanos = func.sum(case((table.c.day == today, table.c.cost_nanos), else_=0))
    query = (
        select(table.c.owner, table.c.key, day_nanos, func.sum(table.c.cost_nanos))
        .where(table.c.day >= f"{month}-01", table.c.day <= today)
        .group_by(table.c.owner, table.c.key)
    )
    return [(owner, key, int(day), int(month)) for owner, key, day, month in connection.execute(query)]
