"""The output of `antiphon keys`: tables for a terminal, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf import timestamp_pb2
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from antiphon.cli.console import out, print_json, print_table
from antiphon.v1 import admin_pb2

_UNITS: Final = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "concurrent_streams": "calls at once",
    "daily_usd": "USD/day",
    "monthly_usd": "USD/month",
}
_TIMES: Final = ("create_time", "expire_time", "revoke_time", "last_use_time")
_COLORS: Final = {"good": "green", "expired": "yellow", "revoked": "red"}


def show_keys(keys: Sequence[admin_pb2.Key], *, as_json: bool) -> None:
    """Print a table of the keys. If the terminal is too narrow, each key gets several lines instead."""
    if as_json:
        print_json({"keys": [key_as_json(key) for key in keys]})
        return
    if not keys and out.is_terminal:
        out.print("There are no such keys. `antiphon keys create NAME` makes one.")
        return
    table = Table("id", "name", "owner", "secret", "scopes", "models", "limits", "expires", "last used", "state")
    for key in keys:
        table.add_row(*map(escape, _row(key)))

    def print_narrow() -> None:
        for key in keys:
            _show_lines(key)

    print_table(table, print_narrow)


def show_secret(key: admin_pb2.Key, secret: str, *, as_json: bool) -> None:
    """Print a key with its secret."""
    if as_json:
        print_json({"key": key_as_json(key), "secret": secret})
        return
    out.print(f"The key {escape(key.name)} ({key.id}).", soft_wrap=True)
    out.print("Its secret is shown here, and never again:", soft_wrap=True)
    out.print(f"  {escape(secret)}", soft_wrap=True)


def show_revoked(key: admin_pb2.Key, *, as_json: bool) -> None:
    """Print that a key is revoked."""
    if as_json:
        print_json({"key": key_as_json(key)})
        return
    out.print(f"The key {escape(key.name)} ({key.id}) is revoked.", soft_wrap=True)


def lines_to_choose_from(keys: Sequence[admin_pb2.Key]) -> list[str]:
    """Return a line for each of several keys with the same name, so that a person can choose one."""
    return [f"  {key.id}  owner {key.owner}, secret ...{key.hint}, {_used(key)}" for key in keys]


def key_as_json(key: admin_pb2.Key) -> dict[str, Any]:
    """Return the JSON form of a key. None means: all models, no limit, or an event that has not happened."""
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "state": _state(key),
        "hint": key.hint,
        "scopes": _scopes(key),
        "models": list(key.models) or None,
        "limits": dict.fromkeys(_UNITS) | _quota(key),
        "tags": dict(key.tags),
        **{name: getattr(key, name).ToJsonString() if key.HasField(name) else None for name in _TIMES},
    }


def _row(key: admin_pb2.Key) -> list[str]:
    used = _minute(key.last_use_time) if key.HasField("last_use_time") else "never"
    expires = _minute(key.expire_time) if key.HasField("expire_time") else "never"
    models, limits = " ".join(key.models) or "all", ", ".join(_limits(key)) or "none"
    return [key.id, key.name, key.owner, f"...{key.hint}", " ".join(_scopes(key)), models, limits, expires, used, _state(key)]


def _show_lines(key: admin_pb2.Key) -> None:
    state = _state(key)
    out.print(f"[bold]{escape(key.name)}[/]  [{_COLORS[state]}]{state}[/], {_used(key)}")
    end = f"expires {_minute(key.expire_time)}" if key.HasField("expire_time") else "does not expire"
    parts = (
        f"{key.id}  ...{key.hint}",
        f"owner {key.owner}; {end}",
        f"opens {' '.join(_scopes(key))}; models {' '.join(key.models) or 'all'}",
        f"limits {', '.join(_limits(key)) or 'none'}",
        *([f"tags {', '.join(f'{name}={value}' for name, value in sorted(key.tags.items()))}"] if key.tags else []),
    )
    for part in parts:
        out.print(Padding(escape(part), (0, 0, 0, 2), expand=False))


def _limits(key: admin_pb2.Key) -> list[str]:
    return [f"{most:,g} {_UNITS[name]}" for name, most in _quota(key).items()]


def _quota(key: admin_pb2.Key) -> dict[str, float]:
    """Return the limits that are set, by field."""
    return {field.name: most for field, most in key.quota.ListFields()}


def _scopes(key: admin_pb2.Key) -> list[str]:
    return [admin_pb2.Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes]


def _state(key: admin_pb2.Key) -> str:
    past = key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= datetime.now(UTC)
    return "revoked" if key.HasField("revoke_time") else "expired" if past else "good"


def _used(key: admin_pb2.Key) -> str:
    return f"last used {_minute(key.last_use_time)}" if key.HasField("last_use_time") else "never used"


def _minute(time: timestamp_pb2.Timestamp) -> str:
    return time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M UTC")
