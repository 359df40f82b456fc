"""Waiting for what other tasks, and other processes, come to: with a bound, and in place of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds after which a test gives up."""

_PAUSE = 0.01
"""Seconds between two looks."""


async def until(condition: Callable[[], Awaitable[object] | object], seconds: float = PATIENCE) -> None:
    """Return once the condition, or what it returns to be awaited, holds. Raises `TimeoutError` if it does not in time."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_PAUSE)


def block_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Do the same where there is no event loop."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(_PAUSE)
