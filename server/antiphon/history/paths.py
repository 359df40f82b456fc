"""Keeps paths of conversations in memory, so that a turn reads only the messages that came after those of the turn before.

What is kept is only a prefix of a path, up to its first message that is not complete. A complete message never changes, and neither
does what precedes it: ids are never used twice, and a message is deleted only after all that follow it. So a prefix is valid if the
database says that the next message of the path follows its last one, whichever process wrote that message.

Kept are the paths used last, up to a number of bytes, and none for longer than a few minutes after its last use: what is deleted in
the database is not in memory for much longer.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from threading import Lock
from typing import Final, NamedTuple

from sqlalchemy import Connection

from antiphon.database.prepared import PreparedStatement
from antiphon.history import rows, statements, tree
from antiphon.history.base import MessageState, StoredMessage

MOST_BYTES: Final = 8 * 1024 * 1024
"""The most bytes of stored messages that are kept. In memory a message takes two to three times as much."""

AGE: Final = 300.0
"""Seconds after its last use for which a path is kept."""

_MESSAGE_BYTES: Final = 300
"""What a message counts beside its text."""

_PATH_FROM: Final = PreparedStatement(statements.PATH_FROM)


class _Prefix(NamedTuple):
    """The first messages of a path, their size in bytes, and when they were used, on the clock of `Paths`."""

    messages: tuple[StoredMessage, ...]
    size: int
    used: float


_NOTHING: Final = _Prefix((), 0, 0.0)


class Paths:
    """The paths that one process keeps. Its methods may be called from any thread."""

    def __init__(self, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep at most `most_bytes` bytes; `clock` returns seconds."""
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = Lock()
        self._kept: OrderedDict[str, _Prefix] = OrderedDict()
        """By conversation; the one used last is the last."""
        self._size = 0

    def read(self, connection: Connection, row: tree.Found, last: str | None) -> tuple[StoredMessage, ...]:
        """Return the same as `tree.path`: the message `last` of the conversation and all its ancestors, oldest first."""
        if last is None:
            return ()
        with self._lock:
            kept = self._kept.get(row.id)
        before, size, _ = kept or _NOTHING
        end = before[-1].id if before else None
        found = [] if last == end else _PATH_FROM.all(connection, {"last": last, "tree": row.tree_id, "depth": len(before)})
        if last != end and (not found or found[0].parent_id != end):
            before, size, _ = _NOTHING
            found = _PATH_FROM.all(connection, {"last": last, "tree": row.tree_id, "depth": 0})
        after = tuple(map(rows.stored, found))
        added = tuple(takewhile(_never_changes, after))
        size += sum(len(each.body) + _MESSAGE_BYTES for each in found[: len(added)])
        self._keep(row.id, before + added, size)
        return before + after

    def forget(self) -> None:
        """Forget the paths that were not used for `AGE` seconds."""
        oldest = self._clock() - AGE
        with self._lock:
            while self._kept and next(iter(self._kept.values())).used < oldest:
                self._drop_oldest()

    def _keep(self, conversation: str, messages: tuple[StoredMessage, ...], size: int) -> None:
        with self._lock:
            known = self._kept.pop(conversation, None)
            self._size -= 0 if known is None else known.size
            if messages and size <= self._most_bytes:
                self._kept[conversation] = _Prefix(messages, size, self._clock())
                self._size += size
            while self._size > self._most_bytes:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self._size -= dropped.size


def _never_changes(message: StoredMessage) -> bool:
    return message.state is MessageState.COMPLETE
