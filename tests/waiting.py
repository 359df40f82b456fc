"""Waiting for conditions in other tasks and processes, with a time-out, instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds after which a test gives up."""

_PAUSE = 0.01
"""Seconds between two checks."""


async def until(condition: Callable[[], Awaitable[object] | object], seconds: float = PATIENCE) -> None:
    """Wait until the condition, or the awaitable that it returns, is true. Raises `TimeoutError` after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_PAUSE)


def block_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait as `until` does, where there is no event loop."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(_PAUSE)
