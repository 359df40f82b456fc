"""The background work of a server process: what it does every few seconds besides answering calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import AuditLog
from antiphon.domain.errors import StoreUnavailable
from antiphon.history.base import Store

if TYPE_CHECKING:
    from antiphon.net.certificates import Certificates  # 9 MB, and only with TLS

INTERVAL: Final = 5.0
"""Seconds between two rounds, and so between two updates of this process's heartbeat in the database."""

PRUNING: Final = 3600.0
"""Seconds between two runs of a pruning that has caught up: of the audit log, and of other data that grows."""

log = structlog.get_logger(__name__)


class Housekeeper:
    """Updates this process's heartbeat in the database, settles turns of dead processes, and writes and prunes what can wait."""

    def __init__(
        self,
        store: Store,
        keys: StoredKeys,
        audit: AuditLog,
        certificates: Sequence[Certificates],
        prunings: Mapping[str, Callable[[], Awaitable[int]]] | None = None,
    ) -> None:
        """Store the collaborators.

        `prunings` maps what is removed to a function that removes a part of it and returns how many; 0: there is no more to remove.
        """
        self._store = store
        self._keys = keys
        self._audit = audit
        self._certificates = certificates
        self._pruned = -PRUNING
        self._prunings = prunings or {}
        self._due = dict.fromkeys(self._prunings, float("-inf"))

    async def run(self, interval: float = INTERVAL) -> None:
        """Call `round` every `interval` seconds, until cancelled. An error in a round is logged, and does not end the loop."""
        while True:
            try:
                await self.round()
            except StoreUnavailable:
                pass  # the store has logged why
            except Exception:  # a bug: the loop has to go on, as other parts depend on it
                log.exception("house not kept")
            await asyncio.sleep(interval)

    async def round(self) -> None:
        """Do all the work once: first what others wait for, last what may take long. Raises `StoreUnavailable`."""
        await self._store.heartbeat()
        for held in self._certificates:
            held.refresh()
        settled = await self._store.settle()
        if settled:
            log.warning("turns of a process that is gone were settled", count=settled)
        await self._keys.write_uses()
        await self._audit.keep()
        if time.monotonic() - self._pruned > PRUNING:
            self._pruned = time.monotonic()  # also if it fails: the next time is soon enough
            await self._audit.prune()
        for what, prune in self._prunings.items():
            if time.monotonic() >= self._due[what]:
                self._due[what] = time.monotonic() + PRUNING
                if removed := await prune():
                    log.info("removed what was kept for long enough", what=what, count=removed)
                    self._due[what] = float("-inf")  # there is more: go on in the next round
