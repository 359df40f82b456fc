"""One time budget for everything that is done on behalf of one call.

A `Deadline` guards each wait for somebody else; a task that is stuck elsewhere when it ends is cancelled a little later. It holds
one timer for the whole call, not one for each wait: a stream waits once for every few tokens. It does what `asyncio.timeout` does,
and can also be ended early with another error, which is how a server that stops tells the streams that are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from antiphon.domain.errors import AntiphonError, DeadlineExceeded

T = TypeVar("T")

STUCK = 5.0
"""Seconds that a task which does not wait on its deadline has to come back to it, before it is cancelled: as when its caller does
not read."""

ANSWER_MARGIN = 0.02
"""Seconds before the caller's deadline at which a call ends here, so that the caller reads our status and not its own timer's."""


def time_left(remaining: float | None) -> float | None:
    """Seconds that a call may take here, of the `remaining` ones that its caller waits; None where the caller set no deadline."""
    return None if remaining is None else max(0.0, remaining - min(ANSWER_MARGIN, remaining / 10))


class Deadline:
    """A budget of `seconds` from now. One task at a time may wait on it."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._at = loop.time() + seconds
        self._error: AntiphonError | None = None
        self._owner = asyncio.current_task()
        self._waiting: asyncio.Task[object] | None = None
        self._timer = loop.call_at(self._at, self.expire, DeadlineExceeded())

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._at - asyncio.get_running_loop().time())

    def expire(self, error: AntiphonError) -> None:
        """Ends the wait that is going on, and every later one, with `error`. Only the first call has an effect."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.cancel()
            elif self._owner is not None:
                self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(STUCK, self._owner.cancel)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Awaits; raises the error that the budget ended with as soon as it ends. A cancellation from outside stays one."""
        task = asyncio.current_task()
        assert task is not None, "a deadline is waited on inside a task"
        if self._error is not None:
            self._timer.cancel()
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise self._error
        cancelling = task.cancelling()
        self._waiting = task
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Ours, unless somebody else cancelled the task too.
            if self._error is not None and task.uncancel() <= cancelling:
                raise self._error from None
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Stops the timer. To be called when the call is over."""
        self._timer.cancel()
