"""Forwards a POST to a target that the caller names, and returns the answer byte for byte.

This is not a provider, and knows no protocol: body, query and answer are bytes, and any answer is returned, whatever its status. It
has its own HTTP client, as the addresses must be checked (`antiphon.net.egress`). Of the caller's limits only requests and
concurrent calls apply: tokens are not known, and the caller's own key pays.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

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
from antiphon.net.http_errors import HTTP_ERRORS, raise_translated
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.net.response import ClientResponse
from antiphon.routing.attempts import Attempting


class Answer:
    """The answer of a target. Iterate it once, for the bytes of its body as they arrive."""

    def __init__(self, target: Target, response: ClientResponse, deadline: Deadline) -> None:
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        self._response = response
        self._deadline = deadline
        self._target = target

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes. Raises subclasses of `ProviderError`, `DeadlineExceeded`, and `ShuttingDown`."""
        try:
            with self._deadline:
                piece = await self._response.read_any()
        except HTTP_ERRORS as error:
            raise_translated(error, self._target.name, begun=True)
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
        """`timeout` limits each call in seconds. Without a limiter there are no limits. Raises `ConfigError`."""
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
        """Send `body` to `path` below `target`, and yield the answer; on exit the rest of it is dropped at once.

        `path` and `query` are sent unchanged, so they must be valid in a request line.

        Raises subclasses of `ProviderError`, `PermissionDenied` for an address that is not allowed, `RateLimited`,
        `LimitsUnavailable`, `DeadlineExceeded`, and `ShuttingDown`.
        """
        call.provider = target.name
        call.log_fields.update(provider=target.name)
        url = URL(f"{target.url}{path}?{query}" if query else f"{target.url}{path}", encoded=True)
        deadline = self._deadlines.begin(call.time_left)
        response: ClientResponse | None = None

        async def close() -> None:
            if response is not None:
                response.close()  # if the answer was read to its end, the connection is still reused

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
        """Return the number of calls in flight."""
        return len(self._deadlines)

    @property
    def buffered(self) -> int:
        """See `Client.buffered`."""
        return self._client.buffered

    def interrupt(self) -> None:
        """End every call in flight with `ShuttingDown`."""
        self._deadlines.expire(ShuttingDown())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _check_status(status: int, provider: str) -> None:
    """Raise `ProviderProtocolError` for a redirect, and for a status that cannot be passed on."""
    if not 200 <= status < 600:
        message = f"The provider {provider} answered with an invalid HTTP status."
    elif 300 <= status < 400:
        message = f"The provider {provider} redirects, which is not followed."
    else:
        return
    raise ProviderProtocolError(message, provider=provider, status=status)
