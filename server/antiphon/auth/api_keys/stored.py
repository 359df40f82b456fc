"""The stored keys as credentials: looked up by digest, remembered for a moment.

What is remembered is used for two seconds, so that a revocation is in force everywhere after those, and a key that is used all the
time costs one look-up in two seconds. While the database is out of reach, or hangs, a key that was good is taken for good for ten
minutes more: an outage of the history is none of the chat.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from antiphon.auth.api_keys.secret import digest, is_made_here
from antiphon.auth.api_keys.store import KeyStore, StoredKey
from antiphon.domain.errors import StoreUnavailable, Unauthenticated
from antiphon.domain.principal import Principal

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


class _Known(Struct, frozen=True):
    key: StoredKey | None
    principal: Principal | None
    at: float
    """When the database said so, by the monotonic clock."""
    due: float
    """When it is to be asked again."""


class StoredKeys:
    """An `Authenticator`. One for a process and its event loop."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[StoredKey | None]] = {}
        self._used: dict[str, datetime] = {}
        self._written: dict[str, float] = {}

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`. Raises `StoreUnavailable` if the database cannot tell, and did not lately."""
        if not is_made_here(credential):
            return None
        given = digest(credential)
        known = self._known.get(given)
        if known is None or time.monotonic() > known.due:
            known = await self._look_up(given, known)
        key = known.key
        if key is None:
            return None
        now = datetime.now(UTC)
        if not key.good_at(now):
            raise Unauthenticated("The API key is not valid.")
        self._used[key.id] = now
        return known.principal

    async def write_uses(self) -> None:
        """Writes when keys were last used, each once a minute. Raises `StoreUnavailable`."""
        now = time.monotonic()
        due = {key: used for key, used in self._used.items() if now - self._written.get(key, -_USE) >= _USE}
        if due:
            await self._store.write_uses(due)
            self._written = {key: at for key, at in self._written.items() if now - at < _USE} | dict.fromkeys(due, now)
            self._used = {key: used for key, used in self._used.items() if due.get(key) != used}

    async def _look_up(self, given: bytes, before: _Known | None) -> _Known:
        """Asks the database: once, however many calls wait for it."""
        asking = self._asking.get(given)
        if asking is None:
            asking = self._asking[given] = asyncio.create_task(self._store.find(given))
            asking.add_done_callback(lambda ended: self._answered(given, ended))
        usable = before is not None and before.key is not None and time.monotonic() - before.at < STALE
        try:
            async with asyncio.timeout(PATIENCE if usable else None):
                key = await asyncio.shield(asking)
            now = time.monotonic()
            known = _Known(key, None if key is None else key.principal, now, now + FRESH)
        except (StoreUnavailable, TimeoutError):
            if before is None or not usable:
                raise
            known = replace(before, due=time.monotonic() + FRESH)
        self._known[given] = known
        self._known.move_to_end(given)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return known

    def _answered(self, given: bytes, ended: asyncio.Task[StoredKey | None]) -> None:
        del self._asking[given]
        if not ended.cancelled():
            ended.exception()  # told to those who waited, if there are any left
