"""What an operator decides of the database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from antiphon.config.section import Section, read_secret


class DatabaseConfig(Section):
    """Where conversations, keys and usage are kept: SQLite or PostgreSQL."""

    url: str = Field(default="", repr=False, exclude=True)  # it may hold a password
    """`sqlite:///relative.db` (relative to the working directory), `sqlite:////absolute.db` or `postgresql://user@host/database`.
    Without `url`, `url_env` and `url_file`: SQLite in `$XDG_DATA_HOME/antiphon/antiphon.db`, by default
    `~/.local/share/antiphon/antiphon.db`."""
    url_env: str | None = None
    """The environment variable that holds the URL."""
    url_file: Path | None = None
    """The file that holds the URL."""
    timeout: float = Field(default=5.0, gt=0)
    """The longest that the database may take for one answer, in seconds."""
    connections: int = Field(default=10, ge=1, le=1000)
    """The most connections to PostgreSQL of each worker. PostgreSQL allows 100 in all by default."""
    pooler: bool = False
    """Whether a connection pooler in transaction mode, such as PgBouncer, stands in front of PostgreSQL."""
    statement_cache: bool | None = None
    """Whether prepared statements are kept between transactions. Unset: yes, but not with a `pooler`."""
    keep_interval: float = Field(default=1.0, gt=0)
    """Seconds between two checkpoints of replies in progress. A worker that is killed loses what came after the last one."""

    @model_validator(mode="after")
    def _one_url(self) -> DatabaseConfig:
        given = {"url": self.url, "url_env": self.url_env, "url_file": self.url_file}
        if len([name for name, value in given.items() if value]) > 1:
            raise ValueError("takes only one of url, url_env and url_file")
        return self

    def address(self, environment: Mapping[str, str]) -> str:
        """Return the URL as it is configured; empty without one. Raise `ConfigError` for a variable or file that has none."""
        held = read_secret("database.url", self.url_env, self.url_file, environment)
        return self.url if held is None else held.get_secret_value()

    @property
    def keeps_statements(self) -> bool:
        """Whether prepared statements outlive their transaction."""
        return not self.pooler if self.statement_cache is None else self.statement_cache
