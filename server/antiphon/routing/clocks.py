"""The times of one try: until its first token, and as a whole. `net.client` applies those of the connection and of silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from antiphon.domain.errors import ProviderTimeout
from antiphon.domain.events import Batch

FIRST_TOKEN: Final = 30.0
"""Seconds until the first token, if there is another candidate and `timeouts.first_token` is not set."""


def too_slow(name: str) -> ProviderTimeout:
    """Return the error for a deployment that used up one of its times."""
    return ProviderTimeout(f"The provider {name} took too long.", provider=name)


async def bounded(stream: AsyncGenerator[Batch, None], seconds: float, name: str) -> AsyncGenerator[Batch, None]:
    """Yield the rest of a reply of the deployment `name`. Raises `ProviderTimeout` once it was waited for so many seconds.

    The time in which nobody asks for the next batch does not count: a caller that reads slowly says nothing about the provider, and
    is bounded by the deadline of the call. Closing it closes the reply.
    """
    left = seconds
    try:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    batch = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise too_slow(name) from None
            left -= time.monotonic() - began
            yield batch
    finally:
        await stream.aclose()
