"""Fetching of small documents, with httpx2: the keys of an issuer, the context of a client, an access token.

Its transport is used without `AsyncClient`, which would add redirects, cookies and headers. Calls of models use
`antiphon.net.client`.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Final

import httpx2
from msgspec import Struct

from antiphon.net.authorities import tls_context
from antiphon.net.inflate import inflater
from antiphon.net.outbound import DIRECT, Outbound

_ERRORS: Final = (httpx2.HTTPError, zlib.error, EOFError)
"""The exceptions of the client and of the decoding of a body."""


class FetchFailed(Exception):
    """The document could not be fetched. The message gives the reason, and contains no address and no part of the answer."""


class FetchedAnswer(Struct, frozen=True):
    """An answer with any status. The names in `headers` are found in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Fetches documents, with a new connection for each. Belongs to the event loop of its first call."""

    def __init__(self) -> None:
        self._opened: httpx2.AsyncHTTPTransport | None = None

    async def get(self, url: httpx2.URL, headers: Mapping[str, str], limit: int, outbound: Outbound = DIRECT) -> bytes:
        """Return the document at `url`, of at most `limit` bytes. The caller must limit the time.

        `headers` are sent in UTF-8, and no others but `host`.

        Raises `FetchFailed`, also for any status but 200, and so for redirects.
        """
        answer = await self.send("GET", url, headers, None, limit, outbound, only_ok=True)
        return answer.body

    async def send(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: int,
        outbound: Outbound = DIRECT,
        *,
        only_ok: bool = False,
    ) -> FetchedAnswer:
        """Send a request once, and return its answer, whose body has at most `limit` bytes. The caller must limit the time.

        `headers` are sent in UTF-8, and no others but `host` and `content-length`. `only_ok`: any status but 200 raises, too.

        Raises `FetchFailed`.
        """
        request = httpx2.Request(method, url, headers=httpx2.Headers(headers, encoding="utf-8"), content=body)
        if not outbound.is_default:
            async with _transport(outbound) as transport:
                return await _fetch(transport, request, limit, only_ok=only_ok)
        if self._opened is None:
            self._opened = _transport(outbound)
        return await _fetch(self._opened, request, limit, only_ok=only_ok)

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.aclose()


def _transport(outbound: Outbound) -> httpx2.AsyncHTTPTransport:
    tls = outbound.tls or tls_context()
    proxy = None
    if outbound.proxy is not None:
        headers = {} if outbound.authorization is None else {"proxy-authorization": outbound.authorization}
        context = tls if outbound.proxy.scheme == "https" else None
        proxy = httpx2.Proxy(str(outbound.proxy), headers=headers, ssl_context=context)
    # No connection is kept: its host could close it just when it is reused.
    return httpx2.AsyncHTTPTransport(verify=tls, proxy=proxy, limits=httpx2.Limits(max_keepalive_connections=0), trust_env=False)


async def _fetch(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request, limit: int, *, only_ok: bool) -> FetchedAnswer:
    try:
        response = await transport.handle_async_request(request)
        try:
            if only_ok and response.status_code != 200:
                raise FetchFailed(f"status {response.status_code}")
            return FetchedAnswer(response.status_code, response.headers, await _read(response, limit))
        finally:
            await response.aclose()
    except _ERRORS as error:
        raise FetchFailed(_reason(error)) from error


async def _read(response: httpx2.Response, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in _decoded(response.headers.get("content-encoding", ""), response.aiter_raw()):
        size += len(piece)
        if size > limit:
            raise FetchFailed(f"more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _decoded(encoding: str, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    inflate = inflater(encoding)
    async for data in body:
        if inflate is None:
            yield data
        else:
            for piece in inflate.feed(data):
                yield piece
    if inflate is not None:
        inflate.end()


def _reason(error: Exception) -> str:
    match error:
        case httpx2.ConnectError():
            return _unreached(error)
        case httpx2.ProxyError():
            return "the outbound proxy refuses"
        case httpx2.NetworkError() | httpx2.ProtocolError() | EOFError():
            return "the answer was cut off, or is not HTTP"
        case _:
            return type(error).__name__


def _unreached(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        match found:
            case ssl.SSLCertVerificationError():
                return f"TLS: the certificate is not trusted: {found.verify_message}"
            case socket.gaierror():
                return "out of reach: the name is not resolved"
        found = found.__cause__ or found.__context__
    return "out of reach"


def is_loopback(host: str) -> bool:
    """Return whether a URL's host is this one, which may be asked over plain HTTP."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
