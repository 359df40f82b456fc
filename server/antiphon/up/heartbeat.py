"""A worker's signs of life, for its supervisor: see `antiphon.up.pulse`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two."""


@asynccontextmanager
async def beating(descriptor: int | None) -> AsyncGenerator[None]:
    """Write to the descriptor again and again, for as long as the event loop goes round. None: there is nobody to tell."""
    if descriptor is None:
        yield
        return
    os.set_blocking(descriptor, False)  # it has no name
    task = asyncio.create_task(_beat(descriptor))
    try:
        yield
    finally:
        task.cancel()


async def _beat(descriptor: int) -> None:
    while True:
        with contextlib.suppress(OSError):  # a pipe that is full, or that nobody reads any more
            os.write(descriptor, b".")
        await asyncio.sleep(INTERVAL)
