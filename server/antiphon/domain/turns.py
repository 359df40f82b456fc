"""How long work gives way to other calls."""

from __future__ import annotations

import asyncio
from typing import Final

_STEPS: Final = 3
"""From a socket, or the clock, to who waits for it: the loop sees it, its callback runs, and the task that it wakes."""


async def give_way() -> None:
    """Let others have their turn, those too for whom something came while the caller was at work."""
    for _ in range(_STEPS):
        await asyncio.sleep(0)
