"""Opening of the database that a URL names.

- `sqlite:///relative.db`: a file, from the working directory; `sqlite:////absolute/path.db`.
- `postgresql://user:password@host/database?sslmode=require`: as in libpq, including several hosts and Unix sockets.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from antiphon.config import ConfigError
from antiphon.database.base import Database
from antiphon.database.sqlite import SqliteDatabase


def parse(url: str) -> URL:
    """Parse the URL. Raises `ConfigError`, whose text does not contain the password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        raise ConfigError('database.url: must be "sqlite:///path" or "postgresql://user@host/database"') from None
    if parsed.drivername not in {"sqlite", "postgresql", "postgres"}:
        raise ConfigError(f'database.url: unknown database "{parsed.drivername}"; use sqlite or postgresql')
    if parsed.drivername == "sqlite" and not sqlite_path(parsed).name:
        raise ConfigError("database.url: must name a file, as in sqlite:///history.db")
    return parsed


def sqlite_path(url: URL) -> Path:
    """Return the file that a SQLite URL names; an empty path if it names none."""
    return Path("" if url.database in {None, ":memory:"} else url.database or "")


def open_database(
    url: str, timeout: float = 5.0, *, connections: int = 10, pooler: bool = False, statement_cache: bool = True
) -> Database:
    """Return the database of this URL; `timeout` limits each unit of work, in seconds. Raises `ConfigError`.

    The other arguments are for PostgreSQL: the most connections, whether a pooler in transaction mode is in front of it, and
    whether prepared statements are cached.

    Nothing is opened before the first call, which must be on the same event loop as all later ones. The database must have been
    migrated: see `migrate`.
    """
    parsed = parse(url)
    if parsed.drivername == "sqlite":
        return SqliteDatabase(sqlite_path(parsed), timeout)
    from antiphon.database.postgres import PostgresDatabase  # imported here: it takes 10 MB

    return PostgresDatabase(url, timeout, connections=connections, pooler=pooler, statement_cache=statement_cache)
