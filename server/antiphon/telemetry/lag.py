"""The lag of the event loop: how late it runs a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.5
"""Seconds between two measurements."""


async def watch_lag(take: Callable[[float], None], interval: float = INTERVAL) -> None:
    """Call `take` with the lag in seconds, every `interval` seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        take(max(loop.time() - due, 0.0))
