"""Sources of an issuer's keys: a shared secret, a file, a URL, or discovery (OpenID Connect Discovery 1.0).

A key set is cached, and read again when its time to live is over or when a token names a key that is not in it. It is read at most
once per cooldown, and once for all calls that wait. If it cannot be read again, the last one is used for a bounded time. Only the
configured sources and the `jwks_uri` of the issuer's discovery document are read, never anything that a token names. This module
never sees a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import httpx2
import orjson
import structlog
from joserfc.jwk import Key, OctKey
from pydantic import SecretStr

from antiphon.auth.tokens.keyset import MAX_BYTES, KeySet, KeysUnusable, parse
from antiphon.config import ConfigError, IssuerConfig
from antiphon.domain.errors import IdentityUnavailable
from antiphon.net.fetch import Fetcher, FetchFailed, is_loopback
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.refreshing import Clock, Refreshing, Times

DISCOVERY: Final = "/.well-known/openid-configuration"

_HEADERS: Final = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity", "user-agent": "antiphon"}

Read: TypeAlias = Callable[[], Awaitable[bytes]]

_FAILURES: Final = (FetchFailed, OSError, KeysUnusable)

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Finds the keys of one issuer."""

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the keys that may verify a token with this `kid`; none if the issuer has no such key.

        Raises `IdentityUnavailable` if the keys cannot be determined at the moment.
        """

    async def close(self) -> None:
        """Cancel a read in progress."""


class SharedSecret:
    """The only key of an issuer that shares a secret with the gateway, as a `KeySource`."""

    def __init__(self, secret: SecretStr) -> None:
        """Store the secret. Raises `ConfigError` if it is a public key."""
        try:
            self._keys = (OctKey.import_key(secret.get_secret_value().encode()),)
        except ValueError:
            raise ConfigError("auth.tokens: a secret may not be a public key: everybody knows it") from None

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the key, whatever `kid` is."""
        return self._keys

    async def close(self) -> None:
        """Do nothing: nothing is ever read."""


class RotatingKeys:
    """The key set of an issuer, read again as needed, as a `KeySource`. Belongs to the event loop of its first call."""

    def __init__(self, config: IssuerConfig, read: Read, clock: Clock = time.monotonic) -> None:
        """`read` returns a JWKS, or raises `FetchFailed`, `OSError` or `KeysUnusable`."""
        self._config = config
        self._read = read
        self._clock = clock
        times = Times(ttl=config.keys_ttl, stale=config.keys_stale, retry=config.keys_cooldown)
        self._set = Refreshing(self._read_set, times, _FAILURES, clock)
        self._cooldown_until = 0.0

    async def find(self, kid: str | None) -> Sequence[Key]:
        """See `KeySource`. Waits for at most one read, and only if the cached keys do not suffice."""
        if self._set.is_due:
            reading = self._renew()
            # While the issuer fails, the cached keys are used, so that not every call waits for another failure.
            if reading is not None and not (self._set.is_failing and self._cached(kid)):
                await reading
        found = self._cached(kid)
        if not found and (reading := self._renew()) is not None:
            await reading
            found = self._cached(kid)
        if not found and (self._set.is_failing or self._set.usable is None):
            raise IdentityUnavailable(self._config.name, retry_after=max(1.0, self._cooldown_until - self._clock()))
        return found

    async def fetch(self) -> int:
        """Read the key set now, and return the number of usable keys in it. Raises what reading raises, and `TimeoutError`."""
        return len((await self._read_set()).keys)

    async def close(self) -> None:
        """Cancel a read in progress."""
        await self._set.close()

    def _cached(self, kid: str | None) -> Sequence[Key]:
        usable = self._set.usable
        return () if usable is None else usable.find(kid)

    def _renew(self) -> Awaitable[object] | None:
        """Return the read in progress, or start one; None during the cooldown."""
        if self._set.is_reading or self._clock() >= self._cooldown_until:
            return self._set.renew()
        return None

    async def _read_set(self) -> KeySet:
        before = self._set.usable
        try:
            async with asyncio.timeout(self._config.timeout):
                found = parse(await self._read())
        except _FAILURES as error:
            kind = "TimeoutError" if isinstance(error, TimeoutError) else type(error).__name__
            why = str(error) if isinstance(error, (KeysUnusable, FetchFailed)) else kind
            used = self._set.usable is not None
            _log.warning("issuer_keys_not_read", issuer=self._config.name, error=why, older_ones_used=used)
            raise
        finally:
            self._cooldown_until = self._clock() + self._config.keys_cooldown
        if found != before:
            _log.info("issuer_keys_read", issuer=self._config.name, keys=len(found.keys), ignored=found.ignored)
        return found


def from_file(config: IssuerConfig, path: Path) -> RotatingKeys:
    """Return the keys in a file, which may be replaced at any time. Raises `ConfigError` if it has no usable key."""

    def read() -> bytes:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise KeysUnusable(f"more than {MAX_BYTES} bytes")
        return data

    where = f"auth.tokens: {config.name}: jwks_file: {path}"
    try:
        if not parse(read()).keys:
            raise ConfigError(f"{where}: has no key that tokens can be checked with")
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from error
    except KeysUnusable as error:
        raise ConfigError(f"{where}: {error}") from None
    return RotatingKeys(config, lambda: asyncio.to_thread(read))


def from_url(config: IssuerConfig, written: str, fetcher: Fetcher, outbound: Outbound = DIRECT) -> RotatingKeys:
    """Return the keys at a URL. Raises `ConfigError` if the URL is not allowed."""
    url = _configured_url(written, f"auth.tokens: {config.name}: jwks_url")
    return RotatingKeys(config, lambda: fetcher.get(url, _HEADERS, MAX_BYTES, outbound))


def from_discovery(config: IssuerConfig, fetcher: Fetcher, outbound: Outbound = DIRECT) -> RotatingKeys:
    """Return the keys that the issuer's discovery document points to. Raises `ConfigError` if the issuer is not an allowed URL."""
    issuer = _configured_url(config.issuer, f"auth.tokens: {config.name}: issuer, as nothing else tells where its keys are")
    document = httpx2.URL(config.issuer.removesuffix("/") + DISCOVERY)

    async def read() -> bytes:
        found = await fetcher.get(document, _HEADERS, MAX_BYTES, outbound)
        return await fetcher.get(_jwks_uri(config.issuer, found, plain=issuer.scheme == "http"), _HEADERS, MAX_BYTES, outbound)

    return RotatingKeys(config, read)


def _jwks_uri(issuer: str, data: bytes, *, plain: bool) -> httpx2.URL:
    """Return the URL of the keys from a discovery document. Raises `KeysUnusable`."""
    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise KeysUnusable("the discovery document is not JSON") from None
    if not isinstance(found, dict) or found.get("issuer") != issuer:
        raise KeysUnusable("the discovery document is not that of the issuer")
    written = found.get("jwks_uri")
    if not isinstance(written, str):
        raise KeysUnusable("the discovery document has no jwks_uri")
    return _checked_url(written, plain=plain)


def _configured_url(written: str, where: str) -> httpx2.URL:
    """Return a URL from the configuration, checked. Raises `ConfigError`."""
    try:
        return _checked_url(written, plain=True)
    except KeysUnusable as error:
        raise ConfigError(f"{where}: {error}") from None


def _checked_url(written: str, *, plain: bool) -> httpx2.URL:
    """Return a URL from which keys may be fetched: https, or http on this host if `plain`. Raises `KeysUnusable` for another."""
    try:
        url = httpx2.URL(written)
    except httpx2.InvalidURL:
        raise KeysUnusable("not a URL") from None
    secure = url.scheme == "https" or (plain and url.scheme == "http" and is_loopback(url.host))
    if not secure or not url.host or url.userinfo or url.fragment:
        raise KeysUnusable("not an https URL without password and fragment")
    return url
