"""One access token of a process, fetched in time and by one caller at a time.

A token is fetched for the first call. From `refresh` seconds before its end the next call starts another fetch, and is sent with
the old token meanwhile, as are all others until it ends. Only if there is no valid token do calls wait, all for the same fetch; a
caller that is cancelled does not end it. After a failed fetch calls fail at once for a moment, instead of asking again each time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import Struct

from antiphon.config import TokenConfig
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderTimeout, ProviderUnavailable
from antiphon.net.refreshing import Clock, Refreshing, Times
from antiphon.providers.credentials.token import TokenFailed, TokenSource

if TYPE_CHECKING:
    from antiphon.net.fetch import Fetcher

_TRIES: Final = 3
"""The most requests of one fetch. Only failures that may pass are repeated."""

_FIRST_PAUSE: Final = 0.2
"""Seconds before the second try at most; twice as many before the third."""

_MARGIN: Final = 10.0
"""Seconds before its end at which a token is not sent any more: clocks differ, and a call takes a while to arrive."""

_PAUSE: Final = 1.0
"""Seconds after a failed fetch for which no other is started, unless the endpoint names a longer time."""

_PAUSE_REFUSED: Final = 10.0
"""The same if the endpoint refused the credentials."""

_LONGEST_PAUSE: Final = 60.0

_BETWEEN_REFUSED: Final = 60.0
"""The least seconds between two fetches because the provider refused a token: mostly it is not the token's fault."""

_log = structlog.get_logger(__name__)


class _Held(Struct, frozen=True):
    """A token with its times on the clock of the cache."""

    value: str
    fresh_until: float
    usable_until: float

    def __repr__(self) -> str:
        return f"_Held({len(self.value)} characters)"


class _TimedOut(TokenFailed):
    pass


class TokenCache:
    """The token of one provider. Belongs to the event loop of its first call."""

    def __init__(
        self, provider: str, config: TokenConfig, source: TokenSource, fetcher: Fetcher, clock: Clock = time.monotonic
    ) -> None:
        """`fetcher` is that of the source, and closed with the cache."""
        self.headers: Mapping[str, str] = source.headers
        """Sent with each call beside the token."""
        self._provider = provider
        self._config = config
        self._source = source
        self._fetcher = fetcher
        self._clock = clock
        times = Times(ttl=0, stale=0, retry=_PAUSE)  # each token has its own
        self._held = Refreshing(self._fetch, times, (TokenFailed,), clock, ends=lambda held: (held.fresh_until, held.usable_until))
        self._failure: TokenFailed | None = None
        self._paused_until = clock()
        self._refused_until = clock()

    async def get(self) -> str:
        """Return a valid token. Raises `ProviderCredentials`, `ProviderUnavailable` or `ProviderTimeout` if there is none."""
        held = self._held.usable
        if held is not None:
            if self._held.is_due and not self._is_paused:
                self._held.renew()  # while this call and others use the old one
            return held.value
        if self._failure is not None and self._is_paused and not self._held.is_reading:
            raise self._error(self._failure) from self._failure
        held, failure = await self._held.renew()
        if failure is not None or held is None:
            assert isinstance(failure, TokenFailed), "a fetch returns a token or fails"
            raise self._error(failure) from failure
        return held.value

    async def replace(self, refused: str) -> str | None:
        """Return another token than the one that the provider refused; None if another would be no better.

        Raises as `get` does.
        """
        held = self._held.usable
        if held is not None and held.value == refused:
            now = self._clock()
            if now < self._refused_until:
                return None
            self._refused_until = now + _BETWEEN_REFUSED
            _log.info("provider_token_refused", provider=self._provider)
            self._held.expire()
        found = await self.get()
        return None if found == refused else found

    async def close(self) -> None:
        """Cancel a fetch in progress, and close the connections."""
        await self._held.close()
        await self._fetcher.close()

    @property
    def _is_paused(self) -> bool:
        return self._clock() < self._paused_until

    async def _fetch(self) -> _Held:
        """Return a new token. Raises `TokenFailed`, and writes the log."""
        begun = self._clock()
        config = self._config
        try:
            async with asyncio.timeout(config.timeout):
                for number in range(_TRIES):
                    begun = self._clock()
                    try:
                        token = await self._source.fetch()
                        break
                    except TokenFailed as error:
                        # A wait that the endpoint asks for is longer than callers can be kept.
                        if error.refused or error.retry_after is not None or number == _TRIES - 1:
                            raise
                    await asyncio.sleep(_FIRST_PAUSE * 2**number * random.uniform(0.5, 1))  # noqa: S311 - spreads the tries
        except TimeoutError:
            timed_out = _TimedOut(f"no token within {config.timeout:g} s")
            self._failed(timed_out)
            raise timed_out from None
        except TokenFailed as error:
            self._failed(error)
            raise
        self._failure = None
        usable = max(token.lifetime - _MARGIN, token.lifetime / 2)
        fresh = min(max(token.lifetime - config.refresh, token.lifetime / 2), usable)
        _log.info("provider_token_fetched", provider=self._provider, kind=config.kind.value, lifetime=round(token.lifetime))
        return _Held(token.value, begun + fresh, begun + usable)

    def _failed(self, error: TokenFailed) -> None:
        pause = max(_PAUSE_REFUSED if error.refused else _PAUSE, min(error.retry_after or 0.0, _LONGEST_PAUSE))
        self._failure = error
        self._paused_until = self._clock() + pause
        used = self._held.usable is not None
        _log.warning(
            "provider_token_not_fetched",
            provider=self._provider,
            kind=self._config.kind.value,
            error=str(error),
            refused=error.refused,
            older_one_used=used,
        )

    def _error(self, failure: TokenFailed) -> ProviderError:
        """Return the caller's error. It says nothing of the endpoint: the log does, and its cause to an operator."""
        name = self._provider
        wait = max(1.0, self._paused_until - self._clock())
        match failure:
            case TokenFailed(refused=True):
                return ProviderCredentials(f"This gateway's credentials for the provider {name} were refused.", provider=name)
            case _TimedOut():
                return ProviderTimeout(f"The token for the provider {name} took too long.", provider=name, retry_after=wait)
            case _:
                return ProviderUnavailable(f"There is no token for the provider {name} now.", provider=name, retry_after=wait)
