"""Export and erasure of the data of an owner.

An owner is a name, as in `Principal.owner`. In the audit log, which outlives the erasure, the name is replaced by a digest: whoever
knows the name can recognise it, and nobody can read it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from antiphon.auth import audit
from antiphon.database import text
from antiphon.database.base import Database
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.history.retention import CONVERSATIONS, some
from antiphon.history.tree import Found
from antiphon.owners import statements
from antiphon.owners.lines import line

MAX_OWNER: Final = 1000
PIECE: Final = 1024 * 1024
"""The most bytes exported in one piece."""

_ROWS: Final = 200
"""The most rows read at a time."""


class Erased(Struct, frozen=True):
    """The numbers of rows removed; of `audit_events`, the number made anonymous."""

    conversations: int
    messages: int
    keys: int
    usage_rows: int
    audit_events: int


def digest_of(owner: str) -> str:
    """Return the digest that replaces an owner's name in the audit log."""
    return f"owner:sha256:{hashlib.sha256(owner.encode()).hexdigest()}"


class Owners:
    """Exports and erases owners' data; shared by all calls of a process.

    Its methods raise `StoreUnavailable`, and `InvalidRequest` for a name that no owner can have.
    """

    def __init__(self, database: Database, configured: Mapping[str, Sequence[str]] | None = None) -> None:
        """Take `configured`: the credentials in the configuration, by owner, as named in the audit log."""
        self._database = database
        self._configured = configured or {}

    async def export(self, owner: str, origin: audit.CallOrigin) -> AsyncGenerator[bytes, None]:
        """Yield all data of the owner as JSON Lines, in pieces of at most `PIECE` bytes that may end within a line.

        This is not one snapshot: what is written meanwhile may or may not be included.
        """
        _check(owner)
        await self._database.write(lambda connection: audit.record(connection, "owners.export", digest_of(owner), origin))
        waiting = bytearray()
        async for written in self._lines(owner):
            waiting += written
            while len(waiting) >= PIECE:
                yield bytes(waiting[:PIECE])
                del waiting[:PIECE]
        if waiting:
            yield bytes(waiting)

    async def erase(self, owner: str, origin: audit.CallOrigin) -> Erased:
        """Remove all data of the owner, its keys first, in the same transaction that records the erasure.

        The rest takes several transactions: after `StoreUnavailable` a part may be removed, and another call continues. What the
        owner's calls in flight write afterwards stays, so erase again a minute after the last of them has ended.
        """
        _check(owner)
        digest = digest_of(owner)

        def begin(connection: Connection) -> tuple[int, int]:
            events = connection.execute(
                statements.ANONYMIZE_ACTOR, {"ids": self._credentials(connection, owner), "digest": digest}
            ).rowcount
            keys = connection.execute(statements.DELETE_KEYS, {"owner": owner}).rowcount
            audit.record(connection, "owners.erase", digest, origin)
            return keys, events

        def part(connection: Connection) -> tuple[int, int]:
            found = some(connection.execute(statements.LOCKED, {"owner": owner, "limit": CONVERSATIONS}).all())
            at = {"ids": sorted({row.tree_id for row in found})}
            count = connection.execute(statements.COUNT_MESSAGES, at).scalar_one()
            removed = connection.execute(statements.DELETE_CONVERSATIONS, at).rowcount
            connection.execute(statements.DELETE_TREES, at)
            return removed, count

        def delete_usage(connection: Connection) -> int:
            for statement in (statements.DELETE_MODEL_USAGE, statements.DELETE_TAG_USAGE):
                connection.execute(statement, {"owner": owner})
            return connection.execute(statements.DELETE_USAGE, {"owner": owner}).rowcount

        keys, events = await self._database.write(begin)
        conversations = messages = 0
        while True:
            removed, count = await self._database.write(part)
            if not removed:
                break
            conversations += removed
            messages += count
        rows = await self._database.write(delete_usage)
        return Erased(conversations, messages, keys, rows, events)

    async def _lines(self, owner: str) -> AsyncGenerator[bytes, None]:
        at = {"owner": owner}
        for kind, query in (
            ("key", statements.KEY_ROWS),
            ("usage", statements.USAGE_ROWS),
            ("model_usage", statements.MODEL_USAGE_ROWS),
            ("tag_usage", statements.TAG_USAGE_ROWS),
        ):
            for row in await self._rows(query, at):
                yield line(kind, row)
        async for row in self._events(owner):
            yield line("audit_event", row)
        found = await self._rows(statements.CONVERSATIONS, at)
        seen: set[str] = set()
        for rows in _batches(found, _ROWS):
            for row in await self._rows(statements.CONVERSATION_ROWS, {"ids": [row.id for row in rows]}):
                yield line("conversation", row)
            trees = {row.tree_id for row in rows} - seen
            seen |= trees
            sizes = await self._rows(statements.MESSAGE_SIZES, {"ids": sorted(trees)})
            for ids in _batches_by_size(sizes):
                for row in await self._rows(statements.MESSAGE_ROWS, {"ids": ids}):
                    yield line("message", row)

    async def _events(self, owner: str) -> AsyncGenerator[Found, None]:
        digest = digest_of(owner)
        actors = [*await self._database.read(lambda connection: self._credentials(connection, owner)), digest]
        after = ""
        while found := await self._rows(statements.EVENT_ROWS, {"ids": actors, "digest": digest, "after": after, "limit": _ROWS}):
            for row in found:
                yield row
            after = found[-1].id

    async def _rows(self, query: Any, at: dict[str, Any]) -> Sequence[Found]:
        return await self._database.read(lambda connection: connection.execute(query, at).all())

    def _credentials(self, connection: Connection, owner: str) -> list[str]:
        """Return the ids of the owner's credentials: its keys, those in the usage table, and a token with that name."""
        found = connection.execute(statements.CREDENTIALS, {"owner": owner}).scalars()
        return sorted({*found, *self._configured.get(owner, ()), f"token:{owner}"})


def _check(owner: str) -> None:
    text.check(owner, "owner", MAX_OWNER)
    if not owner:
        raise InvalidRequest("owner: is required", (Violation(("owner",), "is required"),))


def _batches(rows: Sequence[Found], size: int) -> Iterator[Sequence[Found]]:
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def _batches_by_size(sizes: Iterable[Found]) -> Iterator[list[str]]:
    """Yield ids of messages to read together: few and small in sum, except for a message that is large by itself."""
    ids: list[str] = []
    total = 0
    for row in sizes:
        if ids and (total + row.size > PIECE or len(ids) == _ROWS):
            yield ids
            ids, total = [], 0
        ids.append(row.id)
        total += row.size
    if ids:
        yield ids
