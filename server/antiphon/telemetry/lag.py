"""The lag of the event loop: how much later than due it runs what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.5
"""Seconds between two looks."""


async def watch_lag(take: Callable[[float], None], interval: float = INTERVAL) -> None:
    """Hand the lag to `take`, in seconds, every `interval` seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        take(max(loop.time() - due, 0.0))
