"""The check of a new configuration for a running gateway: whether it is valid, and can be applied without a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from antiphon import start
from antiphon.config import Config, ConfigError, database_url
from antiphon.config.file import load
from antiphon.up.launch import keep_copy
from antiphon.up.reload import CONFIG, NEXT

_FIXED = {
    "grpc": ("grpc",),
    "rest": ("rest",),
    "workers": ("workers",),
    "log.file": ("log", "file"),
    "log.stream": ("log", "stream"),
    "metrics": ("metrics",),
    "limits.drain": ("limits", "drain"),
    "limits.drain_delay": ("limits", "drain_delay"),
}
"""Settings that cannot change at a reload, as Envoy and the supervisor were started with them: the path of attributes by name."""


def accept(folder: Path, path: Path | None, environment: Mapping[str, str], *, same_database: bool = False) -> None:
    """Check the configuration at `path`, and store a copy for the gateway in `folder`. Raises `ConfigError` or `OSError`.

    If it names another database, that one is migrated, or refused if `same_database` is set.
    """
    running = load(folder / CONFIG if path else None, environment)
    text = None if path is None else path.read_bytes()
    wanted = load(path, environment)
    if path is not None and path.read_bytes() != text:
        raise ConfigError(f"{path}: changes while it is read")
    changed = list(_changed_fixed_settings(running, wanted))
    is_same = database_url(wanted, environment) == database_url(running, environment)
    if same_database and not is_same:
        changed.append("database")
    if changed:
        raise ConfigError("\n".join(f"{setting}: cannot change while the gateway runs: start it anew" for setting in changed))
    if is_same:
        start.build(wanted, environment)  # the database may be unreachable: this change does not concern it
    else:
        start.prepare(wanted, environment)
    keep_copy(folder, NEXT, wanted, path, text)


def _changed_fixed_settings(running: Config, wanted: Config) -> Iterator[str]:
    """Yield the names of settings that differ but cannot change at a reload."""
    for setting, steps in _FIXED.items():
        before, after = running, wanted
        for step in steps:
            before, after = getattr(before, step), getattr(after, step)
        if before != after:
            yield setting
    if wanted.rest.jwt_authn and running.auth.tokens != wanted.auth.tokens:
        yield "auth.tokens (with rest.jwt_authn)"
