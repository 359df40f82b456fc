"""Upgrades a database to the newest schema. Several processes may do so at once: one upgrades, and the others wait.

An upgrade is one transaction in both databases: if it fails, the database is unchanged.

A schema that a newer version made by additions alone is used as it is, so that replicas of the previous version, and a version that
is rolled back to, keep working. Each upgrade records the oldest revision that can use the new schema.
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
from antiphon.database import sqlite, tables
from antiphon.database.base import Translation
from antiphon.database.open import parse, sqlite_path

SCRIPTS: Final = Path(__file__).parent / "migrations"

_LOCK: Final = 0x616E7469_70686F6E
"""The key of the advisory lock that migrations take in PostgreSQL: "antiphon" in ASCII, unlikely to be used by another program."""

_LOCK_TIMEOUT: Final = 600.0
"""Seconds to wait for another process's migration."""

_NO_DATABASE: Final = (SQLITE_NOTADB, SQLITE_CORRUPT)

_RETRY: Final = 0.05
"""Seconds between two attempts to open a SQLite file that is being created."""

log = structlog.get_logger(__name__)


async def migrate(url: str, timeout: float = 5.0, scripts: Path = SCRIPTS, *, pooler: bool = False) -> None:
    """Create the database, or upgrade it to the newest schema of `scripts`; do nothing if it is up to date.

    `timeout` limits connecting, in seconds; the migration itself is not limited. `pooler` is as in `open_database`. Raises
    `ConfigError` if a newer version made the database by more than additions, if the file is not a database, or if the URL is
    invalid; and `StoreUnavailable`.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite":
        await asyncio.to_thread(_migrate_sqlite, sqlite_path(parsed), scripts)
        return
    from antiphon.database import postgres  # imported here: it takes 10 MB

    with Translation(postgres.FAULTS, parsed.password):
        engine = postgres.engine(url, timeout, connections=1, bounded=False, pooler=pooler, statement_cache=not pooler)
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT:.0f}s'"))
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                await connection.run_sync(_upgrade, scripts)
        finally:
            await engine.dispose()


def _migrate_sqlite(path: Path, scripts: Path) -> None:
    with Translation((OSError,), None):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only this user may read conversations. SQLite gives its other files the same mode.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = sqlite.engine(path, _LOCK_TIMEOUT, begin="BEGIN IMMEDIATE")
        try:
            with _connect(engine) as connection, connection.begin():
                _upgrade(connection, scripts)
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", None) in _NO_DATABASE:
                raise ConfigError(f"database.url: the file {path} is not a SQLite database, or is damaged") from None
            raise


def _connect(engine: Engine) -> Connection:
    # The first to open a new file changes it to WAL. SQLite does not wait for that but fails as busy, so this retries.
    end = time.monotonic() + _LOCK_TIMEOUT
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
        if _recorded_oldest(connection) in known:
            log.warning("the database was upgraded by a newer version, and is compatible with this one", schema=found)
            return
        raise ConfigError(
            f"database.url: a newer version of Antiphon has made this database (its schema is {found}). Run that version."
        )
    command.upgrade(config, "head")
    if tables.compatibility.name in inspect(connection).get_table_names():
        connection.execute(delete(tables.compatibility))
        connection.execute(insert(tables.compatibility), {"oldest": _oldest_compatible(revisions)})


class Schema(Struct, frozen=True):
    """The schema of a database, compared with the one of this program."""

    revision: str | None
    """The revision of the database; None if it is empty."""
    newest: str
    """The revision that this program upgrades it to."""
    usable: bool
    """Whether this program can use the database once it is upgraded."""
    is_older: bool
    """Whether an upgrade is needed."""


def schema(connection: Connection, scripts: Path = SCRIPTS) -> Schema:
    """Return the schema of a database. Writes nothing."""
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]  # the newest first
    found = MigrationContext.configure(connection).get_current_revision()
    usable = found is None or found in known or _recorded_oldest(connection) in known
    return Schema(found, known[0], usable, is_older=found in known[1:])


def _oldest_compatible(revisions: Sequence[Script]) -> str:
    """Return the oldest revision that can use the newest schema: every later step only adds."""
    step = next((script for script in revisions if not getattr(script.module, "additive", False)), revisions[-1])
    return step.revision


def _recorded_oldest(connection: Connection) -> str | None:
    """Return the `_oldest_compatible` that a newer program recorded, or None."""
    if tables.compatibility.name not in inspect(connection).get_table_names():
        return None
    return connection.execute(select(tables.compatibility.c.oldest)).scalar()
