"""Tests of counting in this process while Redis is unavailable, and of handing the counts over."""

import asyncio
from typing import Any

from antiphon.limits.base import Claim, Limit
from antiphon.limits.stand_in import StandIn

PLACE = Claim(Limit.STREAMS, "key", "streams:key:1", 1, 1)


async def test_a_caller_that_leaves_during_a_hand_over_gives_its_place_back() -> None:
    """A call that is cancelled while it waits for the hand-over still releases its place."""
    shared: Any = None
    counters = StandIn(shared, lambda: 1000.0)
    ticket = await counters.take([PLACE])
    with counters.handing_over():
        leaving = asyncio.create_task(counters.settle(ticket, 0, 0))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
    while counters._settling:
        await asyncio.sleep(0)
    assert not (await counters.take([PLACE])).refused
