"""Small documents that are read by GET now and then: the keys of an issuer, the context of a client. httpx2 is the client here.

Its transport is used, without `AsyncClient` on top, which adds redirects, cookies and headers. Calls of models go over
`antiphon.net.client`.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Final

import httpx2

from antiphon.net.connection import tls_context
from antiphon.net.inflate import inflater
from antiphon.net.outbound import DIRECT, Outbound

_ANY: Final = (httpx2.HTTPError, zlib.error, EOFError)
"""What is raised by the client and by what decodes a body."""


class FetchFailed(Exception):
    """The document could not be had. The message tells why, and holds neither an address nor anything of the answer."""


class Fetcher:
    """Asks for documents, with a connection for each. Belongs to the event loop of its first call."""

    def __init__(self) -> None:
        self._opened: httpx2.AsyncHTTPTransport | None = None

    async def get(self, url: httpx2.URL, headers: Mapping[str, str], limit: int, outbound: Outbound = DIRECT) -> bytes:
        """Return the whole document at `url`, of `limit` bytes at most. It takes as long as it takes: the caller bounds that.

        `headers` leave in UTF-8, and no others but `host`.

        Raises `FetchFailed`, also for any status but 200, and so for redirects.
        """
        request = httpx2.Request("GET", url, headers=httpx2.Headers(headers, encoding="utf-8"))
        if not outbound.is_usual:
            async with _transport(outbound) as transport:
                return await _fetched(transport, request, limit)
        if self._opened is None:
            self._opened = _transport(outbound)
        return await _fetched(self._opened, request, limit)

    async def close(self) -> None:
        """End the connections."""
        if self._opened is not None:
            await self._opened.aclose()


def _transport(outbound: Outbound) -> httpx2.AsyncHTTPTransport:
    tls = outbound.tls or tls_context()
    proxy = None
    if outbound.proxy is not None:
        told = {} if outbound.authorization is None else {"proxy-authorization": outbound.authorization}
        context = tls if outbound.proxy.scheme == "https" else None
        proxy = httpx2.Proxy(str(outbound.proxy), headers=told, ssl_context=context)
    # A connection that is kept could be closed by its host just when it is used again.
    return httpx2.AsyncHTTPTransport(verify=tls, proxy=proxy, limits=httpx2.Limits(max_keepalive_connections=0), trust_env=False)


async def _fetched(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request, limit: int) -> bytes:
    try:
        response = await transport.handle_async_request(request)
        try:
            if response.status_code != 200:
                raise FetchFailed(f"status {response.status_code}")
            return await _read(response, limit)
        finally:
            await response.aclose()
    except _ANY as error:
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
            return "the answer broke off, or is no HTTP"
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
