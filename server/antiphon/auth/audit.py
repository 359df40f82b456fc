"""The audit log: what admins did, and which calls were refused.

An admin's action is recorded in the transaction that performs it, so neither is stored without the other. Refusals are collected in
memory, written every few seconds, and merged: equal ones become one row with a count, so a flood of refused calls costs the
database nothing. Refusals of known callers are merged if actor, target, reason and peer are equal. Refusals of anonymous callers
are merged if reason and peer are equal, and are written once a minute. Each of the two has room for a bounded number of groups;
refusals beyond it are merged by actor and reason alone. So callers without a key take no room from others, and make at most 24 rows
a minute and worker, which is 34,560 a day.

A worker that is killed loses the refusals that it had not written. While the database is unavailable, the oldest are dropped when
the room is full. All of them are still in the logs. No credential is ever stored: an actor is the id of a credential.
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
"""Days for which events are kept: a year, and some time for an inquiry after it."""

MANY: Final = "*"
"""The target or the peer of a row that merges refusals with different ones."""

_MAX_KNOWN: Final = 1000
_MAX_ANONYMOUS: Final = 20
"""The most groups of refusals between two writes: of known callers, and of anonymous ones."""

ANONYMOUS_INTERVAL: Final = 60.0
"""Seconds between two writes of the refusals of anonymous callers."""

_MAX_CHARACTERS: Final = 200
"""Characters kept of a text that the caller chose."""

_DAY: Final = 86_400_000_000

log = structlog.get_logger(__name__)


class CallOrigin(Struct, frozen=True):
    """Where a call comes from: the id of its credential, its `x-request-id`, and the peer's address as the edge saw it."""

    actor: str
    request_id: str
    peer: str


class Event(Struct, frozen=True):
    """An action or a refusal. `antiphon.v1.AuditEvent` documents the fields."""

    action: str
    actor: str
    target: str
    reason: str = ""
    request_id: str = ""
    peer: str = ""
    count: int = 1


class StoredEvent(Struct, frozen=True):
    """An event as stored."""

    id: str
    time: datetime
    event: Event


class EventPage(Struct, frozen=True):
    """One page of events; `next_token` requests the next page, and is empty on the last one."""

    events: tuple[StoredEvent, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="a"):
    id: str


class _Group(Struct, frozen=True):
    """Equal refusals, merged into the row that will be stored."""

    id: str
    time: int
    event: Event

    def merged_with(self, event: Event) -> _Group:
        """Return the group with the event's refusals added."""
        target = self.event.target if event.target == self.event.target else MANY
        return replace(self, event=replace(self.event, target=target, count=self.event.count + event.count))


class _PendingRefusals:
    """The refusals that are not written yet, in groups."""

    def __init__(self, limit: int) -> None:
        """Keep up to `limit` groups apart, and up to `limit` more that merge several targets and peers."""
        self._limit = limit
        self._groups: dict[Event, _Group] = {}

    def add(self, event: Event) -> None:
        key = _group_key(event)
        if key not in self._groups and len(self._groups) >= self._limit:
            event = replace(event, target=MANY, peer=MANY)
            key = _group_key(event)
            if key not in self._groups and len(self._groups) >= 2 * self._limit:
                del self._groups[next(iter(self._groups))]
        group = self._groups.get(key)
        self._groups[key] = _Group(new_id(), clock.now(), event) if group is None else group.merged_with(event)

    def take(self) -> Mapping[Event, _Group]:
        taken, self._groups = self._groups, {}
        return taken

    def put_back(self, taken: Mapping[Event, _Group]) -> None:
        merged = dict(taken)
        for key, newer in self._groups.items():
            merged[key] = merged[key].merged_with(newer.event) if key in merged else newer
        self._groups = dict(list(merged.items())[-2 * self._limit :])


class AuditLog:
    """The audit log of a process, shared by all its calls."""

    def __init__(self, database: Database, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer` returns the time in seconds."""
        self._database = database
        self._timer = timer
        self._known = _PendingRefusals(_MAX_KNOWN)
        self._anonymous = _PendingRefusals(_MAX_ANONYMOUS)
        self._due = timer()

    def refused(self, event: Event) -> None:
        """Note a refused call in memory, to be written later."""
        (self._known if event.actor else self._anonymous).add(_truncated(event))

    async def keep(self) -> None:
        """Write the refusals of known callers, and once a minute those of anonymous ones.

        Raises `StoreUnavailable` if the database cannot be reached; the refusals are then kept for the next write.
        """
        if self._timer() >= self._due:
            await self._write(self._known, self._anonymous)
        else:
            await self._write(self._known)

    async def write(self) -> None:
        """Write all pending refusals. Raises `StoreUnavailable`, and then keeps them for the next write."""
        await self._write(self._known, self._anonymous)

    async def _write(self, *pending: _PendingRefusals) -> None:
        taken = [refusals.take() for refusals in pending]
        rows = [_row(group.id, group.time, group.event) for groups in taken for group in groups.values()]
        if not rows:
            return
        if self._anonymous in pending:
            self._due = self._timer() + ANONYMOUS_INTERVAL
        # If the connection was lost during a commit, the rows may be stored already.
        insertion = self._database.insert(audit_events).on_conflict_do_nothing()
        try:
            await self._database.write(lambda connection: connection.execute(insertion, rows) and None)
        except BaseException:
            for refusals, groups in zip(pending, taken, strict=True):
                refusals.put_back(groups)
            raise

    async def prune(self, days: int = KEPT_DAYS) -> None:
        """Delete events older than `days`. Raises `StoreUnavailable`."""
        old = delete(audit_events).where(audit_events.c.time < clock.now() - days * _DAY)
        await self._database.write(lambda connection: connection.execute(old) and None)

    async def list(self, *, size: int, token: str = "", actor: str = "", action: str = "") -> EventPage:
        """Return a page of events, newest first.

        Raises `InvalidRequest` for a page token that this list did not issue, and `StoreUnavailable`.
        """
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


def record(connection: Connection, action: str, target: str, origin: CallOrigin) -> None:
    """Record an action in the transaction of `connection`."""
    event = Event(action, origin.actor, target, "", origin.request_id, origin.peer)
    connection.execute(insert(audit_events), _row(new_id(), clock.now(), _truncated(event)))


def _group_key(event: Event) -> Event:
    """Return the event without the fields in which the refusals of one group may differ."""
    return replace(event, request_id="", count=1, target=event.target if event.actor else "")


def _truncated(event: Event) -> Event:
    return replace(
        event,
        target=text.clean(event.target)[:_MAX_CHARACTERS],
        request_id=text.clean(event.request_id)[:_MAX_CHARACTERS],
        peer=text.clean(event.peer)[:_MAX_CHARACTERS],
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
