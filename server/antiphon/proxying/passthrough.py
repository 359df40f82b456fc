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

from antiphon.auth.caller import ANONYMOUS, CALLER
from antiphon.config import KEEP_ALIVE, ProxyConfig
from antiphon.domain.deadline import Deadline
from antiphon.domain.errors import AntiphonError, ProviderProtocolError, ShuttingDown
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.net.connection import Connector, send_past_a_close
from antiphon.net.egress import EgressPolicy, Lookup, PinnedResolver, Target
from antiphon.net.http import translate

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
            piece = await self._deadline.wait(self._response.content.readany())
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
        self._timeout = timeout
        self._lookup = lookup
        # "connect" bounds connecting as a whole, the look-up of the name included.
        self._timeouts = aiohttp.ClientTimeout(
            connect=config.connect_timeout, sock_connect=config.connect_timeout, sock_read=config.read_timeout
        )
        self._session: aiohttp.ClientSession | None = None
        self._calls: set[Deadline] = set()

    @asynccontextmanager
    async def post(
        self, target: Target, path: str, query: str, headers: Mapping[str, str], body: bytes, *, timeout: float | None
    ) -> AsyncGenerator[Answer, None]:
        """Sends `body` to `path` below `target`, and hands over the answer; on leaving, what is left of it is dropped at once.

        `path` and `query` are sent as they are, so they must be fit for a request line. `timeout` is what the caller gives it, in
        seconds.

        Raises the tree under `ProviderError`, `PermissionDenied` for an address that may not be reached, `RateLimited`,
        `LimitsUnavailable`, `DeadlineExceeded`, and `ShuttingDown`.
        """
        structlog.contextvars.bind_contextvars(provider=target.name)
        url = URL(f"{target.url}{path}?{query}" if query else f"{target.url}{path}", encoded=True)
        deadline = Deadline(self._timeout if timeout is None else min(timeout, self._timeout))
        self._calls.add(deadline)
        try:
            grant = await deadline.wait(self._limiter.admit(CALLER.get(ANONYMOUS)))
            try:
                response = await self._send(target, url, headers, body, deadline)
                try:
                    if not 200 <= response.status < 600:  # which nobody could be told as a status
                        raise ProviderProtocolError(
                            f"The provider {target.name} answered with no status of HTTP.",
                            provider=target.name,
                            status=response.status,
                        )
                    if 300 <= response.status < 400:
                        raise ProviderProtocolError(
                            f"The provider {target.name} redirects, which is not followed.",
                            provider=target.name,
                            status=response.status,
                        )
                    yield Answer(target, response, deadline)
                finally:
                    response.close()  # a connection whose answer was read to its end is kept for the next call all the same
            finally:
                await grant.settle()
        finally:
            deadline.close()
            self._calls.discard(deadline)

    async def _send(
        self, target: Target, url: URL, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._open()
        try:
            session = self._session
            return await send_past_a_close(
                lambda: deadline.wait(session.post(url, data=body, headers=headers, allow_redirects=False))
            )
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
        return len(self._calls)

    def interrupt(self, error: AntiphonError | None = None) -> None:
        """Ends every call in flight with an error, `ShuttingDown` unless told otherwise."""
        for deadline in tuple(self._calls):
            deadline.expire(error or ShuttingDown())

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
