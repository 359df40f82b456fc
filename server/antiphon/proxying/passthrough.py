"""Passes a POST on to a target of the caller's, and its answer back, byte for byte.

Not a provider: no protocol is known here. Body, query and answer are bytes, and what a target answers is the answer, whatever its
status. It has a client of its own, as the providers' one writes URLs anew, and the addresses here have to be checked
(`antiphon.net.egress`). It follows no redirect, keeps no cookie, and takes no proxy from the environment. Of its caller's limits
those of requests and of calls at once hold here: tokens are not known, and it is the caller's own key that pays.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import httpx2
import structlog
from aiohttp import http_exceptions
from multidict import CIMultiDictProxy
from yarl import URL

from antiphon.config import KEEP_ALIVE, ProxyConfig
from antiphon.domain.call import Call
from antiphon.domain.deadline import Deadline, Deadlines
from antiphon.domain.errors import ProviderProtocolError, ShuttingDown
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.net.connection import Connector, send_past_a_close
from antiphon.net.egress import EgressPolicy, Lookup, PinnedResolver, Target
from antiphon.net.http import translate
from antiphon.routing.attempts import Attempting

_DNS_TTL: Final = 60
"""Seconds for which addresses that were checked are used before the name is asked for, and its addresses are checked, again."""

_FAILURES: Final = (aiohttp.ClientError, http_exceptions.HttpProcessingError, OSError, TimeoutError)


class Answer:
    """What a target answers: iterate it once, for its body's bytes as they come."""

    def __init__(self, target: Target, response: aiohttp.ClientResponse, deadline: Deadline) -> None:
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        self._target = target
        self._response = response
        self._deadline = deadline

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises the tree under `ProviderError`, `DeadlineExceeded`, and `ShuttingDown`."""
        try:
            with self._deadline:
                piece = await self._response.content.readany()
        except _FAILURES as error:
            raise translate(error, self._target.name, begun=True) from error
        if not piece:
            raise StopAsyncIteration
        return piece


class Passthrough:
    """The connections to all targets. Belongs to the event loop of its first call."""

    def __init__(
        self, config: ProxyConfig, *, timeout: float, lookup: Lookup | None = None, limiter: Limiter | None = None
    ) -> None:
        """`timeout` is the longest that a call may take, in seconds. Without a limiter nothing is limited. Raises `ConfigError`."""
        self._limiter = limiter or Limiter(Quotas())
        self.policy = EgressPolicy(config)
        self._deadlines = Deadlines(timeout)
        self._lookup = lookup
        # "connect" bounds connecting as a whole, the look-up of the name included.
        self._timeouts = aiohttp.ClientTimeout(
            connect=config.connect_timeout, sock_connect=config.connect_timeout, sock_read=config.read_timeout
        )
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(
        self, call: Call, target: Target, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[Answer, None]:
        """Sends `body` to `path` below `target`, and hands over the answer; on leaving, what is left of it is dropped at once.

        `path` and `query` are sent as they are, so they must be fit for a request line.

        Raises the tree under `ProviderError`, `PermissionDenied` for an address that may not be reached, `RateLimited`,
        `LimitsUnavailable`, `DeadlineExceeded`, and `ShuttingDown`.
        """
        call.provider = target.name
        structlog.contextvars.bind_contextvars(provider=target.name)
        url = URL(f"{target.url}{path}?{query}" if query else f"{target.url}{path}", encoded=True)
        deadline = self._deadlines.begin(call.time_left)
        response: aiohttp.ClientResponse | None = None

        async def close() -> None:
            if response is not None:
                response.close()  # a connection whose answer was read to its end is kept for the next call all the same

        try:
            with deadline:
                grant = await self._limiter.admit(call)
            async with grant, Attempting(call, close):
                response = await self._send(target, url, headers, body, deadline)
                _check_status(response.status, target.name)
                yield Answer(target, response, deadline)
        finally:
            self._deadlines.end(deadline)

    async def _send(
        self, target: Target, url: URL, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._open()
        try:
            session = self._session
            with deadline:
                return await send_past_a_close(lambda: session.post(url, data=body, headers=headers, allow_redirects=False))
        except _FAILURES as error:
            raise translate(error, target.name, begun=False) from error

    def _open(self) -> aiohttp.ClientSession:
        connector = Connector(
            ssl=httpx2.create_ssl_context(),
            limit=0,
            resolver=PinnedResolver(self.policy, self._lookup),
            ttl_dns_cache=_DNS_TTL,
            keepalive_timeout=KEEP_ALIVE,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            timeout=self._timeouts,
            auto_decompress=False,
            trust_env=False,
        )

    @property
    def in_flight(self) -> int:
        """Calls that are going on."""
        return len(self._deadlines)

    def interrupt(self) -> None:
        """End every call in flight with `ShuttingDown`."""
        self._deadlines.expire(ShuttingDown())

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()


def _check_status(status: int, provider: str) -> None:
    """Refuse an answer that can be passed on to nobody. Raises `ProviderProtocolError`."""
    if not 200 <= status < 600:
        message = f"The provider {provider} answered with no status of HTTP."
    elif 300 <= status < 400:
        message = f"The provider {provider} redirects, which is not followed."
    else:
        return
    raise ProviderProtocolError(message, provider=provider, status=status)
