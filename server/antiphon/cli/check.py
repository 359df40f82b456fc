"""Checks of a configuration, the same as at a start, and the output of `antiphon check-config`.

The checks build the whole server, so `antiphon.cli.main` imports this module only in the commands that need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from rich.markup import escape
from rich.table import Table

from antiphon.app import App
from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.cli.access import key_rows, show_access, token_rows
from antiphon.cli.console import out, print_json, print_table
from antiphon.config import Config, DatabaseConfig, KeyConfig, LimitsConfig, ProviderConfig, TlsConfig, database_url
from antiphon.database.open import parse
from antiphon.net import certificates
from antiphon.providers import hosts
from antiphon.routing.router import Router
from antiphon.start import model_names
from antiphon.telemetry import log_file

_STREAMS: Final = {"stderr": "standard error", "stdout": "standard output"}


def environment_of_start(config: Config) -> dict[str, str]:
    """Return the environment that a start would have: if no key is configured or set, `up` creates one."""
    return dict(os.environ) if config.auth.keys else {KEY_VARIABLE: "none", **os.environ}


def show(config: Config, *, as_json: bool) -> None:
    """Check the whole configuration, and print its effect. Raises `ConfigError` or `OSError`."""
    certificates.check(config)
    log_file.check(config.log)
    environment = environment_of_start(config)
    router = App(config, environment).router
    settings = _settings(config)
    keys, issuers = key_rows(config.auth, os.environ), token_rows(config.auth)
    if as_json:
        print_json({**models_as_json(router), "settings": settings, "keys": keys, "tokens": issuers})
        return
    _show_providers(hosts.configured(config.providers, environment), environment)
    show_access(keys, issuers)
    for setting, value in settings.items():
        out.print(f"{setting}: {escape(value)}", soft_wrap=True)
    out.print(f"default model: [bold]{escape(router.default)}[/]", soft_wrap=True)
    out.print("[green]The configuration is good.[/]")


def models_as_json(router: Router) -> dict[str, Any]:
    """Return the default model and the names of all models, for JSON output."""
    return {"default": router.default, "models": model_names(router)}


def _show_providers(providers: dict[str, ProviderConfig], environment: Mapping[str, str]) -> None:
    table = Table("provider", "protocol")
    table.add_column("address", overflow="fold")
    table.add_column("key")
    table.add_column("models", overflow="fold")
    for name, provider in providers.items():
        token = None if provider.credentials is None else f"token ({provider.credentials.kind.value})"
        key = token or ("yes" if provider.api_key(name, environment) else "none")
        address, _, query = (provider.base_url or "-").partition("?")
        shown = f"{address}?***" if query else address  # a query may contain a key
        row = (name, provider.protocol, shown, key, " ".join(provider.models) or "any, by prefix")
        table.add_row(*map(escape, row))
    print_table(table)


def _settings(config: Config) -> dict[str, str]:
    """Return the settings in force as text by name, without any key or password."""
    database = parse(database_url(config, os.environ))
    hidden = {name: "***" for name in database.query if "password" in name}
    limits, written = config.limits, config.log
    none = "none" if config.auth.tokens else "one that `up` makes"
    return {
        "gRPC": f"{config.grpc.listen}, {_tls(config.grpc.tls)}",
        "REST": f"{config.rest.listen}, {_tls(config.rest.tls)}",
        "workers": str(config.workers),
        "keys": ", ".join(map(_key, config.auth.keys))
        or (f"default (admin), in {KEY_VARIABLE}" if os.environ.get(KEY_VARIABLE, "").strip() else none),
        "tokens": ", ".join(f"{issuer.name}, signed by {issuer.issuer}" for issuer in config.auth.tokens) or "none",
        "database": database.update_query_dict(hidden).render_as_string(hide_password=True),
        "database timeout": f"{config.database.timeout:g} s",
        "database connections": _connections(config.database),
        "limits": f"a call {limits.request_timeout:g} s, a stop {limits.drain:g} s",
        "quotas": ", ".join(_quotas(limits)) or "none",
        "counted": f"in Redis, {limits.on_failure} while it is out of reach" if _in_redis(limits) else "by each worker for itself",
        "guards": ", ".join(f"{guard.name} ({guard.kind}, {' and '.join(guard.on)})" for guard in config.guards) or "none",
        "traces": _traces(config),
        "log": f"{written.level}, to {written.file or _STREAMS[written.stream]}",
    }


def _traces(config: Config) -> str:
    """Return where traces go. Only host and port of the URL are shown, as a URL from the environment may contain a key."""
    url = config.traces.address(os.environ)
    if url is None:
        return "none"
    share = config.traces.sample
    return f"to {urlsplit(url).netloc.rpartition('@')[2]}" + ("" if share is None else f", {share:g} of the calls that begin one")


def _connections(database: DatabaseConfig) -> str:
    pooled = ", through a pooler" if database.pooler else ""
    return f"{database.connections} of each worker, to PostgreSQL{pooled}"


def _key(key: KeyConfig) -> str:
    """Return the name of a key, and how its rights differ from the defaults."""
    details = [
        *(["admin"] if key.admin else []),
        *([f"owner {key.owner}"] if key.owner else []),
        *([f"scopes {' '.join(key.scopes) or 'none'}"] if key.scopes is not None else []),
        *([f"models {' '.join(key.models) or 'none'}"] if key.models is not None else []),
    ]
    if key.expire_time is not None:
        details.append(f"{'ended' if key.expire_time <= datetime.now(UTC) else 'until'} {key.expire_time:%Y-%m-%d %H:%M} UTC")
    return f"{key.name} ({'; '.join(details)})" if details else key.name


def _tls(config: TlsConfig | None) -> str:
    if config is None:
        return "plain text"
    return "TLS" if config.client_ca is None else "TLS, with a certificate of every caller"


def _in_redis(limits: LimitsConfig) -> bool:
    return limits.redis_url is not None or limits.redis_url_env is not None


def _quotas(limits: LimitsConfig) -> Iterator[str]:
    named = {"overall": limits.overall, "per owner": limits.per_owner, "per key": limits.per_key}
    named |= {f"owner {name}": quota for name, quota in limits.owners.items()}
    for name, quota in named.items():
        for field, most in quota.model_dump(exclude_unset=True).items():
            yield f"{name} {field} {'unlimited' if most is None else most}"
