"""A second task beside the tested call, which counts its turns on the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OtherCall:
    """A task that is always ready to run, and counts its turns."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        """Take turns until cancelled."""
        while True:
            self.turns += 1
            await asyncio.sleep(0)


@asynccontextmanager
async def other_call() -> AsyncIterator[OtherCall]:
    """Run another call until the block ends."""
    other = OtherCall()
    running = asyncio.create_task(other.run())
    try:
        yield other
    finally:
        running.cancel()
