"""One time budget for everything that is done on behalf of one call.

A `Deadline` guards each wait for somebody else; a task that is stuck elsewhere when it ends is cancelled a little later. It holds
one timer for the whole call, not one for each wait: a stream waits once for every few tokens. It does what `asyncio.timeout` does,
and can also be ended early with another error, which is how a server that stops tells the streams that are left.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

from antiphon.domain.errors import AntiphonError, DeadlineExceeded

STUCK: Final = 5.0
"""Seconds that a task which does not wait on its deadline has to come back to it, before it is cancelled: as when its caller does
not read."""

ANSWER_MARGIN: Final = 0.02
"""Seconds before the caller's deadline at which a call ends here, so that the caller reads our status and not its own timer's."""


def time_left(remaining: float | None) -> float | None:
    """Return the seconds that a call may take here, of the `remaining` ones that its caller waits; None for no deadline."""
    return None if remaining is None else max(0.0, remaining - min(ANSWER_MARGIN, remaining / 10))


class Deadline:
    """A budget of `seconds` from now. One task at a time may wait on it, within `with deadline:`."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._error: AntiphonError | None = None
        self._owner = asyncio.current_task()
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._timer = loop.call_later(seconds, self.expire, DeadlineExceeded())

    def expire(self, error: AntiphonError) -> None:
        """End the wait that is going on, and every later one, with `error`. Only the first call has an effect."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.cancel()
            elif self._owner is not None:
                self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(STUCK, self._owner.cancel)

    def __enter__(self) -> None:
        """Begin to wait. Raises the error that the budget ended with, also as soon as it ends while the block waits."""
        if self._error is not None:
            self._timer.cancel()
            raise self._error
        task = asyncio.current_task()
        assert task is not None, "a deadline is waited on inside a task"
        self._waiting = task
        self._cancelling = task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task, self._waiting = self._waiting, None
        # A cancellation is ours, unless somebody else cancelled the task too.
        if kind is asyncio.CancelledError and self._error is not None and task is not None and task.uncancel() <= self._cancelling:
            raise self._error from None

    def close(self) -> None:
        """Stop the timer. To be called when the call is over."""
        self._timer.cancel()


class Deadlines:
    """The deadlines of all calls in flight, so that a server that stops can end them."""

    def __init__(self, longest: float) -> None:
        """`longest` is what a call may take, in seconds, whatever its caller allows."""
        self._longest = longest
        self._open: set[Deadline] = set()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, seconds: float | None) -> Deadline:
        """Return a new deadline, of so many seconds or of the longest that a call may take; `end` it when the call is over."""
        deadline = Deadline(self._longest if seconds is None else min(seconds, self._longest))
        self._open.add(deadline)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """Stop a deadline's timer."""
        deadline.close()
        self._open.discard(deadline)

    def expire(self, error: AntiphonError) -> None:
        """End every call in flight with an error, as a failure that its caller is told."""
        for deadline in tuple(self._open):
            deadline.expire(error)
