"""The time limit of a call, applied to everything that is done for it.

A `Deadline` guards each wait for something external. A task that is stuck elsewhere when the time is over is cancelled a little
later. It works like `asyncio.timeout`, but can also be ended early with another error; a stopping server ends its remaining streams
that way. No wait has a timer of its own, because a stream waits once for every few tokens. All calls of a service share the one
timer of its `Deadlines`.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any, Final

from antiphon.domain.errors import AntiphonError, DeadlineExceeded

CANCEL_DELAY: Final = 5.0
"""Seconds between the expiry and the cancellation of a task that is not waiting on its deadline, for example because its caller
does not read."""

ANSWER_MARGIN: Final = 0.05
"""Seconds by which a call ends here before the caller's deadline, so that the caller receives the status and not its own
timeout."""

_EARLY: Final = 0.001
"""Seconds by which a timer may run early: uvloop rounds times to milliseconds."""


def time_left(remaining: float | None) -> float | None:
    """Return the seconds that a call may take here; None if there is no deadline.

    `remaining` is the time until the caller's own deadline.
    """
    return None if remaining is None else max(0.0, remaining - min(ANSWER_MARGIN, remaining / 10))


class Deadline:
    """A time limit of `seconds` from now for the task that makes it, which waits on it inside `with deadline:`."""

    def __init__(self, seconds: float, *, has_timer: bool = True) -> None:
        """Start the time limit. If it `has_timer`, it ends by itself; else its maker must call `expire` at the time `ends_at`."""
        # Kept and passed on, as asyncio looks it up with a system call each time.
        self._loop = loop = asyncio.get_running_loop()
        self._error: AntiphonError | None = None
        owner = asyncio.current_task(loop)
        assert owner is not None, "a deadline is waited on inside a task"
        self._owner: asyncio.Task[Any] = owner
        self.is_waiting = False
        """Whether the task waits on the deadline. Set it to False within a wait to interrupt that, and call `resume` after it."""
        self._cancelling = 0
        self.ends_at = loop.time() + seconds
        """The time of its end, by the clock of the event loop."""
        self._timer = loop.call_at(self.ends_at, self._pass) if has_timer else None

    @property
    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self.ends_at - self._loop.time())

    def _pass(self) -> None:
        self.expire(DeadlineExceeded())

    def expire(self, error: AntiphonError) -> None:
        """End the current wait and all later ones with `error`. Only the first call has an effect.

        A task that does not wait within `CANCEL_DELAY` is cancelled; `error` is then the argument of its `CancelledError`.
        """
        if self._error is None:
            self._error = error
            if self.is_waiting:
                self._owner.cancel()
            else:
                self._stop_timer()
                self._timer = self._loop.call_later(CANCEL_DELAY, self._owner.cancel, error)

    def __enter__(self) -> None:
        """Start a wait. Raises the error of `expire` if the time is over, or as soon as it is over while the block waits."""
        if self._error is not None:
            self._stop_timer()
            raise self._error
        self.is_waiting = True
        self._cancelling = self._owner.cancelling()

    resume = __enter__

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the wait. Raises the error of `expire` instead of the cancellation that it caused."""
        was_waiting, self.is_waiting = self.is_waiting, False
        if kind is not asyncio.CancelledError or self._error is None or not was_waiting:
            return
        # The cancellation came from this deadline, unless something else cancelled the task too.
        if self._owner.uncancel() <= self._cancelling:
            raise self._error from None

    def close(self) -> None:
        """Stop its timers. Must be called at the end of the call."""
        self._stop_timer()
        self._error = None  # its traceback has the frames that refer to this deadline, and nobody drops it if the caller leaves

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Deadlines:
    """The deadlines of all calls in flight, so that a stopping server can end them.

    They share one timer, which is set to the earliest deadline. It is not set anew when a call ends, as most calls end long before
    their deadline: when it runs, it ends what is due and is set to the earliest of those that are left.
    """

    def __init__(self, longest: float) -> None:
        """`longest` is the most seconds a call may take, whatever its caller allows."""
        self._longest = longest
        self._open: set[Deadline] = set()
        self._next = math.inf
        """The time at which the timer runs, by the clock of the event loop; infinite if it is not set."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, seconds: float | None) -> Deadline:
        """Return a new deadline, `seconds` from now, at most the longest allowed time. None: the longest allowed time.

        Pass the deadline to `end` at the end of the call.
        """
        deadline = Deadline(self._longest if seconds is None else min(seconds, self._longest), has_timer=False)
        self._open.add(deadline)
        if deadline.ends_at < self._next:
            self._set_timer(deadline.ends_at)
        return deadline

    def end(self, deadline: Deadline) -> None:
        """Close and forget a deadline, at the end of its call."""
        deadline.close()
        self._open.discard(deadline)

    def expire(self, error: AntiphonError) -> None:
        """End every call in flight with `error`, which its caller receives."""
        for deadline in tuple(self._open):
            deadline.expire(error)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = asyncio.get_running_loop().call_at(at, self._pass)

    def _pass(self) -> None:
        """End the calls whose time is over, and set the timer for the next deadline."""
        now = asyncio.get_running_loop().time() + _EARLY
        self._next = math.inf
        for deadline in tuple(self._open):
            if deadline.ends_at <= now:
                deadline.expire(DeadlineExceeded())
        later = [deadline.ends_at for deadline in self._open if deadline.ends_at > now]
        if later:
            self._set_timer(min(later))
