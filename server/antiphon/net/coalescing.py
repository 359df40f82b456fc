"""Adaptive coalescing: the busier the process is, the longer the pause between two reads of a stream.

Most of the cost of a token is its own wake-up, its own message and its own write. So a connection is paused after a read: what
arrives meanwhile is one read, one batch and one message. An idle process pauses nothing, so each token is sent as it arrives.

One timer resumes the paused connections: a few all together, many in two groups, after each half of the pause the older half of
them. If all were resumed at once, this process, the edge and the callers would have to handle all of them at the same time, and a
new call would wait for that. More groups would have fewer connections each, and the fewer are resumed together, the more a token
costs.

A small part of a group is resumed in each turn of the event loop. A new call needs several turns before its provider is called. If
the whole group were resumed in one turn, the call could wait for all of them in each of its turns. So when the process is full, old
streams wait and not new calls.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, Handle
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

ENOUGH: Final = 16 * 1024
"""The size of a read in bytes from which waiting for more saves nothing."""

_FEW: Final = 100
"""The most paused connections that are one group."""

_TURNS: Final = 32
"""The most turns of the event loop in which all paused connections would be resumed, if they were one group."""

_WINDOW: Final = 0.05
"""The length in seconds of one measurement of how busy the process is."""

_IDLE: Final = 0.2
"""The share of one core below which nothing is paused."""

_BUSY: Final = 0.35
"""The share of one core from which pauses have their full length."""

_OUTDATED: Final = 4 * _WINDOW
"""The age in seconds from which a measurement no longer counts."""

_SMOOTHING: Final = 0.5
"""The weight of the newest measurement."""


class Pausable(Protocol):
    """A connection whose reading can be paused."""

    def hold(self) -> None:
        """Stop reading until `release`."""

    def release(self) -> None:
        """Continue to read, unless the connection is paused for another reason."""


class Coalescer:
    """Decides on the pauses of all connections of one event loop."""

    def __init__(
        self,
        longest: float,
        cpu_time: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Pause for at most `longest` seconds. `cpu_time` returns the CPU seconds that this process has used."""
        self._pause = 0.0
        self._longest = longest
        self._cpu_time = cpu_time
        self._clock = clock
        self._share = 0.0
        self._measured_at = 0.0
        self._cpu = 0.0
        self._held: deque[Pausable] = deque()
        self._due = 0
        """How many connections of the present group are still to be resumed. They are the oldest of `_held`."""
        self._a_turn = 1
        """How many of them are resumed in a turn of the event loop."""
        self._older = 0
        """How many of `_held` were paused already when the timer last ran, or the last group began."""
        self._next: Handle | None = None
        """The scheduled `_resume`: in the next turn of the event loop, or when it is time for the next group."""

    @property
    def pause(self) -> float:
        """Return the present length of a pause in seconds; 0 if nothing was read for a while. Safe to call from any thread."""
        return self._pause if self._clock() - self._measured_at < _OUTDATED else 0.0

    def after_read(self, connection: Pausable, size: int, loop: AbstractEventLoop) -> None:
        """Pause a connection that has just read `size` bytes of a body, if the process is busy. To be called after every read."""
        now = self._clock()
        if now - self._measured_at >= _WINDOW:
            self._measure(now)
        if not self._pause or size >= ENOUGH:
            return
        connection.hold()
        self._held.append(connection)
        if self._next is None:
            self._next = loop.call_later(self._pause / 2, self._resume, loop)

    def _measure(self, now: float) -> None:
        cpu = self._cpu_time()
        share = (cpu - self._cpu) / (now - self._measured_at)
        # A long time without reads makes a long window; what was measured before it no longer counts.
        weight = _SMOOTHING if now - self._measured_at < _OUTDATED else 1.0
        self._share += weight * (share - self._share)
        self._measured_at, self._cpu = now, cpu
        self._pause = self._longest * min(max((self._share - _IDLE) / (_BUSY - _IDLE), 0.0), 1.0)

    def _resume(self, loop: AbstractEventLoop) -> None:
        """Resume the next connections. Those that are paused again meanwhile wait for another pause.

        A group of many is one half of all, and at least those that were left half a pause ago. A few are all resumed, once they
        include such ones. So none is paused for longer than the pause, unless the process is full.
        """
        if not self._due:
            held = len(self._held)
            if held > _FEW:
                self._due = max(self._older, held // 2)
            elif self._older:
                self._due = held
            self._older = held - self._due
            self._a_turn = held // _TURNS + 1
        for _ in range(min(self._due, self._a_turn)):
            self._held.popleft().release()
            self._due -= 1
        if self._due:
            self._next = loop.call_soon(self._resume, loop)
        else:
            self._next = loop.call_later(self._pause / 2, self._resume, loop) if self._held else None
