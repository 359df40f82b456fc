"""Passes a POST on to a target of the caller's, and its answer back, byte for byte.

Not a provider: no protocol is known here. Body, query and answer are bytes, and what a target answers is the answer, whatever its
status. It has a client of its own, as the addresses here have to be checked (`antiphon.net.egress`). Of its caller's limits those
of requests and of calls at once hold here: tokens are not known, and it is the caller's own key that pays.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import structlog
from multidict import CIMultiDictProxy
from yarl import URL

from antiphon.config import KEEP_ALIVE, ProxyConfig
from antiphon.domain.call import Call
from antiphon.domain.deadline import Deadline, Deadlines
from antiphon.domain.errors import ProviderProtocolError, ShuttingDown
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.net.client import Client
from antiphon.net.egress import EgressPolicy, Lookup, PinnedResolver, Target
from antiphon.net.http_errors import UpstreamErrors
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.routing.attempts import Attempting


class Answer:
    """What a target answers: iterate it once, for its body's bytes as they come."""

    def __init__(self, target: Target, response: aiohttp.ClientResponse, deadline: Deadline) -> None:
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        self._response = response
        self._deadline = deadline
        self._errors = UpstreamErrors(target.name, begun=True)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises the tree under `ProviderError`, `DeadlineExceeded`, and `ShuttingDown`."""
        with self._errors, self._deadline:
            piece = await self._response.content.readany()
        if not piece:
            raise StopAsyncIteration
        return piece


class Passthrough:
    """The connections to all targets. Belongs to the event loop of its first call."""

    def __init__(
        self,
        config: ProxyConfig,
        *,
        timeout: float,
        lookup: Lookup | None = None,
        limiter: Limiter | None = None,
        outbound: Outbound = DIRECT,
    ) -> None:
        """`timeout` is the longest that a call may take, in seconds. Without a limiter nothing is limited. Raises `ConfigError`."""
        self._limiter = limiter or Limiter(Quotas())
        self.policy = EgressPolicy(config)
        self._deadlines = Deadlines(timeout)
        self._client = Client(
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            keep_alive=KEEP_ALIVE,
            resolver=PinnedResolver(self.policy, lookup),
            outbound=outbound,
        )

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
                with deadline:
                    response = await self._client.post(target.name, url, headers, body)
                _check_status(response.status, target.name)
                yield Answer(target, response, deadline)
        finally:
            self._deadlines.end(deadline)

    @property
    def in_flight(self) -> int:
        """Calls that are going on."""
        return len(self._deadlines)

    @property
    def buffered(self) -> int:
        """See `Client.buffered`."""
        return self._client.buffered

    def interrupt(self) -> None:
        """End every call in flight with `ShuttingDown`."""
        self._deadlines.expire(ShuttingDown())

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.close()


def _check_status(status: int, provider: str) -> None:
    """Refuse an answer that can be passed on to nobody. Raises `ProviderProtocolError`."""
    if not 200 <= status < 600:
        message = f"The provider {provider} answered with no status of HTTP."
    elif 300 <= status < 400:
        message = f"The provider {provider} redirects, which is not followed."
    else:
        return
    raise ProviderProtocolError(message, provider=provider, status=status)
