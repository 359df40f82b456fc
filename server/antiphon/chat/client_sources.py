"""The files and URLs that clients' contexts are read from. Apart from `client_context`, as few need them, and httpx2 takes 3 MB.

A file or URL is read on first use, and again when its time to live has passed; concurrent calls wait for the same read. If reading
it again fails, the last text is used. Only configured paths and URLs are read: nothing that a caller sends is part of one.
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
from antiphon.net import outbound
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.refreshing import Clock, Refreshing, Times

_RETRY: Final = 5.0
"""Seconds until a source that failed is read again, if there is an older text to use."""

_Read: TypeAlias = Callable[[], Awaitable[bytes]]

_log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """A source's contents cannot be used as context. The message gives the reason, and contains nothing of the contents."""


_FAILURES: Final = (FetchFailed, OSError, _Unusable)


class Sources:
    """The files and URLs of all clients that have one. An instance belongs to the event loop of its first call."""

    def __init__(self, clients: Mapping[str, ClientConfig], environment: Mapping[str, str], clock: Clock) -> None:
        """Prepare the sources, without reading them. `environment` has the clients' tokens.

        Raises `ConfigError` for a missing file or token, or an invalid URL.
        """
        self._fetcher = Fetcher()
        self._sources: dict[str, _Source] = {}
        for name, client in clients.items():
            if client.file is not None:
                self._sources[name] = _Source(name, client, _file(name, client.file, client.max_bytes), clock)
            elif client.url is not None:
                self._sources[name] = _Source(name, client, self._http(name, client, client.url, environment), clock)

    async def text(self, client: str) -> str | None:
        """Return the text of a client's source; None if it has none. Raises `ContextUnavailable`."""
        source = self._sources.get(client)
        return None if source is None else await source.text()

    async def close(self) -> None:
        """Cancel reads in progress, and close the connections."""
        for source in self._sources.values():
            await source.close()
        await self._fetcher.close()

    def _http(self, name: str, client: ClientConfig, configured: str, environment: Mapping[str, str]) -> _Read:
        """Return a function that reads a URL. Raises `ConfigError`."""
        try:
            url = httpx2.URL(configured)
        except httpx2.InvalidURL:  # not chained: its message quotes the URL, with a password in it
            raise ConfigError(f"clients.{name}.url: is not a valid URL") from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise ConfigError(f"clients.{name}.url: must be a URL such as https://example.com/context, without a password")
        headers = {"accept": "text/plain, */*;q=0.5", "accept-encoding": "identity", "user-agent": "antiphon"}
        key = client.api_key(name, environment)
        if key is not None:
            headers["authorization"] = f"Bearer {key.get_secret_value()}"
        headers |= {header.lower(): value for header, value in client.headers.items()}
        route = outbound.build(f"clients.{name}", client, environment)
        return lambda: self._fetcher.get(url, headers, client.max_bytes, route)


class _Source:
    """One client's file or URL, with the text that was read last."""

    def __init__(self, client: str, config: ClientConfig, read: _Read, clock: Clock) -> None:
        self._client = client
        self._config = config
        self._read = read
        self._text = Refreshing(self._read_text, Times(ttl=config.ttl, stale=config.stale, retry=_RETRY), _FAILURES, clock)

    async def text(self) -> str:
        """Return the source's text. Raises `ContextUnavailable`."""
        try:
            return await self._text.get()
        except _FAILURES:
            raise ContextUnavailable(self._client) from None

    async def close(self) -> None:
        """Cancel a read in progress."""
        await self._text.close()

    async def _read_text(self) -> str:
        """Read the source once. Raises one of `_FAILURES`, after logging it."""
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
    """Return a function that reads a file of at most `limit` bytes. Raises `ConfigError`."""
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
    """Return the text without surrounding space. Raises `_Unusable` if it is not UTF-8, or has a NUL character."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8") from None
    if "\0" in text:
        raise _Unusable("holds the character NUL")
    return text.strip()
