"""What a server process does every few seconds beside answering calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import AuditLog
from antiphon.domain.errors import StoreUnavailable
from antiphon.history.base import Store

if TYPE_CHECKING:
    from antiphon.net.certificates import Certificates  # 9 MB, and only with TLS

INTERVAL: Final = 5.0
"""Seconds between two rounds, and so between two signs of life of this process in the database."""

PRUNING: Final = 3600.0
"""Seconds between two prunings of the audit log."""

log = structlog.get_logger(__name__)


class Housekeeper:
    """Says in the database that this process lives, settles the turns of those that do not, and writes what can wait."""

    def __init__(self, store: Store, keys: StoredKeys, audit: AuditLog, certificates: Sequence[Certificates]) -> None:
        self._store = store
        self._keys = keys
        self._audit = audit
        self._certificates = certificates
        self._pruned = -PRUNING

    async def run(self, interval: float = INTERVAL) -> None:
        """Do it every `interval` seconds, until cancelled. Nothing that fails ends it."""
        while True:
            try:
                await self.round()
            except StoreUnavailable:
                pass  # the store has logged why
            except Exception:  # a fault of ours; what lives by this loop, lives on
                log.exception("house not kept")
            await asyncio.sleep(interval)

    async def round(self) -> None:
        """Do it once: what others wait for first, and what may take long last. Raises `StoreUnavailable`."""
        await self._store.heartbeat()
        for held in self._certificates:
            held.refresh()
        settled = await self._store.settle()
        if settled:
            log.warning("turns of a process that is gone were settled", count=settled)
        await self._keys.write_uses()
        await self._audit.keep()
        if time.monotonic() - self._pruned > PRUNING:
            self._pruned = time.monotonic()  # also if it fails: the next is soon enough
            await self._audit.prune()
