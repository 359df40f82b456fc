"""Connections are paused while the process is busy, and only then."""

import asyncio
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from statistics import fmean
from typing import Any

import pytest

from antiphon.net.coalescing import ENOUGH, Coalescer

LONGEST = 0.02


class Connection:
    """Records whether it is paused."""

    def __init__(self) -> None:
        self.paused = False

    def hold(self) -> None:
        self.paused = True

    def release(self) -> None:
        self.paused = False


class Load:
    """A process that uses `share` of a core: the CPU time at the loop's own time."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() * self.share


async def after_some_time(share: float) -> Coalescer:
    """One that has measured for a while."""
    coalescer = Coalescer(LONGEST, Load(share))
    loop = asyncio.get_running_loop()
    coalescer.after_read(Connection(), 0, loop)
    coalescer._measured_at -= 1.0  # a window that is over
    coalescer._cpu -= share
    coalescer.after_read(Connection(), ENOUGH, loop)
    return coalescer


@pytest.mark.parametrize(
    ("share", "pause"), [(0.0, 0.0), (0.1, 0.0), (0.275, LONGEST / 2), (0.35, LONGEST), (0.6, LONGEST), (1.5, LONGEST)]
)
async def test_the_busier_the_longer(share: float, pause: float) -> None:
    """Nothing below a fifth of a core, the most from a third of a core on."""
    assert (await after_some_time(share)).pause == pytest.approx(pause, rel=0.01)


@pytest.mark.parametrize(("groups", "a_turn"), [([20], 1), ([100], 4), ([51, 51], 4), ([200, 200], 13)])
async def test_a_few_are_resumed_together_and_many_in_two_groups(groups: list[int], a_turn: int) -> None:
    """The oldest come first, turn by turn, so that new calls come in between. Of two groups one comes after half of the pause."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    while coalescer._next is not None:  # `after_some_time` has paused one
        await asyncio.sleep(0)
    began = loop.time()
    connections = [Connection() for _ in range(sum(groups))]
    for connection in connections:
        coalescer.after_read(connection, 100, loop)
        assert connection.paused
    resumed = 0
    for number, size in enumerate(groups, start=1):
        while connections[resumed].paused:
            await asyncio.sleep(0)
        assert loop.time() - began >= number * LONGEST / len(groups) - 0.002
        group_ends = resumed + size
        while resumed < group_ends:
            resumed = min(resumed + a_turn, group_ends)
            assert [connection.paused for connection in connections] == [False] * resumed + [True] * (len(connections) - resumed)
            await asyncio.sleep(0)
        a_turn = (len(connections) - resumed) // 32 + 1


async def test_a_single_connection_is_paused_for_the_whole_time() -> None:
    """Not for half of it, as one of many may be."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connection = Connection()
    for _ in range(2):
        while coalescer._next is not None:
            await asyncio.sleep(0)
        began = loop.time()
        coalescer.after_read(connection, 100, loop)
        while connection.paused:
            await asyncio.sleep(0)
        assert loop.time() - began >= LONGEST - 0.002


async def test_a_connection_that_is_read_while_others_are_resumed_waits_for_another_pause() -> None:
    """A stream that is always ready does not keep the others waiting."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connections = [Connection() for _ in range(20)]
    for connection in connections:
        coalescer.after_read(connection, 100, loop)
    while connections[0].paused:
        await asyncio.sleep(0)
    began = loop.time()
    coalescer.after_read(connections[0], 100, loop)
    while connections[-1].paused:
        await asyncio.sleep(0)
    assert connections[0].paused
    while connections[0].paused:
        await asyncio.sleep(0)
    assert loop.time() - began > LONGEST / 2


class Simulation(asyncio.AbstractEventLoop):
    """An event loop in which nothing takes time but what is scheduled."""

    def __init__(self) -> None:
        self.now = 1.0
        self._order = count()
        self._scheduled: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any, *arguments: Any, **_: Any) -> Any:
        heappush(self._scheduled, (self.now + delay, next(self._order), partial(callback, *arguments)))
        return callback

    def call_soon(self, callback: Any, *arguments: Any, **_: Any) -> Any:
        return self.call_later(0.0, callback, *arguments)

    def run(self, until: float) -> None:
        while self._scheduled and self._scheduled[0][0] <= until:
            self.now, _, callback = heappop(self._scheduled)
            callback()


@pytest.mark.parametrize("connections", [1, 2, 3, 8, 64, 150, 500])
def test_no_connection_is_paused_for_longer_than_the_pause(connections: int) -> None:
    """However many there are, each is resumed within the pause, and mostly not long before its end."""
    loop, random, waits = Simulation(), Random(connections), []
    coalescer = Coalescer(LONGEST, cpu_time=loop.time, clock=loop.time)  # a process that is always busy

    class Stream(Connection):
        paused_at: float | None = None

        def read(self) -> None:
            coalescer.after_read(self, 100, loop)

        def hold(self) -> None:
            self.paused_at = loop.now

        def release(self) -> None:
            assert self.paused_at is not None
            waits.append(loop.now - self.paused_at)
            self.paused_at = None
            loop.call_later(random.uniform(0.0, 0.03), self.read)

    for _ in range(connections):
        loop.call_later(random.uniform(0.0, 0.03), Stream().read)
    loop.run(3.0)
    assert len(waits) > 40 * connections
    assert max(waits) < LONGEST + 1e-6
    assert fmean(waits) > LONGEST / 2


def test_a_few_that_are_paused_later_are_resumed_with_the_others() -> None:
    """Fewer resumptions make a token cheaper."""
    loop = Simulation()
    coalescer = Coalescer(LONGEST, cpu_time=loop.time, clock=loop.time)
    connections = [Connection() for _ in range(20)]

    def pause(some: list[Connection]) -> None:
        for connection in some:
            coalescer.after_read(connection, 100, loop)

    loop.call_later(0.0, pause, connections[:10])
    loop.call_later(0.7 * LONGEST, pause, connections[10:])
    loop.run(1.0 + 0.99 * LONGEST)
    assert all(connection.paused for connection in connections)
    loop.run(1.0 + LONGEST + 1e-6)
    assert not any(connection.paused for connection in connections)


async def test_a_large_read_is_passed_on_and_reading_goes_on() -> None:
    """A stream at full speed loses no throughput."""
    coalescer = await after_some_time(1.0)
    connection = Connection()
    coalescer.after_read(connection, ENOUGH, asyncio.get_running_loop())
    assert not connection.paused
