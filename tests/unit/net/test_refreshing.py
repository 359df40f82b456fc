"""Tests of when a value is read again and which value is used meanwhile. The tests set the clock and never wait."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.net.refreshing import Refreshing, RefreshingMap, Times


class Broken(Exception):
    """A read that failed."""


class Source:
    """A source that returns the number of the read, waits while `gate` is closed and raises `fails` if that is set.

    A test sets its clock `now`.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.reads = 0
        self.fails: Exception | None = None
        self.empty = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, _: object = None) -> int | None:
        self.reads += 1
        number = self.reads
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return None if self.empty else number

    def clock(self) -> float:
        return self.now

    def value(self, times: Times) -> Refreshing[int | None]:
        return Refreshing(self.read, times, (Broken,), self.clock)


TIMES = Times(ttl=10, stale=20, retry=3)


@given(
    times=st.builds(Times, ttl=st.integers(0, 3), stale=st.integers(0, 6), retry=st.integers(0, 4)),
    steps=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=30),
)
def test_a_value_is_fresh_or_read_again_or_older_or_an_error(times: Times, steps: list[tuple[int, bool, bool]]) -> None:
    """For any times and failures `get` returns the fresh value, a new one, an older one that may still be used, or the error."""

    async def run() -> None:
        source = Source()
        value = source.value(times)
        known: int | None = None
        read_at = failed_at = -1000.0
        for seconds, fails, empty in steps:
            source.now += seconds
            source.fails = Broken() if fails else None
            source.empty = empty
            before = source.reads
            try:
                found: object = await value.get()
            except Broken:
                found = Broken
            age = source.now - read_at
            is_usable = known is not None and age < times.ttl + times.stale
            if age < times.ttl or (is_usable and source.now - failed_at < times.retry):
                assert (found, source.reads) == (known, before), "it is fresh, or its source is left alone"
                continue
            assert source.reads == before + 1
            if not fails:
                known, read_at, failed_at = (None if empty else source.reads), source.now, -1000.0
                assert found == known
            else:
                failed_at = source.now
                assert found == (known if is_usable else Broken)
            assert value.is_failing is fails

    asyncio.run(run())


async def test_concurrent_callers_share_one_read() -> None:
    """Concurrent callers share one read, and a caller that is cancelled does not end it for the others."""
    source = Source()
    source.gate.clear()
    value = source.value(TIMES)
    callers = [asyncio.create_task(value.get()) for _ in range(20)]
    while not source.reads:
        await asyncio.sleep(0)
    callers[0].cancel()
    source.gate.set()
    assert (await asyncio.gather(*callers, return_exceptions=True))[1:] == [1] * 19
    assert source.reads == 1


async def test_all_waiting_callers_get_the_error() -> None:
    """All waiting callers get the error of the read. Without an older value the next caller reads again at once."""
    source = Source()
    source.fails = Broken("no")
    value = source.value(TIMES)
    errors = await asyncio.gather(*(value.get() for _ in range(5)), return_exceptions=True)
    assert errors == [source.fails] * 5
    source.fails = None
    assert await value.get() == 2


@pytest.mark.parametrize("ttl", [0, 10])
async def test_a_value_that_is_read_is_given_to_those_who_waited(ttl: float) -> None:
    """Callers that waited get the value that was read, even if it is not fresh any more and the next read has failed."""
    source = Source()
    source.gate.clear()
    value = source.value(Times(ttl=ttl, stale=0, retry=0))
    waiting = asyncio.create_task(value.get())
    while not source.reads:
        await asyncio.sleep(0)
    source.gate.set()
    while value.is_reading:
        await asyncio.sleep(0)
    source.fails = Broken()
    source.now += ttl
    with pytest.raises(Broken):
        await value.get()
    assert await waiting == 1


async def test_after_patience_the_older_value_is_used() -> None:
    """After `patience` a caller gets the older value, and later callers at once. The read goes on, and its value is used then."""
    source = Source()
    value = source.value(Times(ttl=10, stale=20, retry=3, patience=0.001))
    source.gate.clear()
    first = asyncio.create_task(value.get())
    while not source.reads:
        await asyncio.sleep(0)
    source.gate.set()
    assert await first == 1, "without anything older it waits for as long as it takes"
    source.now += 10
    source.gate.clear()
    assert await value.get() == 1
    assert not value.is_due
    assert value.is_reading
    assert await value.get() == 1
    source.gate.set()
    while value.is_reading:
        await asyncio.sleep(0)
    assert await value.get() == 2
    assert source.reads == 2


async def test_an_unexpected_exception_reaches_the_caller() -> None:
    """An unexpected exception reaches the caller and is not hidden by an older value. A timeout of the read is one of those."""
    source = Source()
    value = source.value(Times(ttl=0, stale=20, retry=3, patience=5))
    assert await value.get() == 1
    for defect in (KeyError(), TimeoutError()):
        source.fails = defect
        with pytest.raises(type(defect)):
            await value.get()
    assert not value.is_failing


async def test_a_reading_can_be_asked_for_before_it_is_due() -> None:
    """`renew` starts one read before the value is due, and nobody has to wait for it."""
    source = Source()
    value = source.value(TIMES)
    assert await value.get() == 1
    source.gate.clear()
    value.renew()
    again = value.renew()
    assert await value.get() == 1, "which is fresh"
    source.gate.set()
    assert await again == (2, None)
    assert (await value.get(), value.usable) == (2, 2)


async def test_a_value_with_ends_of_its_own() -> None:
    """A value may tell itself until when it is fresh and usable; times to live do not count then."""
    source = Source()
    source.now = 0.0
    ends = {1: (10.0, 30.0)} | dict.fromkeys(range(2, 9), (1000.0, 1000.0))
    value: Refreshing[int | None] = Refreshing(source.read, TIMES, (Broken,), source.clock, ends=lambda read: ends[read or 0])
    assert await value.get() == 1
    source.now = 9.0
    assert await value.get() == 1
    source.now, source.fails = 29.0, Broken()
    assert await value.get() == 1
    source.now = 30.0
    assert value.usable is None
    source.fails = None
    assert await value.get() == source.reads
    assert not value.is_due


async def test_a_value_can_be_forgotten() -> None:
    """After `expire` the next caller waits for a read, and gets its error if it fails."""
    source = Source()
    value = source.value(TIMES)
    assert await value.get() == 1
    value.expire()
    assert (value.usable, value.is_due) == (None, True)
    source.fails = Broken()
    with pytest.raises(Broken):
        await value.get()
    source.fails = None
    assert await value.get() == source.reads


async def test_closing_ends_a_reading() -> None:
    """Closing cancels a read in progress, and closing twice is allowed."""
    source = Source()
    source.gate.clear()
    value = source.value(TIMES)
    waiting = asyncio.create_task(value.get())
    while not source.reads:
        await asyncio.sleep(0)
    await value.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await value.close()


async def test_a_map_has_a_value_for_each_key() -> None:
    """Each key of a map has its own value and times. A full map drops the value that was read longest ago."""
    source = Source()
    values: RefreshingMap[str, int | None] = RefreshingMap(source.read, TIMES, (Broken,), size=2, clock=source.clock)
    assert [await values.get(key) for key in ("a", "b", "a")] == [1, 2, 1]
    source.now += 10
    assert await values.get("a") == 3
    assert await values.get("c") == 4
    assert await values.get("a") == 3
    assert await values.get("b") == 5, "it was read longest ago"


async def test_a_map_keeps_what_is_known_while_nothing_can_be_read() -> None:
    """Keys whose reads fail or hang do not push known values out of a map."""
    source = Source()
    values: RefreshingMap[int, int | None] = RefreshingMap(source.read, TIMES, (Broken,), size=2, clock=source.clock)
    assert [await values.get(key) for key in (-1, -2)] == [1, 2]
    source.now += 10
    source.fails = Broken()
    for key in range(5):
        with pytest.raises(Broken):
            await values.get(key)
    assert [await values.get(key) for key in (-1, -2)] == [1, 2]
    source.gate.clear()
    hanging = [asyncio.create_task(values.get(key)) for key in (5, 5, 6, 7)]
    before = source.reads
    while source.reads < before + 3:
        await asyncio.sleep(0)
    assert [await values.get(key) for key in (-1, -2)] == [1, 2]
    source.gate.set()
    assert all(isinstance(error, Broken) for error in await asyncio.gather(*hanging, return_exceptions=True))
    assert source.reads == before + 3
    assert not values._loading
