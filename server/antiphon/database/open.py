"""Which database a URL names.

- `sqlite:///relative.db`: a file, from the working directory; `sqlite:////absolute/path.db`.
- `postgresql://user:password@host/database?sslmode=require`: as libpq has it, several hosts and unix sockets too.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from antiphon.config import ConfigError
from antiphon.database.base import Database
from antiphon.database.sqlite import SqliteDatabase


def parse(url: str) -> URL:
    """The parts of the URL. Raises `ConfigError`, which holds no password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise ConfigError('database.url: must be "sqlite:///path" or "postgresql://user@host/database"') from None
    if parsed.drivername not in {"sqlite", "postgresql", "postgres"}:
        raise ConfigError(f'database.url: there is no database "{parsed.drivername}" but sqlite and postgresql')
    if parsed.drivername == "sqlite" and not sqlite_path(parsed).name:
        raise ConfigError("database.url: must name a file, as in sqlite:///history.db")
    return parsed


def sqlite_path(url: URL) -> Path:
    """The file that a SQLite URL names; without a name if it names none."""
    return Path("" if url.database in {None, ":memory:"} else url.database or "")


def open_database(
    url: str, timeout: float = 5.0, *, connections: int = 10, pooler: bool = False, statement_cache: bool = True
) -> Database:
    """The database of this URL; `timeout` in seconds bounds each unit of work. Raises `ConfigError`.

    The rest is of PostgreSQL: how many connections there may be, whether a pooler in transaction mode stands before it, and whether
    prepared statements are kept.

    Nothing is opened before the first call, which has to be on the event loop that all others are on. The database has to be
    migrated: see `migrate`.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite":
        return SqliteDatabase(sqlite_path(parsed), timeout)
    from antiphon.database.postgres import PostgresDatabase  # here, as it takes 10 MB of a worker that needs 87 without it

    return PostgresDatabase(url, timeout, connections=connections, pooler=pooler, statement_cache=statement_cache)
