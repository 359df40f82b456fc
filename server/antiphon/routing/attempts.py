"""Attempts: one request to a provider, which is closed at once however the caller's call ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from antiphon.domain.call import CANCELLATIONS, Attempt, Call


class Attempting:
    """One attempt at the provider of `call`, as a context manager."""

    def __init__(self, call: Call, close: Callable[[], Awaitable[None]], *, streamed: bool = False) -> None:
        """`close` ends the provider's call, whether or not it has begun; `streamed`: the answer will be streamed."""
        self._call = call
        self._close = close
        self._attempt = Attempt(call.provider, call.model, time.monotonic(), streamed)

    async def __aenter__(self) -> None:
        self._call.observer.attempt_started(self._call, self._attempt)

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        call, attempt = self._call, self._attempt
        left = time.monotonic() if isinstance(error, CANCELLATIONS) else None
        try:
            await self._close()
        finally:
            if left is not None:
                call.observer.cancelled_upstream(call, attempt, time.monotonic() - left)
            call.observer.attempt_ended(call, attempt, error)
