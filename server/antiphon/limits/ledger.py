"""What has been used, by day, owner and key: requests, tokens and money. Budgets are held against it.

Beside it stands the same by provider and model, and by tag, for reading. How many of them a caller can fill it with is bounded.

Nothing here is on a request's way. What is used is added up in memory and written every few seconds, and when the server stops: a
process that is killed loses what it had not written yet. A database that is out of reach is written to when it is back; if it was
lost in the moment of a commit, that batch may be counted twice.

Days are those of UTC. The key is `Principal.id`, so that it outlives the credential itself and holds nothing of it.
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
"""Models that are told apart of one key and day; the others are `OTHER`."""

TAGS: Final = 100
"""Tags that are told apart of one key and day; so are others."""

OTHER: Final = "*"

_DAY: Final = 86400

_Key = tuple[str, str, str]
"""A day, an owner, and a key's id."""

_ModelKey = tuple[str, str, str, str, str]
"""The same, a provider and a model; these are empty where they are not known."""


_TagKey = tuple[str, str, str, str]
"""The same as `_Key`, and a tag with its value."""


class _Sums:
    """What is not written yet of one key and day."""

    __slots__ = ("completion_tokens", "cost", "prompt_tokens", "requests", "unpriced")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = self.cost = self.unpriced = 0

    def count(self, usage: Usage | None, nanos: int | None) -> None:
        """Add one request; `nanos` None: the price is not known."""
        self.requests += 1
        if usage is None:
            return
        self.prompt_tokens += usage.input_tokens
        self.completion_tokens += usage.output_tokens
        if nanos is None:
            self.unpriced += 1
        else:
            self.cost += nanos

    def add(self, other: _Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Ledger(Observer):
    """The ledger of one process, and the sum of all that others have written. It listens to what calls used."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells Unix time."""
        self._database = database
        self._clock = clock
        self._pending: dict[_ModelKey, _Sums] = {}
        self._models: defaultdict[_Key, set[tuple[str, str]]] = defaultdict(set)
        self._tagged: dict[_TagKey, _Sums] = {}
        self._tags: defaultdict[_Key, set[str]] = defaultdict(set)
        self._spent: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._asked = False
        self._number = -1
        self._today = self._month = ""

    def settled(self, call: Call) -> None:
        """Add a request to what its caller used."""
        self.add(call.caller, call.usage, call.cost_usd, call.provider, call.model, call.tags)

    def add(
        self,
        principal: Principal,
        usage: Usage | None,
        cost: float | None,
        provider: str = "",
        model: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """One request: its tokens, None where nobody knows them, and its cost in USD, None where the price is not known."""
        self._turn()
        key = (self._today, principal.owner, principal.id, provider, model)
        sums = self._pending.get(key) or self._begin(key)
        nanos = None if cost is None else round(cost * NANOS)
        sums.count(usage, nanos)
        if nanos and usage is not None:
            self._spend(principal.owner, principal.id, self._today, nanos)
            self._spend(principal.owner, principal.id, self._month, nanos)
        if tags:
            # A set: of many that are all beyond the bound, the call is one.
            for of_tag in {self._tag(key[:3], f"{name}={value}") for name, value in tags.items()}:
                self._tagged.setdefault(of_tag, _Sums()).count(usage, nanos)

    def day(self) -> str:
        """Today, as in 2026-11-25."""
        self._turn()
        return self._today

    def month(self) -> str:
        """The month that it is, as in 2026-11."""
        self._turn()
        return self._month

    def spent(self, name: str, period: str) -> int:
        """Nano-dollars that a key, an owner or all have spent in a day or month: here, and elsewhere as far as it was written."""
        self._asked = True
        return self._spent.get((name, period), 0)

    async def write(self) -> None:
        """Writes what is not written yet, and reads what others wrote, if there are budgets. Raises `StoreUnavailable`."""
        if not self._pending:
            if self._asked:
                await self.read()
            return
        self._turn()
        today, month = self._today, self._month
        writing, self._pending = self._pending, {}
        tagged, self._tagged = self._tagged, {}

        def work(connection: Connection) -> list[tuple[str, str, int, int]]:
            # In order of key, so that two processes cannot wait for each other.
            for (day, owner, key), sums in sorted(_by_key(writing).items(), key=lambda item: item[0]):
                self._insert(connection, table, {"day": day, "owner": owner, "key": key}, sums)
            for (day, owner, key, provider, model), sums in sorted(writing.items(), key=lambda item: item[0]):
                if provider or model:
                    names = {"day": day, "owner": owner, "key": key, "provider": provider, "model": model}
                    self._insert(connection, model_usage, names, sums)
            for (day, owner, key, tag), sums in sorted(tagged.items(), key=lambda item: item[0]):
                self._insert(connection, tag_usage, {"day": day, "owner": owner, "key": key, "tag": tag}, sums)
            return _sums(connection, today, month) if self._asked else []

        try:
            found = await self._database.write(work)
        except Exception:
            for key, sums in writing.items():
                self._pending.setdefault(key, _Sums()).add(sums)
            for of_tag, sums in tagged.items():
                self._tagged.setdefault(of_tag, _Sums()).add(sums)
            raise
        if self._asked:
            self._take_over(found, today, month)

    async def read(self) -> None:
        """Reads what has been spent this month. Raises `StoreUnavailable`."""
        self._turn()
        today, month = self._today, self._month
        self._take_over(await self._database.read(lambda connection: _sums(connection, today, month)), today, month)

    def _turn(self) -> None:
        """A new day begins, now and then."""
        number = int(self._clock() // _DAY)
        if number != self._number:
            self._number = number
            self._today = datetime.fromtimestamp(number * _DAY, UTC).date().isoformat()
            self._month = self._today[:7]
            self._models.clear()
            self._tags.clear()
            for key in [key for key in self._spent if key[1] not in {self._today, self._month}]:
                del self._spent[key]

    def _begin(self, key: _ModelKey) -> _Sums:
        """Return the sums of a key that has nothing pending, or of `OTHER` models if it asked for too many."""
        day, owner, id_, provider, model = key
        known = self._models[day, owner, id_]
        if len(known) < MODELS:
            known.add((provider, model))
        elif (provider, model) not in known:
            key = (day, owner, id_, OTHER, OTHER)
        return self._pending.setdefault(key, _Sums())

    def _tag(self, key: _Key, tag: str) -> _TagKey:
        """Return where a tag is counted: `OTHER`, if there are too many of the key's."""
        known = self._tags[key]
        if len(known) < TAGS:
            known.add(tag)
        return (*key, tag if tag in known else OTHER)

    def _spend(self, owner: str, key: str, period: str, nanos: int) -> None:
        for name in (subject("key", key), subject("owner", owner), "overall"):
            self._spent[name, period] += nanos

    def _take_over(self, found: list[tuple[str, str, int, int]], today: str, month: str) -> None:
        """The sums of the database, and on top what is not in it yet."""
        self._spent.clear()
        for owner, key, in_day, in_month in found:
            self._spend(owner, key, today, in_day)
            self._spend(owner, key, month, in_month)
        for (day, owner, key, _, _), sums in self._pending.items():
            if sums.cost:
                self._spend(owner, key, day, sums.cost)
                self._spend(owner, key, day[:7], sums.cost)

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
    """Nano-dollars of each owner and key: of today, and of this month."""
    in_day = func.sum(case((table.c.day == today, table.c.cost_nanos), else_=0))
    query = (
        select(table.c.owner, table.c.key, in_day, func.sum(table.c.cost_nanos))
        .where(table.c.day >= f"{month}-01", table.c.day <= today)
        .group_by(table.c.owner, table.c.key)
    )
    return [(owner, key, int(day), int(whole)) for owner, key, day, whole in connection.execute(query)]
