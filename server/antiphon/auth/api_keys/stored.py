"""Authentication with stored keys: looked up by digest, and cached briefly.

A look-up is cached for two seconds. So a revocation takes effect everywhere within two seconds, and a key in constant use costs one
look-up in two seconds. While the database is unreachable or hangs, a key that was valid is accepted for ten minutes more: an outage
of the database must not stop chat.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from antiphon.auth.api_keys.secret import digest, is_well_formed
from antiphon.auth.api_keys.store import KeyStore, StoredKey
from antiphon.domain.errors import StoreUnavailable, Unauthenticated
from antiphon.domain.principal import Principal
from antiphon.net.refreshing import Clock, RefreshingMap, Times

FRESH: Final = 2.0
"""Seconds for which a look-up is used without asking the database again."""

STALE: Final = 600.0
"""Seconds for which a look-up is used while the database cannot be reached."""

PATIENCE: Final = 0.5
"""Seconds to wait for the database if there is an older look-up to use."""

_MAX_CACHED: Final = 10_000
"""The most look-ups that are cached."""

_USE_INTERVAL: Final = 60.0
"""Seconds between two writes of a key's last use."""


class _Found(Struct, frozen=True):
    key: StoredKey
    principal: Principal


class StoredKeys:
    """The stored keys, as an `Authenticator`: one for a process and its event loop."""

    def __init__(self, store: KeyStore, clock: Clock = time.monotonic) -> None:
        self._store = store
        times = Times(ttl=FRESH, stale=STALE - FRESH, retry=FRESH, patience=PATIENCE)
        self._found = RefreshingMap(self._find, times, (StoreUnavailable,), size=_MAX_CACHED, clock=clock)
        self._used: dict[str, datetime] = {}
        self._written: dict[str, float] = {}

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Raises `StoreUnavailable` if the database cannot be reached and no recent look-up is cached."""
        if not is_well_formed(credential):
            return None
        found = await self._found.get(digest(credential))
        if found is None:
            return None
        now = datetime.now(UTC)
        if not found.key.is_valid_at(now):
            raise Unauthenticated("The API key is not valid.")
        self._used[found.key.id] = now
        return found.principal

    async def write_uses(self) -> None:
        """Store when keys were last used, at most once a minute for each. Raises `StoreUnavailable`."""
        now = time.monotonic()
        due = {key: used for key, used in self._used.items() if now - self._written.get(key, -_USE_INTERVAL) >= _USE_INTERVAL}
        if due:
            await self._store.write_uses(due)
            self._written = {key: at for key, at in self._written.items() if now - at < _USE_INTERVAL} | dict.fromkeys(due, now)
            self._used = {key: used for key, used in self._used.items() if due.get(key) != used}

    async def _find(self, given: bytes) -> _Found | None:
        key = await self._store.find(given)
        return None if key is None else _Found(key, key.principal)
