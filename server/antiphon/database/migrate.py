"""Brings a database to the newest schema. Safe to run by several processes at once: one does it, the others wait and find it done.

All of it is one transaction, on both databases: what fails leaves the database as it was.

A schema that a newer version has made by additions alone is left as it is, and used: so that replicas of the version before, and
one that is gone back to, go on. Each upgrade writes down how far back that reaches.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import SQLITE_BUSY, SQLITE_CORRUPT, SQLITE_NOTADB
from typing import Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from msgspec import Struct
from sqlalchemy import Connection, Engine, delete, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError, OperationalError

from antiphon.config import ConfigError
from antiphon.database import postgres, sqlite, tables
from antiphon.database.base import translated
from antiphon.database.open import parse, sqlite_path

SCRIPTS: Final = Path(__file__).parent / "migrations"

_LOCK: Final = 0x616E7469_70686F6E
"""What migrations lock in PostgreSQL; no other program is likely to use it. "antiphon" in ASCII."""

_WAIT: Final = 600.0
"""Seconds that another process's migration is waited for."""

_NO_DATABASE: Final = (SQLITE_NOTADB, SQLITE_CORRUPT)

_RETRY: Final = 0.05
"""Seconds between two tries to get at a SQLite file that is being made."""

log = structlog.get_logger(__name__)


async def migrate(url: str, timeout: float = 5.0, scripts: Path = SCRIPTS, *, pooler: bool = False) -> None:
    """Makes the database, or upgrades it, to the newest schema of `scripts`; does nothing to one that has it.

    `timeout` in seconds bounds connecting; the migration takes what it takes. `pooler` is as in `open_database`.
    Raises `ConfigError` for a database that a newer version has made by more than additions, for a file that is no database, and
    for a URL that is none; `StoreUnavailable`.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite":
        await asyncio.to_thread(_migrate_sqlite, sqlite_path(parsed), scripts)
        return
    with translated(postgres.FAULTS, parsed.password):
        engine = postgres.engine(url, timeout, connections=1, bounded=False, pooler=pooler, statement_cache=not pooler)
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT:.0f}s'"))
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                await connection.run_sync(_upgrade, scripts)
        finally:
            await engine.dispose()


def _migrate_sqlite(path: Path, scripts: Path) -> None:
    with translated((OSError,), None):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Conversations are for nobody else's eyes. SQLite gives its other files the same mode.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = sqlite.engine(path, _WAIT, begin="BEGIN IMMEDIATE")
        try:
            with _connect(engine) as connection, connection.begin():
                _upgrade(connection, scripts)
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", None) in _NO_DATABASE:
                raise ConfigError(f"database.url: the file {path} is not a SQLite database, or is damaged") from None
            raise


def _connect(engine: Engine) -> Connection:
    # The first to open a new file changes it to WAL, and SQLite lets no other wait for that.
    end = time.monotonic() + _WAIT
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_RETRY)


def _upgrade(connection: Connection, scripts: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    directory = ScriptDirectory.from_config(config)
    revisions = list(directory.walk_revisions())  # the newest first
    known = {script.revision for script in revisions}
    found = MigrationContext.configure(connection).get_current_revision()
    if found == revisions[0].revision:
        return
    if found is not None and found not in known:
        if _oldest_able(connection) in known:
            log.warning("a newer version has made this database, and this one can go on with it", schema=found)
            return
        raise ConfigError(
            f"database.url: a newer version of Antiphon has made this database (its schema is {found}). Run that version."
        )
    command.upgrade(config, "head")
    if tables.compatibility.name in inspect(connection).get_table_names():
        connection.execute(delete(tables.compatibility))
        connection.execute(insert(tables.compatibility), {"oldest": _oldest(revisions)})


class Schema(Struct, frozen=True):
    """What a database has, and what this program would bring it to."""

    revision: str | None
    newest: str
    usable: bool
    """Whether this program can use the database, once it is migrated."""
    is_older: bool


def schema(connection: Connection, scripts: Path = SCRIPTS) -> Schema:
    """Return what a database has: a unit of work that only reads."""
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]  # the newest first
    found = MigrationContext.configure(connection).get_current_revision()
    usable = found is None or found in known or _oldest_able(connection) in known
    return Schema(found, known[0], usable, is_older=found in known[1:])


def _oldest(revisions: Sequence[Script]) -> str:
    """Return the oldest revision whose program can use the newest schema: no step from there on is more than an addition."""
    step = next((script for script in revisions if not getattr(script.module, "additive", False)), revisions[-1])
    return step.revision


def _oldest_able(connection: Connection) -> str | None:
    """Return what a newer program has written down as `_oldest`; None where none has."""
    if tables.compatibility.name not in inspect(connection).get_table_names():
        return None
    return connection.execute(select(tables.compatibility.c.oldest)).scalar()
