"""Deployments that an admin took out of use: kept in the database, and read by every worker each second.

While the database is unreachable, what was read last stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from antiphon.auth import audit
from antiphon.database import clock
from antiphon.database.base import Database
from antiphon.database.tables import drained_deployments
from antiphon.domain.errors import ProviderNotFound, StoreUnavailable
from antiphon.routing.router import Router

INTERVAL: Final = 1.0
"""Seconds between two reads."""


class Drains:
    """The deployments of one process that are out of use."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database = database
        self._deployments = {deployment.name: deployment for deployment in router.deployments()}
        self.until: Mapping[str, datetime | None] = {}
        """When each deployment that is out of use is in use again; None: when it is restored."""

    async def drain(self, name: str, duration: timedelta | None, origin: audit.CallOrigin) -> None:
        """Take a deployment out of use, for so long or until it is restored. Raises `ProviderNotFound`, `StoreUnavailable`."""
        self._check(name)
        until = None if duration is None else clock.now() + duration // timedelta(microseconds=1)

        def work(connection: Connection) -> None:
            connection.execute(delete(drained_deployments).where(drained_deployments.c.deployment == name))
            connection.execute(insert(drained_deployments).values(deployment=name, until=until))
            audit.record(connection, "deployments.drain", name, origin)

        await self._database.write(work)
        await self.refresh()

    async def restore(self, name: str, origin: audit.CallOrigin) -> None:
        """Take a deployment into use again. Raises `ProviderNotFound`, `StoreUnavailable`."""
        self._check(name)

        def work(connection: Connection) -> None:
            gone = connection.execute(delete(drained_deployments).where(drained_deployments.c.deployment == name))
            if gone.rowcount:
                audit.record(connection, "deployments.restore", name, origin)

        await self._database.write(work)
        await self.refresh()

    async def refresh(self) -> None:
        """Read what is out of use, and put it in force. Raises `StoreUnavailable`."""

        def work(connection: Connection) -> dict[str, datetime | None]:
            rows = connection.execute(select(drained_deployments.c.deployment, drained_deployments.c.until))
            return {row.deployment: None if row.until is None else clock.read(row.until) for row in rows}

        now, found = datetime.now(UTC), await self._database.read(work)
        self.until = {name: until for name, until in found.items() if until is None or until > now}
        for name, deployment in self._deployments.items():
            deployment.drained = name in self.until

    async def run(self) -> None:
        """Refresh each second, until cancelled."""
        while True:
            with suppress(StoreUnavailable):
                await self.refresh()
            await asyncio.sleep(INTERVAL)

    def _check(self, name: str) -> None:
        if name not in self._deployments:
            raise ProviderNotFound(name)
