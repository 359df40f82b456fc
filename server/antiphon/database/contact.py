"""The first contact with the database: a server is ready after it, and then whatever becomes of the database.

Which schemas a server can use is told in `antiphon.database.migrate`.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection, select, text

from antiphon.database import tables
from antiphon.database.base import Database
from antiphon.domain.errors import StoreUnavailable

SCHEMA: Final = "0008"
"""The newest migration that this version has."""

PAUSE = 1.0
"""Seconds between two tries."""

log = structlog.get_logger(__name__)


async def first_contact(database: Database) -> None:
    """Return once the database answers, and has the tables that this version needs. Logs what it waits for, when that changes."""
    told = ""
    while lacking := await _lacking(database):
        if lacking != told:
            log.warning("not ready: waiting for the database", reason=lacking)
            told = lacking
        await asyncio.sleep(PAUSE)


async def _lacking(database: Database) -> str:
    try:
        found = await database.read(_revision)
        oldest = await database.read(_oldest_able) if found > SCHEMA else SCHEMA
    except StoreUnavailable:
        return "it cannot be reached, or has no tables yet, which `antiphon migrate` makes"
    if found < SCHEMA:
        return f"its schema is {found or 'none'}, and {SCHEMA} is needed: `antiphon migrate` upgrades it"
    if not "" < oldest <= SCHEMA:
        return f"its schema is {found}, of a newer version of Antiphon, which this one cannot use: run that version"
    return ""


def _revision(connection: Connection) -> str:
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _oldest_able(connection: Connection) -> str:
    return connection.execute(select(tables.compatibility.c.oldest)).scalar() or ""
