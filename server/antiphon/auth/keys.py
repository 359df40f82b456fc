"""Static API keys: who holds one is who the configuration says.

Only digests of keys are kept in memory past the start. A key is 128 bits of chance or more, so a plain SHA-256 is enough: there is
nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from antiphon.config import AuthConfig, ConfigError
from antiphon.principal import EVERYDAY, UNLIMITED, Principal, Quota, Scope

KEY_VARIABLE = "ANTIPHON_KEY"
"""The environment variable that holds the only key, where the configuration names none."""


class KeyRing:
    """The keys that are good: an `Authenticator`."""

    def __init__(self, keys: Iterable[tuple[Principal, SecretStr]]) -> None:
        self._principals = [(_digest(key.get_secret_value()), principal) for principal, key in keys]

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Every key is compared, each in constant time."""
        digest = _digest(credential)
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def new_key() -> SecretStr:
    """A new key: `sk-` and 256 bits of chance."""
    return SecretStr(f"sk-{secrets.token_urlsafe(32)}")


def load_keys(auth: AuthConfig, environment: Mapping[str, str]) -> KeyRing:
    """The keys that the configuration names, or the one in ANTIPHON_KEY if it names none. Raises `ConfigError`."""
    if auth.keys:
        return KeyRing((_principal(key.name, admin=key.admin, quota=key.limits.quota()), key.key(environment)) for key in auth.keys)
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigError(f"auth.keys: no key; name one there, or set {KEY_VARIABLE}")
    return KeyRing([(_principal("default", admin=True), SecretStr(key))])


def _principal(name: str, *, admin: bool, quota: Quota = UNLIMITED) -> Principal:
    scopes = EVERYDAY | {Scope.ADMIN} if admin else EVERYDAY
    return Principal(name, owner=name, id=f"static:{name}", scopes=scopes, quota=quota)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
