"""A new database for each test, on SQLite and on a real PostgreSQL; and a real Redis."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import func, make_url, select

from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.database.tables import messages
from antiphon.history.base import Store
from antiphon.history.sql import SqlStore
from tests.pgbouncer import BINARY, PgBouncer
from tests.postgres import Postgres
from tests.redis import Redis

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of the server in ANTIPHON_TEST_POSTGRES_URL, or of the tests' own server."""
    named = os.environ.get("ANTIPHON_TEST_POSTGRES_URL")
    if named:
        return named
    server: Postgres = request.getfixturevalue("postgres")
    return server.url


@pytest.fixture(scope="session")
def pgbouncer(postgres_url: str) -> Iterator[PgBouncer]:
    """Yield a pooler in transaction mode in front of the server."""
    if BINARY is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    with PgBouncer(postgres_url) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """Yield the tests' own Redis, which a test may stop."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of the server in ANTIPHON_TEST_REDIS_URL, or of the tests' own server."""
    named = os.environ.get("ANTIPHON_TEST_REDIS_URL")
    if named:
        return named
    server: Redis = request.getfixturevalue("redis")
    return server.url


def _named(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "history.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    name = f"antiphon_template_{os.getpid()}"
    asyncio.run(run_sql(postgres_url, f"CREATE DATABASE {name}"))
    asyncio.run(migrate(_named(postgres_url, name)))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Return the URL of a new SQLite database, migrated."""
    path = tmp_path / "history.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def fresh_postgres_url(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """Yield the URL of a new PostgreSQL database, migrated."""
    name = f"antiphon_test_{os.getpid()}_{next(_NUMBERS)}"
    asyncio.run(run_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
    yield _named(postgres_url, name)
    asyncio.run(run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """Yield the URL of a new, empty PostgreSQL database."""
    name = f"antiphon_test_{os.getpid()}_{next(_NUMBERS)}"
    asyncio.run(run_sql(postgres_url, f"CREATE DATABASE {name}"))
    yield _named(postgres_url, name)
    asyncio.run(run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a new, migrated database of each kind."""
    made: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "fresh_postgres_url")
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'history.db'}"
    made: str = request.getfixturevalue("empty_postgres_url")
    return made


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, fresh_postgres_url: str) -> str:
    """Return the URL of a new PostgreSQL database, migrated, through the pooler."""
    return pgbouncer.url_of(fresh_postgres_url)


@pytest_asyncio.fixture
async def store(url: str) -> AsyncGenerator[Store, None]:
    opened = SqlStore(open_database(url))
    yield opened
    await opened._database.close()


@pytest.fixture
def count_messages(store: Store) -> Callable[[], Awaitable[int]]:
    """Return a function that counts the messages in the whole database."""
    assert isinstance(store, SqlStore)
    query = select(func.count()).select_from(messages)
    return lambda: store._database.read(lambda connection: connection.execute(query).scalar_one())
