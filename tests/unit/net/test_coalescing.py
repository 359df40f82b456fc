"""Connections are paused while the process is busy, and only then."""

import asyncio
from collections.abc import Callable
from functools import partial
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


async def test_paused_connections_are_resumed_in_three_groups_and_two_in_each_turn_of_the_loop() -> None:
    """The oldest come first: a third of all after a third of the pause, turn by turn, so that new calls come in between."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connections = [Connection() for _ in range(17)]  # `after_some_time` has paused one, too
    began = loop.time()
    for connection in connections:
        coalescer.after_read(connection, 100, loop)
        assert connection.paused
    left = 18
    for group in (1, 2, 3):
        while sum(connection.paused for connection in connections) == min(left, 17):
            await asyncio.sleep(0)
        assert loop.time() - began >= group * LONGEST / 3 - 0.002
        for _ in range(3):
            left -= 2
            assert [connection.paused for connection in connections] == [False] * (17 - left) + [True] * left
            await asyncio.sleep(0)


async def test_a_single_connection_is_paused_for_the_whole_time() -> None:
    """A third of one connection is none, so it is in the last group."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connection = Connection()
    while coalescer._held:
        await asyncio.sleep(0)
    for _ in range(2):
        coalescer.after_read(connection, 100, loop)
        began = loop.time()
        while connection.paused:
            await asyncio.sleep(0)
        assert loop.time() - began >= LONGEST - 0.002


class Timers:
    """An event loop that runs one callback at a time, whose clock shows the seconds that they asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.next: Callable[[], object] | None = None

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> object:
        assert self.next is None
        self.next = partial(self._run, delay, callback, *arguments)
        return self

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> object:
        return self.call_later(0.0, callback, *arguments)

    def _run(self, delay: float, callback: Callable[..., object], *arguments: object) -> None:
        self.now += delay
        callback(*arguments)

    def run_next(self) -> bool:
        """Run the next callback. Return False if there is none."""
        callback, self.next = self.next, None
        if callback is not None:
            callback()
        return callback is not None


@pytest.mark.parametrize("counts", [(1, 1), (1, 0, 1), (2, 5, 0, 1), (9, 1), (100, 1, 30, 0, 0, 7), (1, 2, 300)])
async def test_no_connection_is_paused_for_longer_than_the_pause(counts: tuple[int, ...]) -> None:
    """Whenever it is paused: those that are paused between two groups do not wait until three more have passed."""
    coalescer = await after_some_time(1.0)
    coalescer._next = None
    timers: Any = Timers()
    paused_at: dict[Connection, float] = {}
    waited: list[float] = []

    def see() -> None:
        resumed = [connection for connection in paused_at if not connection.paused]
        waited.extend([timers.now - paused_at.pop(connection) for connection in resumed])

    for count in counts:
        for _ in range(count):
            connection = Connection()
            coalescer.after_read(connection, 100, timers)
            paused_at[connection] = timers.now
        group = timers.now
        while timers.now == group and timers.run_next():
            see()
    while timers.run_next():
        see()
    assert not paused_at
    assert len(waited) == sum(counts)
    assert max(waited) <= LONGEST * 1.001


async def test_a_connection_that_is_read_while_others_are_resumed_waits_for_another_pause() -> None:
    """A stream that is always ready does not keep the others waiting."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connections = [Connection() for _ in range(20)]
    for connection in connections:
        coalescer.after_read(connection, 100, loop)
    while connections[0].paused:
        await asyncio.sleep(0)
    coalescer.after_read(connections[0], 100, loop)
    while connections[-1].paused:
        await asyncio.sleep(0)
    assert connections[0].paused
    began = loop.time()
    while connections[0].paused:
        await asyncio.sleep(0)
    assert loop.time() - began > LONGEST / 4  # it is in the next group


async def test_a_large_read_is_passed_on_and_reading_goes_on() -> None:
    """A stream at full speed loses no throughput."""
    coalescer = await after_some_time(1.0)
    connection = Connection()
    coalescer.after_read(connection, ENOUGH, asyncio.get_running_loop())
    assert not connection.paused
