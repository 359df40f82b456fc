"""A call of a provider: one POST and its answer, or an error of the domain. No provider's protocol is known here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Final

import aiohttp
from yarl import URL

from antiphon.config import MAX_MESSAGE_BYTES, ProviderConfig
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.net.client import Client
from antiphon.net.http_errors import UpstreamErrors
from antiphon.net.inflate import Inflater, inflater
from antiphon.net.outbound import DIRECT, Outbound

_END_GRACE: Final = 0.1
"""Seconds that a finished reply is given to end its body too, so that the connection can be used again. Nobody waits for it."""


class Reply:
    """The answer to one request: iterate it once, for its body's bytes as they come."""

    def __init__(self, provider: str, response: aiohttp.ClientResponse, ending: _Ending) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._provider = provider
        self._response = response
        self._ending = ending
        self._errors = UpstreamErrors(provider, begun=True)
        self._inflater = inflater(response.headers.get("content-encoding", ""))
        self._inflated: Iterator[bytes] = iter(())
        self._peeked = b""
        self._until: float | None = None
        self.timed_out = False
        """The body counts as ended because nothing more came in the time that `end_within` gave."""

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece of the body. Raises the tree under `ProviderError`."""
        if self._peeked:
            piece, self._peeked = self._peeked, b""
            return piece
        with self._errors:
            piece = await (self._read() if self._until is None else self._read_until(self._until))
        if not piece:
            raise StopAsyncIteration
        return piece

    def end_within(self, seconds: float | None) -> None:
        """Let the body count as ended after so many seconds from now, whatever comes, or where a time-out would be raised before.

        None: it is waited for again.
        """
        self._until = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def peek(self) -> bytes:
        """Return what the body begins with, white space aside, without taking it; empty if there is no more than that."""
        try:
            while not self._peeked:
                self._peeked = (await self.__anext__()).lstrip()
        except StopAsyncIteration:
            pass
        return self._peeked

    async def read(self, limit: int = MAX_MESSAGE_BYTES) -> bytes:
        """Return the whole body. Raises `ProviderProtocolError` if that is more than `limit` bytes."""
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
        """Return the body's first `limit` bytes, or what came of them within `seconds` and before it broke off.

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

    def close(self, *, finished: bool) -> None:
        """Let go of the connection: dropped at once if the body is not at its end, else kept for the next call.

        `finished`: the protocol's own end was read, so that only the end of the body can follow; the connection is given a moment
        for it, and the caller none.
        """
        if finished:
            self._ending.add(self._response)
        else:
            self._response.close()

    def _read(self) -> Awaitable[bytes]:
        """Read the next piece, decoded; empty at the end. Raises what the HTTP client raises."""
        return self._response.content.readany() if self._inflater is None else self._read_encoded(self._inflater)

    async def _read_encoded(self, inflater: Inflater) -> bytes:
        while True:
            piece = next(self._inflated, b"")
            if piece:
                return piece
            data = await self._response.content.readany()
            if not data:
                inflater.end()
                return b""
            self._inflated = inflater.feed(data)

    async def _read_until(self, until: float) -> bytes:
        try:
            async with asyncio.timeout_at(until):
                return await self._read()
        except TimeoutError:
            self.timed_out = True
            return b""


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


class Call:
    """One request, as a context manager: sent on entering, its connection let go of on leaving, however that comes about."""

    def __init__(self, provider: str, client: Client, ending: _Ending, url: URL, headers: Mapping[str, str], body: bytes) -> None:
        self._provider = provider
        self._client = client
        self._ending = ending
        self._request = (url, headers, body)
        self._reply: Reply | None = None

    async def __aenter__(self) -> Reply:
        """Send, and wait for the head of the answer. Raises `ProviderUnavailable`, `ProviderTimeout`, `ProviderProtocolError`."""
        response = await self._client.post(self._provider, *self._request)
        self._reply = Reply(self._provider, response, self._ending)
        return self._reply

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing of what went wrong inside is hidden."""
        if self._reply is not None:
            self._reply.close(finished=error is None)


class Transport:
    """The pooled connections to one provider. Belongs to the event loop of its first call."""

    def __init__(self, provider: str, config: ProviderConfig, outbound: Outbound = DIRECT) -> None:
        self._provider = provider
        self._ending = _Ending()
        self._client = Client(
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            keep_alive=config.keep_alive,
            outbound=outbound,
        )

    def post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Call:
        """Return a call that sends `body` when it is entered, as `Client.post` does."""
        return Call(self._provider, self._client, self._ending, url, headers, body)

    async def status_of(self, url: URL, headers: Mapping[str, str]) -> int:
        """Ask for `url` by GET, and return the status; the body is dropped. Raises as a call does when it is entered."""
        response = await self._client.get(self._provider, url, headers)
        response.close()
        return response.status

    @property
    def buffered(self) -> int:
        """See `Client.buffered`."""
        return self._client.buffered

    async def close(self) -> None:
        """End the connections."""
        self._ending.close()
        await self._client.close()
