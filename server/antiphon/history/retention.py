"""Removes conversations that nobody has touched for long, a bounded part at a time."""

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
"""The most messages that these have together, if they are several: a transaction has its time."""

_DAY: Final = 86_400_000_000
"""Microseconds."""


class Retention:
    """Forgets what is older than so many days. Several processes may do it at once: each takes others."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days

    async def prune(self) -> int:
        """Remove the oldest ones, in one transaction, and return how many. 0: no more are too old. Raise `StoreUnavailable`."""
        before = clock.now() - self._days * _DAY

        def work(connection: Connection) -> int:
            found = some(connection.execute(statements.UNTOUCHED, {"before": before, "most": CONVERSATIONS}).all())
            for row in found:
                tree.delete(connection, row)
            return len(found)

        return await self._database.write(work)


def some(found: Sequence[tree.Found]) -> Sequence[tree.Found]:
    """Return as many of these conversations, from the first, as one transaction should remove; one at least, if there is one."""
    total = 0
    for count, row in enumerate(found):
        total += row.message_count
        if count and total > MESSAGES:
            return found[:count]
    return found
