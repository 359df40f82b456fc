"""A call beside the one that is tested, which counts how often it has its turn on the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OtherCall:
    """Wants its turn at all times."""

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
