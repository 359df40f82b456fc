"""Gives other calls their turn during long work in the event loop."""

from __future__ import annotations

import asyncio
from typing import Final

_STEPS: Final = 3
"""Loop iterations between an event and the task that waits for it: the loop notices the event, runs its callback, and resumes
the task."""


async def yield_to_other_calls() -> None:
    """Let other tasks run, including those whose data or timer became ready while the caller was working."""
    for _ in range(_STEPS):
        await asyncio.sleep(0)
