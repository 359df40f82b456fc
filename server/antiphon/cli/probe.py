"""`antiphon check-config --probe`: checks that every service in the configuration is reachable and accepts its credentials.

All probes run at once, one per service. None costs money or changes anything. The output names services as the configuration does;
a reason may contain a host, but never a secret.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Final

import redis.asyncio as redis
import structlog
import uvloop
from msgspec import Struct
from pydantic import SecretStr
from redis.exceptions import AuthenticationError, RedisError
from rich.markup import escape
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from antiphon.app import App
from antiphon.auth.tokens.authenticator import key_source
from antiphon.auth.tokens.jwks import RotatingKeys
from antiphon.auth.tokens.keyset import KeysUnusable
from antiphon.cli.check import environment_of_start
from antiphon.cli.console import out, print_json
from antiphon.config import Config, IssuerConfig, database_url
from antiphon.database.base import Database
from antiphon.database.migrate import schema
from antiphon.database.open import open_database, parse, sqlite_path
from antiphon.domain.errors import ProviderError, StoreUnavailable
from antiphon.net import certificates
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.http_errors import reason_of
from antiphon.providers.base import Provider
from antiphon.providers.credentials.token import TokenFailed
from antiphon.telemetry.redaction import redact

TIMEOUT: Final = 10.0
"""Seconds that each service has to answer."""


class ProbeFailed(Exception):
    """A failed probe. Its message is the reason, for an operator."""


class ProbeResult(Struct, frozen=True):
    """The result of one probe."""

    kind: str
    """"database", "redis", "issuer" or "provider"."""
    name: str
    ok: bool
    detail: str
    seconds: float


def show(config: Config, *, as_json: bool) -> bool:
    """Check the configuration, probe every service that it names, and print a line for each. Return True if all succeeded.

    Raises `ConfigError` or `OSError`.
    """
    certificates.check(config)
    structlog.configure(processors=[_drop])  # the printed lines contain what the log would say
    found = uvloop.run(probe(config, environment_of_start(config)))
    good = all(one.ok for one in found)
    if as_json:
        # `told` is the name in the JSON output, which is not to change.
        probes = [{"kind": one.kind, "name": one.name, "ok": one.ok, "told": one.detail, "seconds": one.seconds} for one in found]
        print_json({"ok": good, "probes": probes})
        return good
    for one in found:
        mark = "[green]✓[/]" if one.ok else "[bold red]✗[/]"
        what = " ".join(filter(None, (one.kind, one.name)))
        out.print(f"{mark} {escape(what)}: {escape(one.detail)} [dim]({one.seconds * 1000:.0f} ms)[/]", soft_wrap=True)
    return good


async def probe(config: Config, environment: Mapping[str, str], timeout: float = TIMEOUT) -> list[ProbeResult]:
    """Probe all services at once. Raises `ConfigError` for a configuration that no server would start with."""
    app = App(config, environment)
    fetcher = Fetcher()
    settings, url_of_database = config.database, database_url(config, environment)
    # Opened here, as its import takes long enough to distort the measured time.
    database = open_database(
        url_of_database, settings.timeout, connections=1, pooler=settings.pooler, statement_cache=settings.keeps_statements
    )
    try:
        probes = [
            _run_probe("database", "", _database(database, parse(url_of_database)), timeout),
            *(
                [] if (url := config.limits.redis(environment)) is None
                else [_run_probe("redis", "", _redis(url, timeout), timeout)]
            ),
            *(
                _run_probe("issuer", issuer.name, _issuer(issuer, environment, fetcher), timeout)
                for issuer in config.auth.tokens
                if not issuer.shared
            ),
            *(_run_probe("provider", provider.name, _provider(provider), timeout) for provider in app.providers),
        ]  # fmt: skip
        return await asyncio.gather(*probes)
    finally:
        await database.close()
        await fetcher.close()
        for provider in app.providers:
            await provider.close()


async def _run_probe(kind: str, name: str, probing: Awaitable[str], timeout: float) -> ProbeResult:
    start = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            ok, detail = True, await probing
    except ProbeFailed as error:
        ok, detail = False, str(error)
    except TimeoutError:
        ok, detail = False, f"no answer within {timeout:g} s"
    return ProbeResult(kind, name, ok, detail, round(time.monotonic() - start, 3))


async def _database(database: Database, url: URL) -> str:
    if url.drivername == "sqlite":
        path = sqlite_path(url)
        if not path.exists():
            return f"SQLite: {path} is not there yet; a start makes it"
        kind = "SQLite"
    else:
        kind = "PostgreSQL"
    try:
        found = await database.read(schema)
    except StoreUnavailable as error:
        raise ProbeFailed(f"{kind}: {_reason(error.__cause__, [url.password or ''])}") from None
    if not found.usable:
        raise ProbeFailed(f"{kind}: its schema {found.revision} is of a newer version, which this one cannot use")
    if found.revision is None:
        return f"{kind}: no schema yet; `antiphon migrate`, or a start by `antiphon up`, makes it"
    if found.is_older:
        return f"{kind}: schema {found.revision}; `antiphon migrate`, or a start by `antiphon up`, brings it to {found.newest}"
    return f"{kind}: schema {found.revision}"


async def _redis(url: SecretStr, timeout: float) -> str:
    client = redis.Redis.from_url(url.get_secret_value(), socket_connect_timeout=timeout, socket_timeout=timeout)
    try:
        await client.ping()
    except AuthenticationError:
        raise ProbeFailed("the password is refused") from None
    except (RedisError, OSError) as error:
        raise ProbeFailed(_reason(error.__cause__ or error, _passwords(url))) from None
    finally:
        await client.aclose()
    return "answers"


async def _issuer(issuer: IssuerConfig, environment: Mapping[str, str], fetcher: Fetcher) -> str:
    keys = key_source(issuer, environment, fetcher)
    assert isinstance(keys, RotatingKeys), "issuers with a shared secret are not probed"
    try:
        return f"{await keys.fetch()} keys"
    except (FetchFailed, KeysUnusable) as error:
        raise ProbeFailed(str(error)) from None
    except TimeoutError:
        raise ProbeFailed(f"no answer within {issuer.timeout:g} s") from None
    except OSError as error:
        raise ProbeFailed(_reason(error, ())) from None
    finally:
        await keys.close()


async def _provider(provider: Provider) -> str:
    try:
        status = await provider.probe()
    except ProviderError as error:
        if isinstance(error.__cause__, TokenFailed):
            raise ProbeFailed(f"no access token: {error.__cause__}") from None
        raise ProbeFailed(str(error) if error.__cause__ is None else reason_of(error.__cause__)) from None
    match status:
        case None:
            return "needs no host"
        case 401 | 403:
            raise ProbeFailed(f"the key is refused ({status})")
        case 429:
            return f"reachable, but for now it takes no more requests ({status})"
        case _ if status < 300:
            return "reachable, and takes the key"
        case _ if status < 400:
            raise ProbeFailed(f"redirects ({status}), which is not followed")
        case _ if status < 500:
            return f"reachable, but lists no models ({status}), so that the key is not known to be good"
        case _:
            raise ProbeFailed(f"answers {status}")


def _reason(error: BaseException | None, secrets: list[str] | tuple[str, ...]) -> str:
    """Return the reason of an error in one line, without secrets."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    for one in _causes(cause):
        if isinstance(one, socket.gaierror):
            return "the name is not resolved"
        if isinstance(one, OSError) and one.errno is not None and one.errno > 0:
            return os.strerror(one.errno)
    text = redact(str(cause).partition("\n")[0], [secret for secret in secrets if secret])
    return text or type(cause).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _passwords(url: SecretStr) -> list[str]:
    return [url.get_secret_value(), str(redis.connection.parse_url(url.get_secret_value()).get("password", ""))]


def _drop(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent
