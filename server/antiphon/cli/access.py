"""What each key and each issuer's tokens may do, as `antiphon check-config` shows it. Reads no secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

from rich.markup import escape
from rich.table import Table

from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.cli.console import print_table
from antiphon.config import AuthConfig, IssuerConfig, KeyConfig
from antiphon.config.limits import QuotaConfig
from antiphon.domain.principal import Scope, scopes_or_default

Row: TypeAlias = Mapping[str, str]
"""A table row: cell texts by column name."""

NO_SCOPES: Final = "opens nothing"

_KEY_COLUMNS: Final = ("key", "owner", "admin", "opens", "models", "expires", "limits")
_TOKEN_COLUMNS: Final = ("tokens of", "claim", "with it", "without it", "admin")


def key_rows(auth: AuthConfig, environment: Mapping[str, str]) -> list[Row]:
    """Return a row for each configured key, else one for the default key, which `KEY_VARIABLE` holds or `up` creates."""
    if auth.keys:
        return [_key_row(key) for key in auth.keys]
    if auth.tokens and not environment.get(KEY_VARIABLE, "").strip():
        return []
    everything = _scope_names([*scopes_or_default(None), Scope.ADMIN])
    return [dict(zip(_KEY_COLUMNS, ("default", "default", "yes", everything, "all", "never", "none"), strict=True))]


def token_rows(auth: AuthConfig) -> list[Row]:
    """Return a row for each token issuer."""
    return [_token_row(issuer) for issuer in auth.tokens]


def show_access(keys: Sequence[Row], tokens: Sequence[Row]) -> None:
    """Print a table of the keys and one of the issuers. A table without rows is left out."""
    for columns, rows in ((_KEY_COLUMNS, keys), (_TOKEN_COLUMNS, tokens)):
        if rows:
            table = Table(*columns)
            for row in rows:
                table.add_row(*(escape(row[column]) for column in columns))
            print_table(table)


def _key_row(key: KeyConfig) -> Row:
    scopes = {*scopes_or_default(key.scopes), *([Scope.ADMIN] if key.admin else [])}
    models = "all" if key.models is None else " ".join(key.models) or "none"
    limits = " ".join(_limits(key.limits)) or "none"
    admin = "yes" if Scope.ADMIN in scopes else "no"
    cells = (key.name, key.owner or key.name, admin, _scope_names(scopes), models, _expires(key), limits)
    return dict(zip(_KEY_COLUMNS, cells, strict=True))


def _token_row(issuer: IssuerConfig) -> Row:
    default = _scope_names(issuer.default_scopes)
    claim, granted = "-", "-"
    if issuer.scopes is not None:
        claim = issuer.scope_claim or "scope, scp"
        granted = "; ".join(f"{word}: {_scope_names(scopes)}" for word, scopes in issuer.scopes.items()) or NO_SCOPES
    admin = "no" if issuer.admin is None else f"{issuer.admin.claim} = {issuer.admin.value}"
    return dict(zip(_TOKEN_COLUMNS, (issuer.name, claim, granted, default, admin), strict=True))


def _scope_names(scopes: Iterable[Scope]) -> str:
    return " ".join(sorted(scopes)) or NO_SCOPES


def _expires(key: KeyConfig) -> str:
    if key.expire_time is None:
        return "never"
    ended = " (ended)" if key.expire_time <= datetime.now(UTC) else ""
    return f"{key.expire_time:%Y-%m-%d %H:%M} UTC{ended}"


def _limits(limits: QuotaConfig) -> list[str]:
    return [f"{name}={'unlimited' if most is None else most}" for name, most in limits.model_dump(exclude_unset=True).items()]
