"""The HTTP client for all calls of models and proxied requests.

Connections, their pool, TLS, DNS and the parser are aiohttp's. Its `ClientSession` and `ClientRequest` are not used for requests:
they cost more CPU than everything else of a call's HTTP (docs/adr/0010).

It follows no redirect, keeps no cookie, takes no proxy or password from the environment, and adds no header but `host`,
`content-length`, and the trace context of the request, if there is one. Headers and bodies are sent and received unchanged. It
knows no provider's protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict
from yarl import URL

from antiphon.domain.trace import outgoing_trace
from antiphon.net.coalescing import Coalescer
from antiphon.net.connection import LOST, Connector, ResponseProtocol, tls_context
from antiphon.net.http_errors import PROXY_REFUSES, ProxyRefused, UpstreamErrors
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.response import ClientResponse, drop

_DNS_TTL: Final = 60
"""Seconds for which an address is used before the name is looked up, and its addresses checked, again."""

_LARGE: Final = 1024 * 1024
"""Size in bytes from which a body is written in pieces, so that other calls are served in between."""

_PIECE: Final = 64 * 1024
"""Size in bytes of these pieces."""

_HOSTS: Final = 1024
"""How many hosts are remembered; a caller of the proxy may name any number."""

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that could end a line of the head, and begin another."""


class Client:
    """Pooled connections to any number of hosts. Belongs to the event loop of its first call."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        read_timeout: float,
        keep_alive: float,
        resolver: AbstractResolver | None = None,
        outbound: Outbound = DIRECT,
        coalescer: Coalescer | None = None,
    ) -> None:
        """Take time-outs in seconds: for connecting as a whole, between two reads, and for keeping an idle connection.

        `resolver` looks up host names, unless `outbound` has a proxy, which does; None: the system's resolver. `coalescer` joins
        reads of streams; None: each is passed on at once.
        """
        # "connect" limits connecting as a whole, with the look-up of the name.
        self._timeouts = aiohttp.ClientTimeout(connect=connect_timeout, sock_connect=connect_timeout, sock_read=read_timeout)
        self._keep_alive = keep_alive
        self._resolver = outbound.resolver or resolver
        self._outbound = outbound
        self._connector: Connector | None = None
        self._coalescer = coalescer
        self._hosts: dict[tuple[URL, object], aiohttp.ClientRequest] = {}

    @property
    def buffered(self) -> int:
        """Return the number of bytes of answers that arrived and were not read yet. Thread-safe."""
        return 0 if self._connector is None else self._connector.buffered

    async def post(self, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> ClientResponse:
        """Send `body`, and return the response once its head has arrived.

        The response's `close` drops the connection unless the body was read to its end. `headers` are sent in UTF-8. `provider`
        names the host in errors.

        Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`, and what the resolver raises except `OSError`.
        """
        if (trace := outgoing_trace()) is not None:
            headers = CIMultiDict(headers)
            headers.update(trace.headers())
        return await self._send("POST", provider, url, headers, body)

    async def get(self, provider: str, url: URL, headers: Mapping[str, str]) -> ClientResponse:
        """Send a GET request for `url`, and return the response as `post` does. Logs nothing."""
        return await self._send("GET", provider, url, headers, None)

    async def close(self) -> None:
        """Close the connections."""
        if self._connector is not None:
            await self._connector.close()

    async def _send(self, method: str, provider: str, url: URL, headers: Mapping[str, str], body: bytes | None) -> ClientResponse:
        """Send a request. If its idle connection turns out to be closed, send it once more on a new one.

        No other request is sent twice: a model call costs money.
        """
        connector = self._connector or self._open()
        outbound = self._outbound
        options = {"headers": headers} if outbound.is_default else outbound.options(url, headers)
        with UpstreamErrors(provider, begun=False, logs=method == "POST"):
            host = self._host(url, options)
            head = _head(method, url, options, body)
            connection = await connector.open(host, self._timeouts)
            protocol: ResponseProtocol = connection.protocol  # type: ignore[assignment]  # made by `Connector`
            try:
                response = await self._exchange(connection, head, body)
            except LOST:
                if not protocol.was_closed_before_arrival(asyncio.get_running_loop().time()):
                    raise
                connection = await connector.open(host, self._timeouts, new=True)
                response = await self._exchange(connection, head, body)
            if response.status == PROXY_REFUSES and outbound.proxy is not None:
                # Only a proxy may answer so, one that reads the request itself (without a tunnel).
                response.close()
                raise ProxyRefused(response.status)
            return response

    async def _exchange(self, connection: Connection, head: bytes, body: bytes | None) -> ClientResponse:
        """Write a request, and wait for the head of its answer."""
        protocol: ResponseProtocol = connection.protocol  # type: ignore[assignment]  # made by `Connector`
        upload: asyncio.Task[None] | None = None
        try:
            protocol.set_response_params(
                timer=_NO_TIMER, read_until_eof=True, auto_decompress=False, read_timeout=self._timeouts.sock_read
            )
            if body is None or len(body) < _LARGE:
                _write(protocol, head if body is None else head + body)
                protocol.start_timeout()
            else:
                _write(protocol, head)
                upload = asyncio.create_task(_upload(protocol, body))
            while True:
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    return ClientResponse(message, content, connection, upload)
                protocol.start_timeout()  # aiohttp stops it at an interim answer, as this was: RFC 9110, section 15.2
        except BaseException:
            drop(connection, upload)
            raise

    def _host(self, url: URL, options: Mapping[str, Any]) -> aiohttp.ClientRequest:
        """Return what the connector has to know of a host: a request that is never sent, the same for each connection.

        Raises `aiohttp.InvalidURL` for a URL that is not of HTTP, or has no host.
        """
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise aiohttp.InvalidURL(url)
        context = options.get("ssl")
        key = (url.origin(), context)
        found = self._hosts.get(key)
        if found is None:
            if len(self._hosts) >= _HOSTS:
                self._hosts.clear()
            found = aiohttp.ClientRequest(
                "POST",
                url.origin(),
                loop=asyncio.get_running_loop(),
                ssl=True if context is None else context,
                proxy=options.get("proxy"),
                proxy_headers=options.get("proxy_headers"),
            )
            if isinstance(found.proxy_headers, CIMultiDict):  # else aiohttp adds it, and the key changes
                found.proxy_headers["Host"] = found.headers["Host"]
            self._hosts[key] = found
        return found

    def _open(self) -> Connector:
        self._connector = Connector(
            self._coalescer,
            ssl=tls_context(),
            limit=0,
            resolver=self._resolver,
            ttl_dns_cache=_DNS_TTL,
            keepalive_timeout=self._keep_alive,
        )
        return self._connector


_NO_TIMER: Final = TimerNoop()


def _head(method: str, url: URL, options: Mapping[str, Any], body: bytes | None) -> bytes:
    """Return the head of a request; a `host` among its headers is sent in place of the URL's.

    Raises `ValueError` for a URL or a header that has control characters.
    """
    # A proxy that reads the request itself, without a tunnel, needs the whole URL: RFC 9112, section 3.2.2.
    target = str(url.with_fragment(None)) if "proxy" in options and url.scheme == "http" else url.raw_path_qs
    headers = options["headers"]
    lines = [f"{method} {target} HTTP/1.1"]
    has_host = False
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
        has_host = has_host or name.lower() == "host"
    if not has_host:
        lines.insert(1, f"Host: {url.host_port_subcomponent}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any(map(_CONTROLS.search, lines)):
        raise ValueError("The URL or a header has control characters.")
    return "\r\n".join((*lines, "\r\n")).encode()


def _write(protocol: ResponseProtocol, data: bytes | memoryview) -> None:
    """Write to the transport's buffer. Raises `aiohttp.ClientConnectionResetError` if the connection is closed."""
    if protocol.transport is None or protocol.transport.is_closing():
        raise aiohttp.ClientConnectionResetError("The connection is closed.")
    protocol.transport.write(data)


async def _upload(protocol: ResponseProtocol, body: bytes) -> None:
    """Write a large body in pieces. A connection that is lost meanwhile is told to the reader of the answer, and not here."""
    try:
        for start in range(0, len(body), _PIECE):
            await protocol._drain_helper()  # noqa: SLF001  # there is no public way to wait until more can be written
            _write(protocol, memoryview(body)[start : start + _PIECE])
            protocol.start_timeout()
            await asyncio.sleep(0)  # other calls come first
    except (aiohttp.ClientError, OSError):
        pass
