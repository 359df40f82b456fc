"""Removes conversations that have not changed for a configured time, a limited number at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from antiphon.database import clock
from antiphon.database.base import Database
from antiphon.history import statements, tree

CONVERSATIONS: Final = 50
"""The most conversations that one transaction removes."""

MESSAGES: Final = 5000
"""The most messages of these conversations together, unless there is only one: a transaction has a time limit."""

_DAY: Final = 86_400_000_000
"""Microseconds per day."""


class Retention:
    """Deletes conversations that are older than `days`. Several processes may do it at once: each takes different ones."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days

    async def prune(self) -> int:
        """Delete the oldest conversations in one transaction; return their number, 0 at the end. Raises `StoreUnavailable`."""
        before = clock.now() - self._days * _DAY

        def work(connection: Connection) -> int:
            found = some(connection.execute(statements.UNTOUCHED, {"before": before, "most": CONVERSATIONS}).all())
            for row in found:
                tree.delete(connection, row)
            return len(found)

        return await self._database.write(work)


def some(found: Sequence[tree.Found]) -> Sequence[tree.Found]:
    """Return the first conversations of `found` that one transaction should remove: at least one, if there is any."""
    total = 0
    for count, row in enumerate(found):
        total += row.message_count
        if count and total > MESSAGES:
            return found[:count]
    return found
