"""What has to be done before a gateway serves: its configuration is checked as a whole, and the database migrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import uvloop

from antiphon.app import App
from antiphon.config import Config, database_url
from antiphon.database.migrate import migrate
from antiphon.database.open import parse
from antiphon.domain.errors import StoreUnavailable
from antiphon.net import certificates
from antiphon.routing.router import Router
from antiphon.telemetry import log


def build(config: Config, environment: Mapping[str, str]) -> Router:
    """Check the whole configuration, and return its router. Raises `ConfigError` or `OSError`."""
    certificates.check(config)
    log.configure(config.log)
    return App(config, environment).router


def prepare(config: Config, environment: Mapping[str, str], wait: Callable[[], None] | None = None) -> Router:
    """Check the whole configuration, migrate the database to this version, and return the router.

    `wait` is called between two attempts to reach a database server. With None there is only one attempt. Raises `ConfigError` or
    `OSError`.
    """
    router = build(config, environment)
    url = database_url(config, environment)
    while True:
        try:
            uvloop.run(migrate(url, config.database.timeout, pooler=config.database.pooler))
        except StoreUnavailable:
            if wait is None or parse(url).drivername == "sqlite":  # retrying does not help with a file
                raise OSError("database.url: the database cannot be reached; the log line above has the reason") from None
            wait()
        else:
            return router


def model_names(router: Router) -> list[str]:
    """Return the names of the models, in order."""
    return [entry.name for entry in router.models()]
