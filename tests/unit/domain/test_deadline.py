"""Tests of the deadline of a call."""

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from typing import Any, TypeVar

import pytest

from antiphon.domain.deadline import ANSWER_MARGIN, Deadline, Deadlines, time_left
from antiphon.domain.errors import DeadlineExceeded, ShuttingDown

T = TypeVar("T")


async def forever() -> None:
    await asyncio.Event().wait()


async def within(deadline: Deadline, waiting: Coroutine[Any, Any, T]) -> T:
    with closing(waiting), deadline:
        return await waiting


async def test_a_wait_that_ends_in_time_gives_its_result() -> None:
    """A wait that ends before the deadline returns its result."""
    deadline = Deadline(60)
    assert await within(deadline, asyncio.sleep(0, "done")) == "done"
    deadline.close()


async def test_a_wait_that_is_too_long_ends_as_deadline_exceeded() -> None:
    """A wait longer than the deadline is cancelled and raises `DeadlineExceeded`."""
    deadline = Deadline(0.01)
    with pytest.raises(DeadlineExceeded):
        await within(deadline, forever())


async def test_every_later_wait_fails_at_once() -> None:
    """After the deadline every further wait raises `DeadlineExceeded` at once."""
    deadline = Deadline(0)
    with pytest.raises(DeadlineExceeded):
        await within(deadline, forever())
    with pytest.raises(DeadlineExceeded):
        await within(deadline, asyncio.sleep(0))


async def test_it_can_be_ended_early_with_another_error() -> None:
    """`expire` ends the wait early with the given error, and the first call of it counts."""
    deadline = Deadline(60)
    loop = asyncio.get_running_loop()
    loop.call_soon(deadline.expire, ShuttingDown())
    loop.call_soon(deadline.expire, DeadlineExceeded())
    with pytest.raises(ShuttingDown):
        await within(deadline, forever())
    deadline.close()


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A cancellation of the task stays a `CancelledError`."""
    deadline = Deadline(60)
    task = asyncio.create_task(within(deadline, forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


async def test_a_cancellation_from_outside_wins_over_the_budget() -> None:
    """If the task is cancelled and the deadline expires in the same turn of the loop, `CancelledError` is raised."""
    made: asyncio.Queue[Deadline] = asyncio.Queue()

    async def wait() -> None:
        made.put_nowait(deadline := Deadline(60))
        await within(deadline, forever())

    task = asyncio.create_task(wait())
    deadline = await made.get()
    task.cancel()
    deadline.expire(DeadlineExceeded())
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


async def test_the_task_can_be_cancelled_and_can_wait_after_an_expiry() -> None:
    """An expired deadline leaves no cancellation in its task, which can wait again."""
    deadline = Deadline(0)
    with pytest.raises(DeadlineExceeded):
        await within(deadline, forever())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_task_that_is_stuck_elsewhere_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that waits outside the deadline is cancelled after CANCEL_DELAY, with the error as the reason.

    One that returns to it earlier gets the error instead.
    """
    monkeypatch.setattr("antiphon.domain.deadline.CANCEL_DELAY", 0.01)

    async def stuck() -> None:
        Deadline(0)
        await forever()

    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.create_task(stuck())
    assert isinstance(caught.value.args[0], DeadlineExceeded)

    async def comes_back() -> None:
        deadline = Deadline(0)
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await within(deadline, forever())
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0, later.set)  # after anything that the deadline has scheduled
        await later.wait()

    await asyncio.create_task(comes_back())


async def test_a_wait_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is stuck within an interruption is not cancelled at once; when it goes on waiting, it gets the error."""
    deadline = Deadline(60)
    later = asyncio.Event()
    with pytest.raises(ShuttingDown), deadline:
        deadline.is_waiting = False
        deadline.expire(ShuttingDown())
        asyncio.get_running_loop().call_later(0, later.set)
        await later.wait()
        deadline.resume()
    monkeypatch.setattr("antiphon.domain.deadline.CANCEL_DELAY", 0.01)

    async def stuck() -> None:
        deadline = Deadline(60)
        with deadline:
            deadline.is_waiting = False
            deadline.expire(ShuttingDown())
            await forever()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(stuck())


async def test_a_resumed_wait_ends_with_the_deadline() -> None:
    """After an interruption the task waits on the deadline as before, and is left without a cancellation."""
    deadline = Deadline(0.01)
    with pytest.raises(DeadlineExceeded), deadline:
        deadline.is_waiting = False
        await asyncio.sleep(0)
        deadline.resume()
        await forever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def test_a_call_ends_a_little_before_its_caller_gives_up() -> None:
    """The time left is the caller's timeout less ANSWER_MARGIN, but at most a tenth of it less."""
    assert time_left(None) is None
    assert time_left(10) == 10 - ANSWER_MARGIN
    assert time_left(0.01) == pytest.approx(0.009)
    assert time_left(-1) == 0


async def test_calls_in_flight_are_counted_and_can_all_be_ended() -> None:
    """`Deadlines` counts the calls in flight and can expire all of them; an ended call is not counted."""
    deadlines = Deadlines(60)
    first, second = deadlines.begin(None), deadlines.begin(30)
    assert len(deadlines) == 2
    deadlines.expire(ShuttingDown())
    for deadline in (first, second):
        with pytest.raises(ShuttingDown), deadline:
            pass
        deadlines.end(deadline)
    assert len(deadlines) == 0


async def test_each_call_ends_at_its_own_deadline_though_all_have_one_timer() -> None:
    """A call ends at its own deadline, whether the timer was set for a later one, an earlier one or a call that has ended."""
    deadlines = Deadlines(60)

    async def call(seconds: float) -> None:
        began = asyncio.get_running_loop().time()
        deadline = deadlines.begin(seconds)
        with pytest.raises(DeadlineExceeded):
            await within(deadline, forever())
        deadlines.end(deadline)
        assert asyncio.get_running_loop().time() - began >= seconds - 0.001

    deadlines.end(deadlines.begin(0.001))
    deadlines.begin(60)
    async with asyncio.timeout(10):
        await asyncio.gather(*map(call, (0.03, 0.01, 0.02, 0.04)))
        await call(0.01)  # after the timer has run for the last one
    assert len(deadlines) == 1


@pytest.mark.parametrize(("longest", "timeout"), [(0.01, None), (0.01, 60), (60, 0.01)])
async def test_a_call_ends_at_the_shorter_of_two_timeouts(longest: float, timeout: float | None) -> None:
    """A call ends at the configured or the caller's timeout, whichever is shorter."""
    with pytest.raises(DeadlineExceeded):
        await within(Deadlines(longest).begin(timeout), forever())
