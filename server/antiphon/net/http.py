"""The one place that touches the HTTP client: a request and its answer, or an error of our tree.

httpx2's transport interface over aiohttp (httpx-aiohttp), without httpx2's `AsyncClient` on top: that adds redirects, cookies,
proxies from the environment and authentication, none of which a provider call may have, and two fifths of the CPU of a call. No
provider's protocol is known here.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from functools import cache, partial
from types import TracebackType
from typing import Any, Final, cast

import aiohttp
import httpx2
from aiohttp import http_exceptions
from httpx_aiohttp.httpx2 import AiohttpTransport

from antiphon.config import MAX_MESSAGE_BYTES, ProviderConfig
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net.connection import Connector, send_past_a_close

_DNS_TTL: Final = 60
"""Seconds that an address is used before the name is asked for again."""

_LARGE: Final = 1024 * 1024
"""Bytes from which aiohttp wants a body as a stream, not to write it at one go."""

_END_GRACE: Final = 0.1
"""Seconds that a finished reply is given to end its body too, so that the connection can be used again. Nobody waits for it."""

_INFLATED: Final = 1024 * 1024
"""Bytes that an encoded body is decoded at a time: a few can stand for very many."""

# What each exception of the client means. httpx-aiohttp turns most of aiohttp's into httpx2's and gets some wrong (a connection
# that the server dropped becomes a `ConnectTimeout`), so the cause is looked at first.
_TIMEOUT: Final = (TimeoutError, httpx2.TimeoutException)
_BROKEN: Final = (
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    http_exceptions.HttpProcessingError,
    httpx2.DecodingError,
    httpx2.ProtocolError,
    httpx2.ReadError,
)
_LOST: Final = (
    aiohttp.ClientConnectionError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.RedirectClientError,
    aiohttp.UploadAbortedError,
    httpx2.InvalidURL,
    httpx2.NetworkError,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    OSError,
)
_ANY: Final = (*_TIMEOUT, *_BROKEN, *_LOST, aiohttp.ClientError, httpx2.HTTPError, httpx2.StreamError)


class Reply:
    """The answer to one request: iterate it once, for its body's bytes as they come."""

    def __init__(self, provider: str, response: httpx2.Response, ending: _Ending) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.headers.encoding = "latin-1"  # httpx2 would try others first, over all of them
        self._provider = provider
        # The transport's, always: a response of any other kind could not be dropped at once.
        self._stream = cast(httpx2.AsyncByteStream, response.stream)
        self._ending = ending
        encoding = self.headers.get("content-encoding", "identity").lower()
        # We ask for no encoding, as deltas are too short to gain by it, but some hosts do as they like.
        if encoding == "identity":
            body = self._stream.__aiter__()
        elif encoding in ("gzip", "x-gzip", "deflate"):
            body = _inflate(self._stream.__aiter__())
        else:
            body = response.aiter_bytes()
        self._body = cast("AsyncGenerator[bytes, None]", body)
        self._peeked = b""
        self._until: float | None = None
        self.timed_out = False
        """The body counts as ended because the time that `end_within` gave is over."""

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body. Raises the tree under `ProviderError`."""
        if self._peeked:
            piece, self._peeked = self._peeked, b""
            return piece
        try:
            if self._until is None:
                return await self._body.__anext__()
            return await self._in_time(self._until)
        except _ANY as error:
            raise translate(error, self._provider, begun=True) from error

    async def _in_time(self, until: float) -> bytes:
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                return await self._body.__anext__()
        except TimeoutError:
            if limit.expired():
                self.timed_out = True
                raise StopAsyncIteration from None
            raise

    def end_within(self, seconds: float | None) -> None:
        """The body counts as ended after so many seconds from now, whatever comes; None: it is waited for again."""
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def peek(self) -> bytes:
        """What the body begins with, white space aside, without taking it; empty if there is no more than that."""
        try:
            while not self._peeked:
                self._peeked = (await self.__anext__()).lstrip()
        except StopAsyncIteration:
            pass
        return self._peeked

    async def read(self, limit: int = MAX_MESSAGE_BYTES) -> bytes:
        """The whole body. Raises `ProviderProtocolError` if that is more than `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise ProviderProtocolError(
                    f"The provider {self._provider} sent a reply of more than {limit} bytes.", provider=self._provider
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def read_some(self, limit: int, seconds: float) -> bytes:
        """The body's first `limit` bytes, or what came of them within `seconds` and before it broke off.

        For a body that is not worth waiting for, such as one that only tells more of a status.
        """
        self.end_within(seconds)
        pieces: list[bytes] = []
        size = 0
        try:
            while size < limit:
                piece = await self.__anext__()
                pieces.append(piece)
                size += len(piece)
        except (StopAsyncIteration, ProviderError):
            pass
        return b"".join(pieces)[:limit]

    async def close(self, *, finished: bool) -> None:
        """Lets go of the connection: dropped at once if the body is not at its end, else kept for the next call.

        `finished`: the protocol's own end was read, so that only the end of the body can follow; the connection is given a moment
        for it, and the caller none.
        """
        # The connection is let go of before anything is awaited, so that no cancellation can come between.
        try:
            if finished:
                # httpx-aiohttp's stream has no public name for what it reads from.
                self._ending.add(cast(Any, self._stream)._aiohttp_response)  # noqa: SLF001
            else:
                await self._stream.aclose()
        finally:
            await self._body.aclose()


async def _inflate(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What gzip or deflate made of a body. Unlike httpx2's decoder, it raises if the body ends before its encoding does."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its head says
    begun = False
    async for data in body:
        if not begun and data:
            begun = True
            if data[0] & 0x0F != 8 and data[0] != 0x1F:  # neither's head: deflate without one
                unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        left = data
        while not unpack.eof or left.startswith(b"\x1f"):
            if unpack.eof:  # another member of a gzip file
                unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                piece = unpack.decompress(left, _INFLATED)
            except zlib.error as error:
                raise httpx2.DecodingError(str(error)) from error
            left = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            if piece:
                yield piece
            elif not left:
                break
    if begun and not unpack.eof:
        raise httpx2.DecodingError("the body ends before its encoding")


class _Ending:
    """Finished replies whose body may still end, so that their connections can be used again; those that do not are dropped."""

    def __init__(self) -> None:
        self._timers: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    def add(self, response: aiohttp.ClientResponse) -> None:
        if not response.closed:
            self._timers[response] = asyncio.get_running_loop().call_later(_END_GRACE, self._drop, response)
            # By then aiohttp itself has given the connection back.
            response.content.on_eof(partial(self._forget, response))

    def close(self) -> None:
        for response in list(self._timers):
            self._drop(response)

    def _forget(self, response: aiohttp.ClientResponse) -> None:
        self._timers.pop(response).cancel()

    def _drop(self, response: aiohttp.ClientResponse) -> None:
        self._forget(response)
        response.close()


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


class Call:
    """One request, as a context manager: sent on entering, its connection let go of on leaving, however that comes about."""

    def __init__(self, provider: str, transport: AiohttpTransport, request: httpx2.Request, ending: _Ending) -> None:
        self._provider = provider
        self._transport = transport
        self._request = request
        self._ending = ending
        self._reply: Reply | None = None

    async def __aenter__(self) -> Reply:
        """Sends, and waits for the head of the answer. Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`."""
        try:
            response = await send_past_a_close(partial(self._transport.handle_async_request, self._request))
        except _ANY as error:
            raise translate(error, self._provider, begun=False) from error
        self._reply = Reply(self._provider, response, self._ending)
        return self._reply

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing of what went wrong inside is hidden."""
        if self._reply is not None:
            await self._reply.close(finished=error is None)


class Transport:
    """The pooled connections to one provider. Belongs to the event loop of its first call."""

    def __init__(self, provider: str, config: ProviderConfig) -> None:
        self._provider = provider
        self._extensions = {
            # "pool" is what httpx-aiohttp calls aiohttp's limit on connecting as a whole, the look-up of the name included.
            "timeout": {"connect": config.connect_timeout, "pool": config.connect_timeout, "read": config.read_timeout}
        }
        self._keep_alive = config.keep_alive
        self._ending = _Ending()
        # It asks for its session at the first call, inside the event loop.
        self._transport = AiohttpTransport(verify=_tls(), client=self._session)

    def post(self, url: httpx2.URL, headers: httpx2.Headers, body: bytes) -> Call:
        """A call that sends `body` when it is entered.

        `headers` are UTF-8; host and content length are added. No redirect is followed, and no cookie kept.
        """
        # As a stream, so that httpx2 does not build the headers anew, which costs as much as all else that it does here.
        request = httpx2.Request("POST", url, headers=headers, stream=httpx2.ByteStream(body), extensions=self._extensions)
        request.headers.encoding = "utf-8"
        if len(body) < _LARGE:
            request.read()  # aiohttp then gets bytes, and sends them with the head
        else:
            request.headers["content-length"] = str(len(body))
        return Call(self._provider, self._transport, request, self._ending)

    def get(self, url: httpx2.URL, headers: httpx2.Headers) -> Call:
        """A call that asks for what is at `url`. No redirect is followed."""
        request = httpx2.Request("GET", url, headers=headers, extensions=self._extensions)
        request.headers.encoding = "utf-8"
        return Call(self._provider, self._transport, request, self._ending)

    async def close(self) -> None:
        """Ends the connections."""
        self._ending.close()
        await self._transport.aclose()

    def _session(self) -> aiohttp.ClientSession:
        connector = Connector(
            ssl=_tls(),
            limit=0,
            ttl_dns_cache=_DNS_TTL,
            keepalive_timeout=self._keep_alive,
        )
        return aiohttp.ClientSession(
            connector=connector,
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
            trust_env=False,
        )


@cache
def _tls() -> ssl.SSLContext:
    """One for all: reading the certificates takes tens of milliseconds. The system's, or those that `SSL_CERT_FILE` names."""
    return httpx2.create_ssl_context()


def meaning(kind: type[BaseException]) -> type[ProviderError] | None:
    """What an exception of the HTTP client means, before the first byte of an answer; None for one that is not known."""
    for known, ours in ((_TIMEOUT, ProviderTimeout), (_BROKEN, ProviderProtocolError), (_LOST, ProviderUnavailable)):
        if issubclass(kind, known):
            return ours
    return None


def translate(error: BaseException, provider: str, *, begun: bool) -> ProviderError:
    """Our error for one of the HTTP client's. `begun`: the answer had begun, so that a lost connection is a cut."""
    cause = error.__cause__
    kind = (meaning(type(cause)) if cause is not None else None) or meaning(type(error)) or ProviderUnavailable
    if kind is ProviderTimeout:
        return ProviderTimeout(f"The provider {provider} took too long.", provider=provider)
    if begun:
        return ProviderProtocolError(f"The provider {provider} broke off its reply.", provider=provider)
    if kind is ProviderProtocolError:
        return ProviderProtocolError(f"The provider {provider} does not answer in HTTP.", provider=provider)
    return ProviderUnavailable(f"The provider {provider} is out of reach.", provider=provider)
