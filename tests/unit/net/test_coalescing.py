"""Connections are paused while the process is busy, and only then."""

import asyncio

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
    loop = asyncio.get_running_loop()
    began = loop.time()
    coalescer = await after_some_time(1.0)
    connections = [Connection() for _ in range(17)]  # `after_some_time` has paused one, too
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
    """The first two of three groups are empty if there is one connection, so it is in the last."""
    coalescer = await after_some_time(1.0)
    loop = asyncio.get_running_loop()
    connection = Connection()
    while coalescer._held:
        await asyncio.sleep(0)
    for _ in range(2):
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
    coalescer.after_read(connections[0], 100, loop)
    while connections[-1].paused:
        await asyncio.sleep(0)
    assert connections[0].paused
    began = loop.time()
    while connections[0].paused:
        await asyncio.sleep(0)
    assert loop.time() - began > LONGEST / 2


async def test_a_large_read_is_passed_on_and_reading_goes_on() -> None:
    """A stream at full speed loses no throughput."""
    coalescer = await after_some_time(1.0)
    connection = Connection()
    coalescer.after_read(connection, ENOUGH, asyncio.get_running_loop())
    assert not connection.paused
