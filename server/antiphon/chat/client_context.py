"""What a client's conversations begin with: a text of the configuration, a file, or what a URL answers.

A file or URL is read when it is first asked for, and again when its time to live is over; calls that come meanwhile wait for the
same reading. Where it cannot be read again, what was read last is used. Only what the configuration names is read: nothing that a
caller sends is part of a path or a URL. No dialect is known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import httpx2
import structlog

from antiphon.config import ClientConfig, ConfigError
from antiphon.domain.errors import ContextUnavailable
from antiphon.net.fetch import Fetcher, FetchFailed

_RETRY: Final = 5.0
"""Seconds until a source that failed is asked again, while there is something older to use."""

_Read: TypeAlias = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """What the source gave is no context; the message tells why, and holds nothing of it."""


class Contexts:
    """The contexts of all clients. Belongs to the event loop of its first call."""

    def __init__(self, clients: Mapping[str, ClientConfig], environment: Mapping[str, str]) -> None:
        """Raises `ConfigError`: a file or token that is not there, a URL that is none."""
        self._texts = {name: client.context for name, client in clients.items() if client.context is not None}
        self._fetcher = Fetcher()
        self._cached: dict[str, _Cached] = {}
        for name, client in clients.items():
            if client.file is not None:
                self._cached[name] = _Cached(name, client, _file(name, client.file, client.max_bytes))
            elif client.url is not None:
                self._cached[name] = _Cached(name, client, self._http(name, client, client.url, environment))

    async def of(self, client: str) -> str:
        """The context of a client; empty where none is configured. Raises `ContextUnavailable`."""
        cached = self._cached.get(client)
        return self._texts.get(client, "") if cached is None else await cached.text()

    async def close(self) -> None:
        """Ends what is being read, and the connections."""
        for cached in self._cached.values():
            await cached.close()
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
        return lambda: self._fetcher.get(url, headers, client.max_bytes)


class _Cached:
    """One source, read at most once at a time, and again when what it gave is too old."""

    def __init__(self, client: str, config: ClientConfig, read: _Read) -> None:
        self._client = client
        self._config = config
        self._read = read
        self._text: str | None = None
        self._fresh_until = 0.0
        self._usable_until = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def text(self) -> str:
        """What the source says. Raises `ContextUnavailable`."""
        clock = asyncio.get_running_loop().time
        if self._text is None or clock() >= self._fresh_until:
            if self._reading is None:
                self._reading = asyncio.create_task(self._refresh())
            # A caller that leaves does not take the reading away from those who wait for it too.
            await asyncio.shield(self._reading)
        if self._text is None:
            raise ContextUnavailable(self._client)
        return self._text

    async def close(self) -> None:
        """Ends a reading that is going on."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _refresh(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._config.timeout):
                text = _decode(await self._read())
        except (FetchFailed, OSError, _Unusable) as error:
            if clock() >= self._usable_until:
                self._text = None
            else:
                self._fresh_until = min(clock() + _RETRY, self._usable_until)
            kind = "TimeoutError" if isinstance(error, TimeoutError) else type(error).__name__
            _log.warning(
                "client_context_not_read",
                client=self._client,
                error=str(error) if isinstance(error, (_Unusable, FetchFailed)) else kind,
                older_one_used=self._text is not None,
            )
        else:
            self._text = text
            self._fresh_until = clock() + self._config.ttl
            self._usable_until = self._fresh_until + self._config.stale
        finally:
            self._reading = None


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
