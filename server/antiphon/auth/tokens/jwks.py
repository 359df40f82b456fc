"""Where the keys of an issuer come from: a shared secret, a file, a URL, or discovery (OpenID Connect Discovery 1.0).

A key set is kept, and read again when its time to live is over, or when a token names a key that is not in it: never more often
than the cooldown allows, and once for all who wait. Where it cannot be read again, what was read last is used for a bounded time.
What is read is what the configuration names, and the `jwks_uri` of the issuer's own document; nothing that a token says is ever
followed. No token is known here.
"""

from __future__ import annotations

import asyncio
import ipaddress
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
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.refreshing import Clock, Refreshing, Times

DISCOVERY: Final = "/.well-known/openid-configuration"

_HEADERS: Final = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity", "user-agent": "antiphon"}

Read: TypeAlias = Callable[[], Awaitable[bytes]]

_FAILURES: Final = (FetchFailed, OSError, KeysUnusable)

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Knows the keys of one issuer."""

    async def find(self, kid: str | None) -> Sequence[Key]:
        """The keys that a token may be checked with which names this one; none if the issuer has no such key.

        Raises `IdentityUnavailable` if that cannot be told now.
        """

    async def close(self) -> None:
        """Ends what is being read."""


class SharedSecret:
    """The one key of an issuer that shares it: a `KeySource`."""

    def __init__(self, secret: SecretStr) -> None:
        """Raises `ConfigError` for what is a public key."""
        try:
            self._keys = (OctKey.import_key(secret.get_secret_value().encode()),)
        except ValueError:
            raise ConfigError("auth.tokens: a secret may not be a public key: everybody knows it") from None

    async def find(self, kid: str | None) -> Sequence[Key]:
        """There is one, whatever it is called."""
        return self._keys

    async def close(self) -> None:
        """Nothing is ever read."""


class RotatingKeys:
    """The key set of an issuer, read as often as it takes: a `KeySource`. Belongs to the event loop of its first call."""

    def __init__(self, config: IssuerConfig, read: Read, clock: Clock = time.monotonic) -> None:
        """`read` gives a JWKS, or raises `FetchFailed`, `OSError` or `KeysUnusable`."""
        self._config = config
        self._read = read
        self._clock = clock
        times = Times(ttl=config.keys_ttl, stale=config.keys_stale, retry=config.keys_cooldown)
        self._set = Refreshing(self._read_set, times, _FAILURES, clock)
        self._rest_until = 0.0
        """The end of the cooldown."""

    async def find(self, kid: str | None) -> Sequence[Key]:
        """See `KeySource`. Waits for one reading at most, and only if it cannot do without."""
        if self._set.is_due:
            reading = self._renew()
            # While the issuer fails, what was read last does: not every call is to find out anew.
            if reading is not None and not (self._set.is_failing and self._known(kid)):
                await reading
        found = self._known(kid)
        if not found and (reading := self._renew()) is not None:
            await reading
            found = self._known(kid)
        if not found and (self._set.is_failing or self._set.usable is None):
            raise IdentityUnavailable(self._config.name, retry_after=max(1.0, self._rest_until - self._clock()))
        return found

    async def fetch(self) -> int:
        """Read the key set now, and return how many keys are in it that are of use. Raises as `read` does, and `TimeoutError`."""
        return len((await self._read_set()).keys)

    async def close(self) -> None:
        """Ends a reading that is going on."""
        await self._set.close()

    def _known(self, kid: str | None) -> Sequence[Key]:
        usable = self._set.usable
        return () if usable is None else usable.find(kid)

    def _renew(self) -> Awaitable[object] | None:
        """The reading that is going on, or a new one; None within the cooldown."""
        if self._set.is_reading or self._clock() >= self._rest_until:
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
            self._rest_until = self._clock() + self._config.keys_cooldown
        if found != before:
            _log.info("issuer_keys_read", issuer=self._config.name, keys=len(found.keys), ignored=found.ignored)
        return found


def from_file(config: IssuerConfig, path: Path) -> RotatingKeys:
    """The keys in a file, which may be replaced while this runs. Raises `ConfigError` if there are none."""

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
    """The keys at a URL. Raises `ConfigError` if it is none that may be asked."""
    url = _configured(written, f"auth.tokens: {config.name}: jwks_url")
    return RotatingKeys(config, lambda: fetcher.get(url, _HEADERS, MAX_BYTES, outbound))


def from_discovery(config: IssuerConfig, fetcher: Fetcher, outbound: Outbound = DIRECT) -> RotatingKeys:
    """The keys that the issuer's own document leads to. Raises `ConfigError` if the issuer is no URL that may be asked."""
    issuer = _configured(config.issuer, f"auth.tokens: {config.name}: issuer, as nothing else tells where its keys are")
    document = httpx2.URL(config.issuer.removesuffix("/") + DISCOVERY)

    async def read() -> bytes:
        found = await fetcher.get(document, _HEADERS, MAX_BYTES, outbound)
        return await fetcher.get(_jwks_uri(config.issuer, found, plain=issuer.scheme == "http"), _HEADERS, MAX_BYTES, outbound)

    return RotatingKeys(config, read)


def _jwks_uri(issuer: str, data: bytes, *, plain: bool) -> httpx2.URL:
    """Where a discovery document says that the keys are. Raises `KeysUnusable`."""
    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise KeysUnusable("the discovery document is not JSON") from None
    if not isinstance(found, dict) or found.get("issuer") != issuer:
        raise KeysUnusable("the discovery document is not that of the issuer")
    written = found.get("jwks_uri")
    if not isinstance(written, str):
        raise KeysUnusable("the discovery document has no jwks_uri")
    return _url(written, plain=plain)


def _configured(written: str, where: str) -> httpx2.URL:
    """A URL of the configuration's. Raises `ConfigError`."""
    try:
        return _url(written, plain=True)
    except KeysUnusable as error:
        raise ConfigError(f"{where}: {error}") from None


def _url(written: str, *, plain: bool) -> httpx2.URL:
    """A URL that keys may be asked of: https, or, where `plain` is allowed, http on this host. Raises `KeysUnusable`."""
    try:
        url = httpx2.URL(written)
    except httpx2.InvalidURL:
        raise KeysUnusable("not a URL") from None
    secure = url.scheme == "https" or (plain and url.scheme == "http" and _is_loopback(url.host))
    if not secure or not url.host or url.userinfo or url.fragment:
        raise KeysUnusable("not an https URL, without a password and a fragment")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
