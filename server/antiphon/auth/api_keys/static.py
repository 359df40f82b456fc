"""Static API keys, from the configuration. Only their digests are kept in memory after the start."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from pydantic import SecretStr

from antiphon.auth.api_keys.secret import digest
from antiphon.config import AuthConfig, ConfigError, KeyConfig
from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import DEFAULT_SCOPES, Principal, Scope, scopes_or_default

KEY_VARIABLE = "ANTIPHON_KEY"
"""The environment variable with the only key, used if the configuration lists none."""

CONFIGURED = "static:"
"""The prefix of `Principal.id` for a configured key; the key's name follows."""


class KeyRing:
    """The configured keys, as an `Authenticator`."""

    def __init__(
        self,
        keys: Iterable[tuple[Principal, SecretStr]],
        expiries: Mapping[str, datetime] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`expiries` maps a `Principal.id` to the expiry of its key. A key that is not in it never expires."""
        self._principals = [(digest(key.get_secret_value()), principal) for principal, key in keys]
        self._expiries = expiries or {}
        self._clock = clock

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Compares with every key, in constant time, so that the time taken reveals nothing."""
        given = digest(credential)
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, given):
                found = principal
        if found is not None and found.id in self._expiries and self._clock() >= self._expiries[found.id]:
            raise Unauthenticated("The API key is not valid.")
        return found


def load_keys(auth: AuthConfig, environment: Mapping[str, str]) -> KeyRing:
    """Return the configured keys, or the one in ANTIPHON_KEY if none are configured.

    The result may be empty if tokens are configured. Raises `ConfigError`.
    """
    if auth.keys:
        _check_unique(auth, environment)
        expiries = {_id(key.name): key.expire_time for key in auth.keys if key.expire_time is not None}
        return KeyRing([(_principal(key), key.key(environment)) for key in auth.keys], expiries)
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key and auth.tokens:
        return KeyRing(())
    if not key:
        raise ConfigError(f"auth.keys: no key; name one there, or set {KEY_VARIABLE}")
    default = Principal("default", owner="default", id=_id("default"), scopes=DEFAULT_SCOPES | {Scope.ADMIN})
    return KeyRing([(default, SecretStr(key))])


def _check_unique(auth: AuthConfig, environment: Mapping[str, str]) -> None:
    """Raise `ConfigError` if two keys share a name, and so their conversations, or are the same key."""
    names = [key.name for key in auth.keys]
    if len(set(names)) < len(names):
        raise ConfigError("auth.keys: two keys have the same name")
    if len({key.key(environment).get_secret_value() for key in auth.keys}) < len(names):
        raise ConfigError("auth.keys: two names have the same key")


def _principal(key: KeyConfig) -> Principal:
    scopes = frozenset(scopes_or_default(key.scopes)) | ({Scope.ADMIN} if key.admin else set())
    return Principal(
        key.name,
        owner=key.owner or key.name,
        id=_id(key.name),
        scopes=scopes,
        models=key.models,
        quota=key.limits.quota(),
        tags=tuple(key.tags.items()),
    )


def credentials_of(auth: AuthConfig) -> dict[str, list[str]]:
    """Return the ids (`Principal.id`) of the keys that `load_keys` may return, by owner."""
    owned: dict[str, list[str]] = {} if auth.keys else {"default": [_id("default")]}
    for key in auth.keys:
        owned.setdefault(key.owner or key.name, []).append(_id(key.name))
    return owned


def _id(name: str) -> str:
    return CONFIGURED + name
