"""Deployments that an admin took out of use or tripped: kept in the database, and read by every worker each second.

While the database is unreachable, what was read last stays in force; a trip is over in its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Table, delete, insert, select

from antiphon.auth import audit
from antiphon.database import clock
from antiphon.database.base import Database
from antiphon.database.tables import drained_deployments, tripped_deployments
from antiphon.domain.errors import ProviderNotFound, StoreUnavailable
from antiphon.routing.router import Router

INTERVAL: Final = 1.0
"""Seconds between two reads."""


class Drains:
    """The deployments of one process that are out of use or tripped."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database = database
        self._deployments = {deployment.name: deployment for deployment in router.deployments()}
        self.until: Mapping[str, datetime | None] = {}
        """When each deployment that is out of use is in use again; None: when it is restored."""

    async def drain(self, name: str, duration: timedelta | None, origin: audit.CallOrigin) -> None:
        """Take a deployment out of use, for so long or until it is restored. Raises `ProviderNotFound`, `StoreUnavailable`."""
        await self._put(drained_deployments, name, duration, "deployments.drain", origin)

    async def trip(self, name: str, duration: timedelta, origin: audit.CallOrigin) -> None:
        """Open the breakers of a deployment for so long. Raises `ProviderNotFound`, `StoreUnavailable`."""
        await self._put(tripped_deployments, name, duration, "deployments.trip", origin)

    async def restore(self, name: str, origin: audit.CallOrigin) -> None:
        """Take a deployment into use again, and end a trip. Raises `ProviderNotFound`, `StoreUnavailable`."""
        self._check(name)

        def work(connection: Connection) -> None:
            tables = (drained_deployments, tripped_deployments)
            gone = [connection.execute(delete(table).where(table.c.deployment == name)).rowcount for table in tables]
            if any(gone):
                audit.record(connection, "deployments.restore", name, origin)

        await self._database.write(work)
        await self.refresh()

    async def refresh(self) -> None:
        """Read what is out of use or tripped, and put it in force. Raises `StoreUnavailable`."""
        now = datetime.now(UTC)

        def read(connection: Connection, table: Table) -> dict[str, datetime | None]:
            rows = connection.execute(select(table.c.deployment, table.c.until))
            found = {row.deployment: None if row.until is None else clock.read(row.until) for row in rows}
            return {name: until for name, until in found.items() if until is None or until > now}

        self.until, tripped = await self._database.read(
            lambda connection: (read(connection, drained_deployments), read(connection, tripped_deployments))
        )
        for name, deployment in self._deployments.items():
            deployment.drained = name in self.until
            deployment.trip(tripped.get(name))

    async def run(self) -> None:
        """Refresh each second, until cancelled."""
        while True:
            with suppress(StoreUnavailable):
                await self.refresh()
            await asyncio.sleep(INTERVAL)

    async def _put(self, table: Table, name: str, duration: timedelta | None, action: str, origin: audit.CallOrigin) -> None:
        """Write the row of a deployment in place of an earlier one, and put it in force."""
        self._check(name)
        until = None if duration is None else clock.now() + duration // timedelta(microseconds=1)

        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.deployment == name))
            connection.execute(insert(table).values(deployment=name, until=until))
            audit.record(connection, action, name, origin)

        await self._database.write(work)
        await self.refresh()

    def _check(self, name: str) -> None:
        if name not in self._deployments:
            raise ProviderNotFound(name)
