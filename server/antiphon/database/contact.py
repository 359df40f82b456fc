"""Waits for the database at the start. A server becomes ready once this is over, and stays ready if the database fails later.

`antiphon.database.migrate` defines which schemas a server can use.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection, select, text

from antiphon.database import tables
from antiphon.database.base import Database
from antiphon.domain.errors import StoreUnavailable

SCHEMA: Final = "0010"
"""The newest migration of this version."""

PAUSE = 1.0
"""Seconds between two attempts."""

log = structlog.get_logger(__name__)


async def first_contact(database: Database) -> None:
    """Wait until the database answers and has the tables that this version needs. Logs the reason for waiting when it changes."""
    logged = ""
    while lacking := await _lacking(database):
        if lacking != logged:
            log.warning("not ready: waiting for the database", reason=lacking)
            logged = lacking
        await asyncio.sleep(PAUSE)


async def _lacking(database: Database) -> str:
    try:
        found = await database.read(_revision)
        oldest = await database.read(_oldest_compatible) if found > SCHEMA else SCHEMA
    except StoreUnavailable:
        return "it cannot be reached, or has no tables yet, which `antiphon migrate` makes"
    if found < SCHEMA:
        return f"its schema is {found or 'none'}, and {SCHEMA} is needed: `antiphon migrate` upgrades it"
    if not "" < oldest <= SCHEMA:
        return f"its schema is {found}, of a newer version of Antiphon, which this one cannot use: run that version"
    return ""


def _revision(connection: Connection) -> str:
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _oldest_compatible(connection: Connection) -> str:
    return connection.execute(select(tables.compatibility.c.oldest)).scalar() or ""
