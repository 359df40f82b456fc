"""Static API keys: who holds one is who the configuration says.

Only digests of keys are kept in memory past the start. A key is 128 bits of chance or more, so a plain SHA-256 is enough: there is
nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from msgspec import Struct
from pydantic import SecretStr

from antiphon.config import AuthConfig, ConfigError
from antiphon.errors import Unauthenticated

KEY_VARIABLE = "ANTIPHON_KEY"
"""The environment variable that holds the only key, where the configuration names none."""


class Principal(Struct, frozen=True):
    """Who a key belongs to."""

    name: str
    admin: bool

    @property
    def owner(self) -> str:
        """Whose the conversations are that are made with the key."""
        return self.name


class KeyRing:
    """The keys that are good."""

    def __init__(self, keys: Iterable[tuple[Principal, SecretStr]]) -> None:
        self._principals = [(_digest(key.get_secret_value()), principal) for principal, key in keys]

    def authenticate(self, authorization: str | None) -> Principal:
        """Who an `authorization` header speaks for: `Bearer <key>`, the scheme in any case.

        Raises `Unauthenticated`. Every key is compared, each in constant time.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated('No API key. Send it as "Authorization: Bearer <key>".')
        digest = _digest(key)
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthenticated("The API key is not valid.")
        return found


def new_key() -> SecretStr:
    """A new key: `sk-` and 256 bits of chance."""
    return SecretStr(f"sk-{secrets.token_urlsafe(32)}")


def load_keys(auth: AuthConfig, environment: Mapping[str, str]) -> KeyRing:
    """The keys that the configuration names, or the one in ANTIPHON_KEY if it names none. Raises `ConfigError`."""
    if auth.keys:
        return KeyRing((Principal(key.name, key.admin), key.key(environment)) for key in auth.keys)
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigError(f"auth.keys: no key; name one there, or set {KEY_VARIABLE}")
    return KeyRing([(Principal("default", admin=True), SecretStr(key))])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
