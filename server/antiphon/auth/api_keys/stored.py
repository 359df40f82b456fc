"""The stored keys as credentials: looked up by digest, remembered for a moment.

What is remembered is used for two seconds, so that a revocation is in force everywhere after those, and a key that is used all the
time costs one look-up in two seconds. While the database is out of reach, or hangs, a key that was good is taken for good for ten
minutes more: an outage of the history is none of the chat.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from antiphon.auth.api_keys.secret import digest, is_made_here
from antiphon.auth.api_keys.store import KeyStore, StoredKey
from antiphon.domain.errors import StoreUnavailable, Unauthenticated
from antiphon.domain.principal import Principal
from antiphon.net.refreshing import Clock, RefreshingMap, Times

FRESH: Final = 2.0
"""Seconds for which a look-up is good."""

STALE: Final = 600.0
"""Seconds for which it is used if the database cannot be asked again."""

PATIENCE: Final = 0.5
"""Seconds that the database is waited for where there is something older to use."""

_KNOWN: Final = 10_000
"""Look-ups that are remembered."""

_USE: Final = 60.0
"""Seconds between two writes of when a key was last used."""


class _Found(Struct, frozen=True):
    key: StoredKey
    principal: Principal


class StoredKeys:
    """An `Authenticator`. One for a process and its event loop."""

    def __init__(self, store: KeyStore, clock: Clock = time.monotonic) -> None:
        self._store = store
        times = Times(ttl=FRESH, stale=STALE - FRESH, retry=FRESH, patience=PATIENCE)
        self._found = RefreshingMap(self._find, times, (StoreUnavailable,), size=_KNOWN, clock=clock)
        self._used: dict[str, datetime] = {}
        self._written: dict[str, float] = {}

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Raises `StoreUnavailable` if the database cannot tell, and did not lately."""
        if not is_made_here(credential):
            return None
        found = await self._found.get(digest(credential))
        if found is None:
            return None
        now = datetime.now(UTC)
        if not found.key.good_at(now):
            raise Unauthenticated("The API key is not valid.")
        self._used[found.key.id] = now
        return found.principal

    async def write_uses(self) -> None:
        """Writes when keys were last used, each once a minute. Raises `StoreUnavailable`."""
        now = time.monotonic()
        due = {key: used for key, used in self._used.items() if now - self._written.get(key, -_USE) >= _USE}
        if due:
            await self._store.write_uses(due)
            self._written = {key: at for key, at in self._written.items() if now - at < _USE} | dict.fromkeys(due, now)
            self._used = {key: used for key, used in self._used.items() if due.get(key) != used}

    async def _find(self, given: bytes) -> _Found | None:
        key = await self._store.find(given)
        return None if key is None else _Found(key, key.principal)
