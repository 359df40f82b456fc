"""The HTTP client under every call of a model and every proxied request: aiohttp's, with our rules.

No redirect is followed, no cookie kept, no proxy and no password taken from the environment, and no header added but `host`,
`content-length`, and the trace that the request belongs to, if any. Headers and bodies leave and come as they are. No provider's
protocol is known here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from antiphon.domain.trace import passed_on
from antiphon.net.connection import Connector, send_past_a_close, tls_context
from antiphon.net.http_errors import PROXY_REFUSES, ProxyRefused, UpstreamErrors
from antiphon.net.outbound import DIRECT, Outbound

_DNS_TTL: Final = 60
"""Seconds that an address is used before the name is asked for, and its addresses are checked, again."""

_LARGE: Final = 1024 * 1024
"""Bytes from which a body is written in pieces, so that others are served in between."""


class Client:
    """Pooled connections, to any number of hosts. Belongs to the event loop of its first call."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        read_timeout: float,
        keep_alive: float,
        resolver: AbstractResolver | None = None,
        outbound: Outbound = DIRECT,
    ) -> None:
        """Take times in seconds: for connecting as a whole, for silence, and for which an idle connection is kept.

        `resolver` looks names up, unless a proxy of `outbound` does; None: the system does.
        """
        # "connect" bounds connecting as a whole, the look-up of the name included.
        self._timeouts = aiohttp.ClientTimeout(connect=connect_timeout, sock_connect=connect_timeout, sock_read=read_timeout)
        self._keep_alive = keep_alive
        self._resolver = outbound.resolver or resolver
        self._outbound = outbound
        self._connector: Connector | None = None
        self._opened: aiohttp.ClientSession | None = None

    @property
    def buffered(self) -> int:
        """Bytes of answers that have come, and were not read yet. May be asked by any thread."""
        return 0 if self._connector is None else self._connector.buffered

    async def post(self, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """Send `body`, and wait for the head of the answer, whose `close` drops the connection unless the body is at its end.

        `headers` leave in UTF-8. `provider` is what errors call the host.

        Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`, and what the resolver raises but for `OSError`.
        """
        if (trace := passed_on()) is not None:
            headers = {**headers, **trace.headers()}
        return await self._send("POST", provider, url, headers, body)

    async def get(self, provider: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask for what is at `url`, as `post` does."""
        return await self._send("GET", provider, url, headers, b"")

    async def close(self) -> None:
        """End the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _send(self, method: str, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        session, outbound = self._session(), self._outbound
        options = {"headers": headers} if outbound.is_usual else outbound.options(url, headers)

        async def send() -> aiohttp.ClientResponse:
            data = body if len(body) < _LARGE else io.BytesIO(body)
            return await session.request(method, url, data=data or None, allow_redirects=False, **options)

        with UpstreamErrors(provider, begun=False):
            response = await send_past_a_close(send)
            if response.status == PROXY_REFUSES and outbound.proxy is not None:
                # No host may answer so, but a proxy that reads the request itself does.
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
    """Drops the connection of a response that is let go of before its end.

    aiohttp only closes it, and what is closed first sends what it still has to send: to a host that does not read, for ever.
    """

    def close(self) -> None:
        self._abort()
        super().close()

    def release(self) -> object:
        self._abort()
        return super().release()

    def _abort(self) -> None:
        # At its end, a response has no connection any more.
        transport = None if self.connection is None else self.connection.transport
        if transport is not None:
            transport.abort()
