"""The HTTP client for all calls of models and proxied requests.

It follows no redirect, keeps no cookie, takes no proxy or password from the environment, and adds no header but `host`,
`content-length`, and the trace context of the request, if there is one. Headers and bodies are sent and received unchanged. It
knows no provider's protocol.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from multidict import CIMultiDict, getversion
from yarl import URL

from antiphon.domain.trace import TRACEPARENT, TRACESTATE, TraceContext, outgoing_trace
from antiphon.net.authorities import tls_context
from antiphon.net.coalescing import Coalescer
from antiphon.net.connection_pool import ConnectionPool, Destination
from antiphon.net.connector import NO_HEADERS, ConnectOptions, Resolver
from antiphon.net.exceptions import ConnectionLost, InvalidTarget, ProxyRefused
from antiphon.net.http_errors import HTTP_ERRORS, PROXY_REFUSES, raise_translated
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.response import ClientResponse

_DESTINATIONS: Final = 1024
"""How many destinations are remembered; a caller of the proxy may name any number."""

_ROUTES: Final = 64
"""How many routes are remembered. A provider has few URLs."""

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
        resolver: Resolver | None = None,
        outbound: Outbound = DIRECT,
        coalescer: Coalescer | None = None,
    ) -> None:
        """Take time-outs in seconds: for connecting as a whole, between two reads, and for keeping an idle connection.

        `resolver` looks up host names, unless `outbound` has a proxy, which does; None: the system's resolver. `coalescer` joins
        reads of streams; None: each is passed on at once.
        """
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._keep_alive = keep_alive
        self._resolver = outbound.resolver or resolver
        self._outbound = outbound
        self._coalescer = coalescer
        self._pool: ConnectionPool | None = None
        self._destinations: dict[tuple[URL, object], Destination] = {}
        self._routes: dict[int, _Route] = {}

    @property
    def buffered(self) -> int:
        """Return the number of bytes of answers that arrived and were not read yet. Thread-safe."""
        return 0 if self._pool is None else self._pool.unread

    def post(self, provider: str, url: URL, headers: Mapping[str, str], body: bytes) -> Coroutine[Any, Any, ClientResponse]:
        """Send `body`, and return the response once its head has arrived.

        The response's `close` drops the connection unless the body has arrived to its end. `headers` are sent in UTF-8.
        `provider` names the host in errors. A call with the same `url` and `headers` objects as an earlier one is cheaper.

        Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`, and what the resolver raises except `OSError`.
        """
        trace = outgoing_trace()
        if trace is not None and (TRACEPARENT in headers or TRACESTATE in headers):
            headers = CIMultiDict(headers)
            headers.popall(TRACEPARENT, None)
            headers.popall(TRACESTATE, None)
        return self._send("POST", provider, url, headers, body, trace)

    def get(self, provider: str, url: URL, headers: Mapping[str, str]) -> Coroutine[Any, Any, ClientResponse]:
        """Send a GET request for `url`, and return the response as `post` does. Logs nothing."""
        return self._send("GET", provider, url, headers, None)

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.close()

    async def _send(
        self,
        method: str,
        provider: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        trace: TraceContext | None = None,
    ) -> ClientResponse:
        """Send a request. If its idle connection turns out to be closed, send it once more on a new one.

        No other request is sent twice: a model call costs money.
        """
        try:
            pool = self._pool or self._open()
            # Every change of headers gives them a version that no others have or had.
            version = getversion(headers) if type(headers) is CIMultiDict else None
            route = self._routes.get(id(url))
            if route is None or not route.serves(method, url, version, self._outbound):
                route = self._add_route(method, url, headers, version)
            head = route.head
            if trace is not None:  # not among the headers, which would then be others for each request
                head += "".join([f"{name}: {value}\r\n" for name, value in trace.headers().items()]).encode()
            head = b"%b\r\n" % head if body is None else b"%bContent-Length: %d\r\n\r\n" % (head, len(body))
            connection = pool.take(route.destination) or await pool.open(route.destination)
            response = connection.send(head, body)
            try:
                await response.arrival
                if not response.begun and isinstance(response.error, ConnectionLost) and connection.was_closed_before_arrival():
                    connection = await pool.open(route.destination)
                    response = connection.send(head, body)
                    await response.arrival
            except BaseException:
                response.close()
                raise
            if not response.begun and response.error is not None:
                raise response.error
            if response.status == PROXY_REFUSES and self._outbound.proxy is not None:
                # Only a proxy may answer so, one that reads the request itself (without a tunnel).
                response.close()
                raise ProxyRefused(response.status)
        except HTTP_ERRORS as error:
            raise_translated(error, provider, begun=False, logs=method == "POST")
        return response

    def _add_route(self, method: str, url: URL, headers: Mapping[str, str], version: int | None) -> _Route:
        """Return a route that is kept for the next request with the same objects.

        Raises `InvalidTarget` for a URL that is not of HTTP, or has no host, and `ValueError` for control characters.
        """
        outbound = self._outbound
        options: dict[str, Any] = {"headers": headers} if outbound.is_default else outbound.options(url, headers)
        route = _Route(method, url, version, options.get("ssl"), self._destination(url, options), _head(method, url, options))
        if version is not None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            self._routes[id(url)] = route
        return route

    def _destination(self, url: URL, options: Mapping[str, Any]) -> Destination:
        """Return where connections for `url` lead to: the same object for all URLs of a host with the same TLS context."""
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise InvalidTarget
        origin = url.origin()
        context = options.get("ssl")
        found = self._destinations.get((origin, context))
        if found is None:
            if len(self._destinations) >= _DESTINATIONS:
                self._destinations.clear()
            is_secure, proxy = url.scheme == "https", options.get("proxy")
            speaks_tls = is_secure or (proxy is not None and proxy.scheme == "https")
            tls: ssl.SSLContext | None = tls_context() if context is None and speaks_tls else context
            headers = options.get("proxy_headers", NO_HEADERS)
            found = Destination(ConnectOptions(url.raw_host, url.port or 0, is_secure, tls, proxy, headers))
            self._destinations[origin, context] = found
        return found

    def _open(self) -> ConnectionPool:
        self._pool = ConnectionPool(
            connect_timeout=self._connect_timeout,
            read_timeout=self._read_timeout,
            keep_alive=self._keep_alive,
            resolver=self._resolver,
            coalescer=self._coalescer,
        )
        return self._pool


class _Route:
    """What requests with the same URL and headers have in common: where they are sent to, and how they begin."""

    __slots__ = ("_context", "_method", "_url", "_version", "destination", "head")

    def __init__(
        self, method: str, url: URL, version: int | None, context: ssl.SSLContext | None, destination: Destination, head: bytes
    ) -> None:
        """`version` is that of the headers. `head` ends before the length of the body."""
        self._method = method
        self._url = url  # so that no other has its id
        self._version = version
        self._context = context
        self.destination = destination
        self.head = head

    def serves(self, method: str, url: URL, version: int | None, outbound: Outbound) -> bool:
        """Return whether a request takes this route: nothing has changed, the operator's authorities neither."""
        return (
            self._url is url
            and self._version == version
            and self._method == method
            and (outbound.is_default or outbound.tls is self._context)
        )


def _head(method: str, url: URL, options: Mapping[str, Any]) -> bytes:
    """Return the head of a request up to the body's length; a `host` among its headers is sent in place of the URL's.

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
    if any(map(_CONTROLS.search, lines)):
        raise ValueError("The URL or a header has control characters.")
    return "\r\n".join((*lines, "")).encode()
