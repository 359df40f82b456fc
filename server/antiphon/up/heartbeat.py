"""A worker's signs of life: for its supervisor, see `antiphon.up.pulse`; and for its own threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two."""

SILENT: Final = 10.0
"""After so many seconds without a sign, the event loop hangs."""


class Heart:
    """Beats for as long as the event loop goes round."""

    def __init__(self) -> None:
        self._last: float | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it began to beat, and has not for long. Any thread may ask."""
        return self._last is not None and time.monotonic() > self._last + SILENT

    @asynccontextmanager
    async def beating(self, descriptor: int | None) -> AsyncGenerator[None]:
        """Beat, and write to the descriptor of a supervisor each time. None: there is nobody to tell."""
        if descriptor is not None:
            os.set_blocking(descriptor, False)  # it has no name
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
                with contextlib.suppress(OSError):  # a pipe that is full, or that nobody reads any more
                    os.write(descriptor, b".")
            await asyncio.sleep(INTERVAL)
