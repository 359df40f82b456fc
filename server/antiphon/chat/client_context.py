"""What a client's conversations begin with: a text of the configuration, a file, or what a URL answers.

A file or URL is read when it is first asked for, and again when its time to live is over; calls that come meanwhile wait for the
same reading. Where it cannot be read again, what was read last is used. Only what the configuration names is read: nothing that a
caller sends is part of a path or a URL. No dialect is known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import httpx2
import structlog

from antiphon.config import ClientConfig, ConfigError
from antiphon.domain.errors import ContextUnavailable
from antiphon.net import outbound
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.refreshing import Clock, Refreshing, Times

_RETRY: Final = 5.0
"""Seconds until a source that failed is asked again, while there is something older to use."""

_Read: TypeAlias = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """What the source gave is no context; the message tells why, and holds nothing of it."""


_FAILURES: Final = (FetchFailed, OSError, _Unusable)


class Contexts:
    """The contexts of all clients. Belongs to the event loop of its first call."""

    def __init__(self, clients: Mapping[str, ClientConfig], environment: Mapping[str, str], clock: Clock = time.monotonic) -> None:
        """Raises `ConfigError`: a file or token that is not there, a URL that is none."""
        self._texts = {name: client.context for name, client in clients.items() if client.context is not None}
        self._fetcher = Fetcher()
        self._sources: dict[str, _Source] = {}
        for name, client in clients.items():
            if client.file is not None:
                self._sources[name] = _Source(name, client, _file(name, client.file, client.max_bytes), clock)
            elif client.url is not None:
                self._sources[name] = _Source(name, client, self._http(name, client, client.url, environment), clock)

    async def of(self, client: str) -> str:
        """The context of a client; empty where none is configured. Raises `ContextUnavailable`."""
        source = self._sources.get(client)
        return self._texts.get(client, "") if source is None else await source.text()

    async def close(self) -> None:
        """Ends what is being read, and the connections."""
        for source in self._sources.values():
            await source.close()
        await self._fetcher.close()

    def _http(self, name: str, client: ClientConfig, written: str, environment: Mapping[str, str]) -> _Read:
        try:
            url = httpx2.URL(written)
        except httpx2.InvalidURL:  # which quotes what it cannot read, such as part of a password
            raise ConfigError(f"clients.{name}.url: is no URL that can be read") from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise ConfigError(f"clients.{name}.url: must be a URL such as https://example.com/context, without a password")
        headers = {"accept": "text/plain, */*;q=0.5", "accept-encoding": "identity", "user-agent": "antiphon"}
        key = client.api_key(name, environment)
        if key is not None:
            headers["authorization"] = f"Bearer {key.get_secret_value()}"
        headers |= {header.lower(): value for header, value in client.headers.items()}
        way = outbound.build(f"clients.{name}", client, environment)
        return lambda: self._fetcher.get(url, headers, client.max_bytes, way)


class _Source:
    """A file or a URL, and what it said last."""

    def __init__(self, client: str, config: ClientConfig, read: _Read, clock: Clock) -> None:
        self._client = client
        self._config = config
        self._read = read
        self._text = Refreshing(self._read_text, Times(ttl=config.ttl, stale=config.stale, retry=_RETRY), _FAILURES, clock)

    async def text(self) -> str:
        """What the source says. Raises `ContextUnavailable`."""
        try:
            return await self._text.get()
        except _FAILURES:
            raise ContextUnavailable(self._client) from None

    async def close(self) -> None:
        """Ends a reading that is going on."""
        await self._text.close()

    async def _read_text(self) -> str:
        try:
            async with asyncio.timeout(self._config.timeout):
                return _decode(await self._read())
        except _FAILURES as error:
            kind = "TimeoutError" if isinstance(error, TimeoutError) else type(error).__name__
            _log.warning(
                "client_context_not_read",
                client=self._client,
                error=str(error) if isinstance(error, (_Unusable, FetchFailed)) else kind,
                older_one_used=self._text.usable is not None,
            )
            raise


def _file(name: str, path: Path, limit: int) -> _Read:
    if not path.is_file():
        raise ConfigError(f"clients.{name}.file: {path}: no such file")

    def read() -> bytes:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise _Unusable(f"more than {limit} bytes")
        return data

    return lambda: asyncio.to_thread(read)


def _decode(data: bytes) -> str:
    """Raises `_Unusable`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8") from None
    if "\0" in text:
        raise _Unusable("holds the character NUL")
    return text.strip()
