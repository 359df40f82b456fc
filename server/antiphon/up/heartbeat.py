"""A worker's heartbeat: for its supervisor, see `antiphon.up.liveness`, and for its own threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two heartbeats."""

HANG_AFTER: Final = 10.0
"""Seconds without a heartbeat after which the event loop counts as hanging."""


class Heart:
    """Beats for as long as the event loop runs, and knows whether it hangs."""

    def __init__(self) -> None:
        self._last: float | None = None

    @property
    def is_silent(self) -> bool:
        """True if it has beaten before, but not within `HANG_AFTER` seconds. Any thread may ask."""
        return self._last is not None and time.monotonic() > self._last + HANG_AFTER

    @asynccontextmanager
    async def beating(self, descriptor: int | None) -> AsyncGenerator[None]:
        """Beat while in the context. Each beat also writes a byte to `descriptor`, the supervisor's pipe, unless it is None."""
        if descriptor is not None:
            os.set_blocking(descriptor, False)  # a positional-only argument
        task = asyncio.create_task(self._beat(descriptor))
        try:
            yield
        finally:
            task.cancel()
            self._last = None

    async def _beat(self, descriptor: int | None) -> None:
        while True:
            self._last = time.monotonic()
            if descriptor is not None:
                with contextlib.suppress(OSError):  # the pipe is full, or has no reader
                    os.write(descriptor, b".")
            await asyncio.sleep(INTERVAL)
