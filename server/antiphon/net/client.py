"""The HTTP client for all calls of models and proxied requests: aiohttp's, with the rules of this project.

It follows no redirect, keeps no cookie, takes no proxy or password from the environment, and adds no header but `host`,
`content-length`, and the trace context of the request, if there is one. Headers and bodies are sent and received unchanged. It
knows no provider's protocol.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from antiphon.domain.trace import outgoing_trace
from antiphon.net.connection import Connector, send_with_retry, tls_context
from antiphon.net.http_errors import PROXY_REFUSES, ProxyRefused, UpstreamErrors
from antiphon.net.outbound import DIRECT, Outbound

_DNS_TTL: Final = 60
"""Seconds for which an address is used before the name is looked up, and its addresses checked, again."""

_LARGE: Final = 1024 * 1024
"""Size in bytes from which a body is written in pieces, so that other calls are served in between."""


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
    ) -> None:
        """Take time-outs in seconds: for connecting as a whole, between two reads, and for keeping an idle connection.

        `resolver` looks up host names, unless `outbound` has a proxy, which does; None: the system's resolver.
        """
        # "connect" limits connecting as a whole, with the look-up of the name.
        self._timeouts = aiohttp.ClientTimeout(connect=connect_timeout, sock_connect=connect_timeout, sock_read=read_timeout)
        self._keep_alive = keep_alive
        self._resolver = outbound.resolver or resolver
        self._outbound = outbound
        self._connector: Connector | None = None
        self._opened: aiohttp.ClientSession | None = None

    @property
    def buffered(self) -> int:
        """Return the number of bytes of answers that arrived and were not read yet. Thread-safe."""
        return 0 if self._connector is None else self._connector.buffered

    async def post(self, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """Send `body`, and return the response once its head has arrived.

        The response's `close` drops the connection unless the body was read to its end. `headers` are sent in UTF-8. `provider`
        names the host in errors.

        Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`, and what the resolver raises except `OSError`.
        """
        if (trace := outgoing_trace()) is not None:
            headers = {**headers, **trace.headers()}
        return await self._send("POST", provider, url, headers, body)

    async def get(self, provider: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a GET request for `url`, and return the response as `post` does."""
        return await self._send("GET", provider, url, headers, b"")

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _send(self, method: str, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        session, outbound = self._session(), self._outbound
        options = {"headers": headers} if outbound.is_default else outbound.options(url, headers)

        async def send() -> aiohttp.ClientResponse:
            data = body if len(body) < _LARGE else io.BytesIO(body)
            return await session.request(method, url, data=data or None, allow_redirects=False, **options)

        with UpstreamErrors(provider, begun=False):
            response = await send_with_retry(send)
            if response.status == PROXY_REFUSES and outbound.proxy is not None:
                # Only a proxy may answer so, one that reads the request itself (without a tunnel).
                response.close()
                raise ProxyRefused(response.status)
            return response

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._connector = Connector(
                ssl=tls_context(),
                limit=0,
                resolver=self._resolver,
                ttl_dns_cache=_DNS_TTL,
                keepalive_timeout=self._keep_alive,
            )
            self._opened = aiohttp.ClientSession(
                connector=self._connector,
                response_class=_Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
                timeout=self._timeouts,
                auto_decompress=False,
                trust_env=False,
            )
        return self._opened


class _Response(aiohttp.ClientResponse):
    """A response that drops its connection if it is released before its end.

    aiohttp only closes the connection, and closing first sends what is still unsent: forever, to a host that does not read.
    """

    def close(self) -> None:
        self._abort()
        super().close()

    def release(self) -> object:
        self._abort()
        return super().release()

    def _abort(self) -> None:
        # A response that was read to its end has no connection.
        transport = None if self.connection is None else self.connection.transport
        if transport is not None:
            transport.abort()
