"""The audit log: what admins did, and which calls were refused.

What an admin does is recorded in the transaction that does it, so that neither is without the other. Refusals are gathered here and
written every few seconds, all that are alike as one row: whoever knocks a thousand times a second, at as many doors, asks the
database nothing. Those of known callers are alike in actor, target, reason and peer; those of nobody known in reason and peer, and
they are written once a minute. There is room for so many kinds of each; what comes beyond is one row for each actor and reason.
So nobody without a key takes the room of others, or makes more than 24 rows a minute and worker, which is 34,560 a day.

A worker that is killed loses what it had not written. While the database is away the oldest is dropped where there is no room. All
of it still is in the logs. No credential is ever here: an actor is the id of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select

from antiphon.database import clock, paging, text
from antiphon.database.base import Database
from antiphon.database.ids import is_id, new_id
from antiphon.database.tables import audit_events

REFUSED: Final = "call.refused"

KEPT_DAYS: Final = 400
"""Days that events are kept: a year, and time to ask for it."""

MANY: Final = "*"
"""The target, or the peer, of a row that stands for refusals of several."""

_NAMED: Final = 1000
_NAMELESS: Final = 20
"""Kinds of refusals that are told apart until they are written: of known callers, and of nobody known."""

NAMELESS_EVERY: Final = 60.0
"""Seconds between two writings of refusals of nobody known."""

_LONGEST: Final = 200
"""Characters that are kept of what a caller chose."""

_DAY: Final = 86_400_000_000

log = structlog.get_logger(__name__)


class Origin(Struct, frozen=True):
    """Who makes a call, as the id of a credential, which call it is, as its `x-request-id`, and the address that the edge saw."""

    actor: str
    request_id: str
    peer: str


class Event(Struct, frozen=True):
    """Something that was done or refused. `antiphon.v1.AuditEvent` tells what each field is."""

    action: str
    actor: str
    target: str
    reason: str = ""
    request_id: str = ""
    peer: str = ""
    count: int = 1


class StoredEvent(Struct, frozen=True):
    """An event as it is stored."""

    id: str
    time: datetime
    event: Event


class EventPage(Struct, frozen=True):
    """One page of events; `next_token` asks for the next one, and is empty at the end."""

    events: tuple[StoredEvent, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="a"):
    id: str


class _Kept(Struct, frozen=True):
    """Refusals that are alike, as they will be stored."""

    id: str
    time: int
    event: Event

    def and_also(self, event: Event) -> _Kept:
        """With more of them."""
        target = self.event.target if event.target == self.event.target else MANY
        return replace(self, event=replace(self.event, target=target, count=self.event.count + event.count))


class _Waiting:
    """Refusals that wait to be written, by kind."""

    def __init__(self, most: int) -> None:
        """`most` kinds are told apart; as many rows again may stand for several."""
        self._most = most
        self._kept: dict[Event, _Kept] = {}

    def add(self, event: Event) -> None:
        kind = _kind(event)
        if kind not in self._kept and len(self._kept) >= self._most:
            event = replace(event, target=MANY, peer=MANY)
            kind = _kind(event)
            if kind not in self._kept and len(self._kept) >= 2 * self._most:
                del self._kept[next(iter(self._kept))]
        before = self._kept.get(kind)
        self._kept[kind] = _Kept(new_id(), clock.now(), event) if before is None else before.and_also(event)

    def take(self) -> Mapping[Event, _Kept]:
        taken, self._kept = self._kept, {}
        return taken

    def put_back(self, taken: Mapping[Event, _Kept]) -> None:
        merged = dict(taken)
        for kind, newer in self._kept.items():
            merged[kind] = merged[kind].and_also(newer.event) if kind in merged else newer
        self._kept = dict(list(merged.items())[-2 * self._most :])


class AuditLog:
    """Shared by all calls of a process."""

    def __init__(self, database: Database, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer` tells seconds."""
        self._database = database
        self._timer = timer
        self._named = _Waiting(_NAMED)
        self._nameless = _Waiting(_NAMELESS)
        self._due = timer()

    def refused(self, event: Event) -> None:
        """Takes note of a call that was refused. Writes nothing yet."""
        (self._named if event.actor else self._nameless).add(_short(event))

    async def keep(self) -> None:
        """Writes what is due: what known callers were refused, and once a minute all. Raises `StoreUnavailable`, and keeps it."""
        if self._timer() >= self._due:
            await self._write(self._named, self._nameless)
        else:
            await self._write(self._named)

    async def write(self) -> None:
        """Writes all that waits. Raises `StoreUnavailable`, and keeps it."""
        await self._write(self._named, self._nameless)

    async def _write(self, *waiting: _Waiting) -> None:
        taken = [kinds.take() for kinds in waiting]
        rows = [_row(kept.id, kept.time, kept.event) for kinds in taken for kept in kinds.values()]
        if not rows:
            return
        if self._nameless in waiting:
            self._due = self._timer() + NAMELESS_EVERY
        # What was lost in the moment of a commit may be there already.
        insertion = self._database.insert(audit_events).on_conflict_do_nothing()
        try:
            await self._database.write(lambda connection: connection.execute(insertion, rows) and None)
        except BaseException:
            for kinds, those in zip(waiting, taken, strict=True):
                kinds.put_back(those)
            raise

    async def prune(self, days: int = KEPT_DAYS) -> None:
        """Deletes what is older than so many days. Raises `StoreUnavailable`."""
        old = delete(audit_events).where(audit_events.c.time < clock.now() - days * _DAY)
        await self._database.write(lambda connection: connection.execute(old) and None)

    async def list(self, *, size: int, token: str = "", actor: str = "", action: str = "") -> EventPage:
        """The newest first. Raises `InvalidRequest` for a page token that is not ours, `StoreUnavailable`."""
        query = select(audit_events).order_by(audit_events.c.id.desc()).limit(size + 1)
        if actor:
            query = query.where(audit_events.c.actor == text.clean(actor))
        if action:
            query = query.where(audit_events.c.action == text.clean(action))
        if token:
            after = paging.read_token(token, _Token)
            if not is_id(after.id):
                raise paging.bad_token()
            query = query.where(audit_events.c.id < after.id)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        more = len(found) > size
        return EventPage(tuple(map(_stored, found[:size])), paging.token(_Token(found[size - 1].id)) if more else "")


def record(connection: Connection, action: str, target: str, origin: Origin) -> None:
    """Records what is done in the transaction of `connection`."""
    event = Event(action, origin.actor, target, "", origin.request_id, origin.peer)
    connection.execute(insert(audit_events), _row(new_id(), clock.now(), _short(event)))


def _kind(event: Event) -> Event:
    """What refusals have in common that are one row."""
    return replace(event, request_id="", count=1, target=event.target if event.actor else "")


def _short(event: Event) -> Event:
    return replace(
        event,
        target=text.clean(event.target)[:_LONGEST],
        request_id=text.clean(event.request_id)[:_LONGEST],
        peer=text.clean(event.peer)[:_LONGEST],
    )


def _row(id_: str, time: int, event: Event) -> dict[str, Any]:
    return {
        "id": id_,
        "time": time,
        "actor": event.actor,
        "action": event.action,
        "target": event.target,
        "reason": event.reason,
        "count": event.count,
        "request_id": event.request_id,
        "peer": event.peer,
    }


def _stored(row: Sequence[Any]) -> StoredEvent:
    id_, time, actor, action, target, reason, count, request_id, peer = row
    return StoredEvent(id_, clock.read(time), Event(action, actor, target, reason, request_id, peer, count))
