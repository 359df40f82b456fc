"""The first contact with the database: a server is ready after it, and then whatever becomes of the database."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection, text

from antiphon.database.base import Database
from antiphon.domain.errors import StoreUnavailable

SCHEMA: Final = "0004"
"""The newest migration that this version has. A later one is taken for an addition to it."""

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
    except StoreUnavailable:
        return "it cannot be reached, or has no tables yet, which `antiphon migrate` makes"
    return "" if found >= SCHEMA else f"its schema is {found or 'none'}, and {SCHEMA} is needed: `antiphon migrate` upgrades it"


def _revision(connection: Connection) -> str:
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""
