"""Static API keys: who holds one is who the configuration says. Only digests of them are kept in memory past the start."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from antiphon.auth.secret import digest
from antiphon.config import AuthConfig, ConfigError
from antiphon.principal import EVERYDAY, UNLIMITED, Principal, Quota, Scope

KEY_VARIABLE = "ANTIPHON_KEY"
"""The environment variable that holds the only key, where the configuration names none."""


class KeyRing:
    """The keys that are good: an `Authenticator`."""

    def __init__(self, keys: Iterable[tuple[Principal, SecretStr]]) -> None:
        self._principals = [(digest(key.get_secret_value()), principal) for principal, key in keys]

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Every key is compared, each in constant time."""
        given = digest(credential)
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, given):
                found = principal
        return found


def load_keys(auth: AuthConfig, environment: Mapping[str, str]) -> KeyRing:
    """The keys that the configuration names, or the one in ANTIPHON_KEY if it names none. Raises `ConfigError`.

    There may be none where tokens are good too.
    """
    if auth.keys:
        _refuse_twins(auth, environment)
        return KeyRing((_principal(key.name, admin=key.admin, quota=key.limits.quota()), key.key(environment)) for key in auth.keys)
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key and auth.tokens:
        return KeyRing(())
    if not key:
        raise ConfigError(f"auth.keys: no key; name one there, or set {KEY_VARIABLE}")
    return KeyRing([(_principal("default", admin=True), SecretStr(key))])


def _refuse_twins(auth: AuthConfig, environment: Mapping[str, str]) -> None:
    """Raises `ConfigError` if two keys have a name in common, and so their conversations; or are the same key."""
    names = [key.name for key in auth.keys]
    if len(set(names)) < len(names):
        raise ConfigError("auth.keys: two keys have the same name")
    if len({key.key(environment).get_secret_value() for key in auth.keys}) < len(names):
        raise ConfigError("auth.keys: two of them are the same key, under different names")


def _principal(name: str, *, admin: bool, quota: Quota = UNLIMITED) -> Principal:
    scopes = EVERYDAY | {Scope.ADMIN} if admin else EVERYDAY
    return Principal(name, owner=name, id=f"static:{name}", scopes=scopes, quota=quota)
