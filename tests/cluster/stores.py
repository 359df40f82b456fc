"""The stores that the replicas share: PostgreSQL behind PgBouncer, and Redis."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.cluster.network import NODE
from tests.pgbouncer import PgBouncer
from tests.postgres import Postgres
from tests.redis import Redis

POOL = 10
"""The number of connections from the pooler to the database."""


class Stores:
    """All three. As a context manager they run during the block."""

    def __init__(self) -> None:
        self.postgres = Postgres()
        self.pooler = PgBouncer(self.postgres.url, POOL, NODE)
        self.redis = Redis(NODE)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.postgres, self.pooler, self.redis):
                stack.enter_context(server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def urls(self) -> dict[str, str]:
        """Return the URLs in the Secrets, by the name of the Secret."""
        return {"antiphon-database": self.pooler.url_of(self.postgres.url), "antiphon-redis": self.redis.url}

    def turns(self) -> list[tuple[str, str, str]]:
        """Return the request id, message id and state of each reply, read directly from the database."""
        found = self.postgres.run("SELECT request_id, id, state FROM messages WHERE request_id IS NOT NULL")
        return [(request, message, state) for request, message, state in (line.split("|") for line in found.splitlines())]
