"""The audit log: what admins did, and which calls were refused.

What an admin does is recorded in the transaction that does it, so that neither is without the other. Refusals are gathered here and
written every few seconds, as many alike as come in a row in one row: whoever knocks a thousand times a second fills one row, and
asks the database nothing. What waits for longer than the database is away is dropped, the oldest first, and still is in the logs.

No credential is ever in it: an actor is the id of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select

from antiphon.auth.caller import Origin
from antiphon.database import clock, paging, text
from antiphon.database.base import Database
from antiphon.database.ids import is_id, new_id
from antiphon.database.tables import audit_events

REFUSED: Final = "call.refused"

KEPT_DAYS: Final = 400
"""Days that events are kept: a year, and time to ask for it."""

_WAITING: Final = 1000
"""The most rows of refusals that wait to be written."""

_LONGEST: Final = 200
"""Characters that are kept of what a caller chose."""

_DAY: Final = 86_400_000_000

log = structlog.get_logger(__name__)


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


class AuditLog:
    """Shared by all calls of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, tuple[int, Event]] = {}
        self._last = ""

    def refused(self, event: Event) -> None:
        """Takes note of a call that was refused. Writes nothing yet."""
        event = _short(event)
        if self._last in self._waiting:
            time, before = self._waiting[self._last]
            if replace(before, request_id="", count=1) == replace(event, request_id=""):
                self._waiting[self._last] = (time, replace(before, count=before.count + 1))
                return
        if len(self._waiting) >= _WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._last = new_id()
        self._waiting[self._last] = (clock.now(), event)

    async def write(self) -> None:
        """Writes what waits. Raises `StoreUnavailable`, and keeps it."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        rows = [_row(id_, time, event) for id_, (time, event) in waiting.items()]
        try:
            await self._database.write(lambda connection: connection.execute(insert(audit_events), rows) and None)
        except BaseException:
            kept = {**waiting, **self._waiting}
            self._waiting = dict(list(kept.items())[-_WAITING:])
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
