"""One request to a provider and its answer, or an error of the domain. No provider's protocol is known here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

from yarl import URL

from antiphon.config import MAX_MESSAGE_BYTES, ProviderConfig
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.net.client import Client
from antiphon.net.coalescing import Coalescer
from antiphon.net.connection import ends_with_connection
from antiphon.net.http_errors import HTTP_ERRORS, raise_translated
from antiphon.net.inflate import Inflater, inflater
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.response import ClientResponse

_END_GRACE: Final = 0.1
"""Seconds for which a finished reply may still end its body, so that the connection can be reused. No caller waits for it."""


class HttpResponse:
    """The answer to one request. Iterate it once, for the bytes of its body as they arrive.

    A context manager: the connection is released on leaving, however that happens.
    """

    def __init__(self, provider: str, response: ClientResponse, draining: _Draining) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._provider = provider
        self._response = response
        self._draining = draining
        encoding = response.headers.get("content-encoding")
        self._inflater = None if encoding is None else inflater(encoding)
        self._inflated: Iterator[bytes] = iter(())
        self.coalesce = response.coalesce
        """Allows several reads of the rest to be joined into one while this process is busy: the first token has arrived."""
        self._peeked = b""
        self._until: float | None = None
        self.timed_out = False
        """Whether the body counts as ended because the time of `end_within` was over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._response.connection is not None:
            self.close(finished=error is None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes of the body. Raises subclasses of `ProviderError`."""
        if self._peeked:
            piece, self._peeked = self._peeked, b""
            return piece
        response = self._response
        if response.size and self._inflater is None:
            return response.take()
        try:
            if self._until is not None:
                piece = await self._read_until(self._until)
            elif self._inflater is not None:
                piece = await self._read_encoded(self._inflater)
            else:
                while not response.size and (waiter := response.wait()) is not None:  # as `read_any`, without its coroutine
                    await waiter
                piece = response.take()
        except HTTP_ERRORS as error:
            raise_translated(error, self._provider, begun=True)
        if not piece:
            raise StopAsyncIteration
        return piece

    @property
    def is_end_uncertain(self) -> bool:
        """Whether nothing marked the end of the body: the time of `end_within` was over, or the connection alone ended it."""
        return self.timed_out or ends_with_connection(self.headers)

    def end_within(self, seconds: float | None) -> None:
        """Treat the body as ended `seconds` from now even if more would come, or earlier if the read time-out passes.

        None: wait for it without this limit again.
        """
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def peek(self) -> bytes:
        """Return the start of the body without consuming it, leading white space removed; empty if there is nothing else."""
        if self._inflater is None and not self._peeked:
            self._peeked = self._response.take().lstrip()
        try:
            while not self._peeked:
                self._peeked = (await self.__anext__()).lstrip()
        except StopAsyncIteration:
            pass
        return self._peeked

    async def read(self, limit: int = MAX_MESSAGE_BYTES) -> bytes:
        """Return the whole body. Raises `ProviderProtocolError` if it is larger than `limit` bytes."""
        response = self._response
        if response.ended and self._inflater is None:
            body = self._peeked + response.take() if response.size else self._peeked
        else:
            pieces: list[bytes] = []
            size = 0
            async for piece in self:
                pieces.append(piece)
                size += len(piece)
                if size > limit or (response.ended and not response.size and self._inflater is None):
                    break
            body = b"".join(pieces)
        self._peeked = b""
        if len(body) > limit:
            raise ProviderProtocolError(
                f"The provider {self._provider} sent a reply of more than {limit} bytes.", provider=self._provider
            )
        return body

    async def read_some(self, limit: int, seconds: float) -> bytes:
        """Return the first `limit` bytes of the body, or what arrived within `seconds` and before the connection broke.

        For a body that is not worth waiting for, such as one that only explains a status.
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

    def close(self, *, finished: bool) -> None:
        """Release the connection: drop it if the body is not at its end, otherwise keep it for the next call.

        `finished`: the protocol's own end was read, so only the end of the body can follow. The connection gets a moment for it,
        while the caller does not wait.
        """
        if self._response.connection is None:
            return
        if finished:
            self._draining.add(self._response)
        else:
            self._response.close()

    async def _read_encoded(self, inflater: Inflater) -> bytes:
        while not (piece := next(self._inflated, b"")):
            data = await self._response.read_any()
            if not data:
                inflater.end()
                return b""
            self._inflated = inflater.feed(data)
        return piece

    async def _read_until(self, until: float) -> bytes:
        try:
            async with asyncio.timeout_at(until):
                return await (self._response.read_any() if self._inflater is None else self._read_encoded(self._inflater))
        except TimeoutError:
            self.timed_out = True
            return b""


class _Draining:
    """Finished replies whose bodies may still end, so that their connections can be reused.

    Those that do not end within a moment are dropped.
    """

    def __init__(self) -> None:
        self._timers: dict[ClientResponse, asyncio.TimerHandle] = {}

    def add(self, response: ClientResponse) -> None:
        """Take a response whose body has not ended."""
        self._timers[response] = asyncio.get_running_loop().call_later(_END_GRACE, self._drop, response)
        response.on_end(partial(self._forget, response))

    def close(self) -> None:
        for response in list(self._timers):
            self._drop(response)

    def _forget(self, response: ClientResponse) -> None:
        self._timers.pop(response).cancel()

    def _drop(self, response: ClientResponse) -> None:
        self._forget(response)
        response.close()


class Transport:
    """The pooled connections to one provider. Belongs to the event loop of its first call."""

    def __init__(
        self, provider: str, config: ProviderConfig, outbound: Outbound = DIRECT, coalescer: Coalescer | None = None
    ) -> None:
        """`coalescer` joins reads of streams; None: each is passed on at once."""
        self._provider = provider
        self._draining = _Draining()
        self._client = Client(
            connect_timeout=config.timeouts.connect,
            read_timeout=config.timeouts.stall,
            keep_alive=config.keep_alive,
            coalescer=coalescer,
            outbound=outbound,
        )

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Send `body`, and return the answer once its head has arrived. See `Client.post`."""
        return HttpResponse(self._provider, await self._client.post(self._provider, url, headers, body), self._draining)

    async def get(self, url: URL, headers: Mapping[str, str]) -> HttpResponse:
        """Send a GET, and return the answer once its head has arrived. See `Client.get`."""
        return HttpResponse(self._provider, await self._client.get(self._provider, url, headers), self._draining)

    async def status_of(self, url: URL, headers: Mapping[str, str]) -> int:
        """Send a GET to `url`, and return the status; the body is dropped.

        Raises what `get` raises, and `ProviderProtocolError` for a good status whose body does not claim to be JSON.
        """
        response = await self._client.get(self._provider, url, headers)
        response.close()
        if response.status < 300 and "json" not in response.headers.get("content-type", ""):
            raise ProviderProtocolError(f"The provider {self._provider} answered with no JSON.", provider=self._provider)
        return response.status

    @property
    def buffered(self) -> int:
        """See `Client.buffered`."""
        return self._client.buffered

    async def close(self) -> None:
        """Close the connections."""
        self._draining.close()
        await self._client.close()
