"""Tests of measuring the lag of the event loop."""

import asyncio
import time

from antiphon.telemetry.lag import watch_lag


async def test_a_loop_that_is_held_up_is_late() -> None:
    """The lag is the time for which the loop was blocked."""
    lags: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch_lag(lags.put_nowait, interval=0.01))
    await lags.get()
    time.sleep(0.2)  # blocks the event loop
    assert max([await lags.get() for _ in range(2)]) > 0.1
    watching.cancel()
