"""Tests of shaping: what is sent within a minute, and who waits for how long."""

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.limits.base import WINDOW, Limit
from antiphon.limits.counting import Counting
from antiphon.limits.estimate import tokens_to_take
from antiphon.routing.shaper import Allowance, Demand, NoRoom, Shaper
from tests.waiting import until

SMALL = Demand(1, 0)


def shaper(
    requests: int | None = None,
    tokens: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    size: int = 10,
    workers: int = 1,
) -> Shaper:
    return Shaper("p/m", requests, tokens, Counting(workers=workers, clock=clock), size)


async def granted(made: Shaper, demand: Demand = SMALL) -> Allowance:
    found = await made.take(demand)
    assert isinstance(found, Allowance)
    return found


@given(
    requests=st.integers(1, 6),
    tokens=st.integers(1, 100),
    workers=st.integers(1, 4),
    calls=st.lists(st.tuples(st.floats(0, 40), st.integers(0, 60), st.integers(0, 60), st.floats(0, 1)), max_size=40),
)
def test_no_60_seconds_have_more_than_is_granted(
    requests: int, tokens: int, workers: int, calls: list[tuple[float, int, int, float]]
) -> None:
    """Whatever comes, in any 60 seconds a process sends no more than its share; what did not fit does after its wait."""
    now = 1000.0
    made = shaper(requests, tokens, lambda: now, workers=workers)
    sent: list[tuple[float, int]] = []

    async def run() -> None:
        nonlocal now
        for pause, prompt, completion, part in calls:
            now += pause
            found = await made.take(Demand(prompt, completion))
            if isinstance(found, NoRoom):
                assert 0 < found.seconds <= WINDOW + 1e-6
                now += found.seconds + 1
                for _ in range(2):  # the other limit may have to be waited for as well
                    if isinstance(found, NoRoom):
                        found = await made.take(Demand(prompt, completion))
                        now += found.seconds + 1 if isinstance(found, NoRoom) else 0
                assert isinstance(found, Allowance)
            used = int(part * min(prompt + completion, max(1, tokens // workers) // 4))
            await made.settle(found, used)
            sent.append((now, used))

    asyncio.run(run())
    for at, _ in sent:
        window = [used for when, used in sent if at <= when < at + WINDOW - 1e-6]
        assert len(window) <= max(1, requests // workers)
        assert sum(window) <= max(1, tokens // workers)


@given(prompt=st.integers(0, 10**7), completion=st.integers(0, 1 << 40), share=st.integers(1, 10**6))
def test_every_call_fits_an_unused_minute(prompt: int, completion: int, share: int) -> None:
    """What is taken for a call never exceeds the share, and is the whole estimate of one that is small enough."""
    taken = tokens_to_take(prompt, completion, share)
    assert taken <= share
    if prompt <= share // 2 and completion <= share // 4:
        assert taken == prompt + completion


async def test_what_was_not_used_is_free_again() -> None:
    """An estimate is replaced by the tokens that were used, also by more than it."""
    made = shaper(tokens=100)
    first = await granted(made, Demand(80, 0))
    refused = await made.take(Demand(30, 0))
    assert isinstance(refused, NoRoom)
    assert (refused.limit, refused.maximum) == (Limit.TOKENS, 100)
    await made.settle(first, 5)
    await made.settle(await granted(made, Demand(30, 0)), 95)
    assert isinstance(await made.take(SMALL), NoRoom)


async def test_those_that_wait_take_turns_and_are_not_overtaken() -> None:
    """Owners take turns however many calls each has; a call that comes later does not take the room that others wait for."""
    made = shaper(tokens=100)
    held = await granted(made, Demand(100, 0))
    order: list[str] = []

    async def call(owner: str, name: str) -> None:
        allowance = await made.wait(owner, Demand(100, 0), 5)
        assert allowance is not None
        order.append(name)
        await made.settle(allowance, 0)

    tasks = [asyncio.create_task(call(owner, f"{owner}{n}")) for owner, n in (("ann", 1), ("ann", 2), ("ann", 3), ("bob", 1))]
    await until(lambda: made._no_room is not None)
    assert isinstance(await made.take(SMALL), NoRoom)
    await made.settle(held, 0)
    await asyncio.gather(*tasks)
    assert order == ["ann1", "bob1", "ann2", "ann3"]
    assert made.is_idle
    await granted(made)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_call_that_leaves_the_queue_takes_nothing(is_first: bool) -> None:
    """A call whose caller leaves, or whose time is over, takes nothing, and those behind it get their turn."""
    made = shaper(tokens=100)
    held = await granted(made, Demand(100, 0))
    leaving = asyncio.create_task(made.wait("ann", Demand(100, 0), 60))
    await until(lambda: made._no_room is not None)
    behind = asyncio.create_task(made.wait("bob", Demand(100, 0), 5))
    await asyncio.sleep(0)
    if is_first:
        leaving.cancel()
    else:
        assert await made.wait("carl", Demand(100, 0), 0.01) is None
    await made.settle(held, 0)
    if not is_first:
        await made.settle(await leaving, 0)  # type: ignore[arg-type]  # it is an allowance
    allowance = await behind
    assert allowance is not None
    await asyncio.gather(leaving, return_exceptions=True)
    assert isinstance(await made.take(SMALL), NoRoom)
    await made.settle(allowance, 0)
    await granted(made, Demand(100, 0))


async def test_an_allowance_that_comes_as_its_caller_leaves_is_given_back() -> None:
    """The place that a call gets in the moment in which it is cancelled is free for the next one."""
    made = shaper(tokens=100)
    held = await granted(made, Demand(100, 0))
    leaving = asyncio.create_task(made.wait("ann", Demand(100, 0), 60))
    await until(lambda: made._no_room is not None)
    first = made._first
    assert first is not None
    await held.settle(0)
    found = await made._take(Demand(100, 0))
    assert isinstance(found, Allowance)
    first.place.set_result(found)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await until(lambda: made.is_idle and not made._returning)
    await granted(made, Demand(100, 0))


async def test_a_full_queue_takes_no_more() -> None:
    """Beyond its size the queue refuses at once."""
    made = shaper(requests=1, size=1)
    await granted(made)
    tasks = [asyncio.create_task(made.wait("ann", SMALL, 60))]
    await until(lambda: made._no_room is not None)  # it has its turn, so it is not in the queue
    tasks.append(asyncio.create_task(made.wait("ann", SMALL, 60)))
    await asyncio.sleep(0)
    assert await made.wait("ann", SMALL, 60) is None
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: made.is_idle)
