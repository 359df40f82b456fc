"""Heartbeats: what a stream sends while its model is silent, so that no proxy or client in between gives up on it.

Whoever writes the messages of a call tells its `Pulse` of each; a servicer whose reply may be long in coming calls
`Call.heartbeat`. One timer a call, not one a message: a stream writes thousands of messages and is rarely silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from antiphon.domain.call import Heartbeat


async def _write_nothing(_message: Any) -> None:
    pass


class Pulse:
    """Writes the heartbeat of one call, if it is given one. Belongs to the task that handles the call."""

    def __init__(self, seconds: float, write: Callable[[Any], Awaitable[None]]) -> None:
        """`seconds` is the length of silence after which the heartbeat is written; 0: never."""
        self._seconds = seconds
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._heartbeat: Heartbeat | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.beat: asyncio.Task[None] | None = None
        """The heartbeat that is being written: the next message waits for it."""

    def keep(self, heartbeat: Heartbeat) -> None:
        """Start to wait for silence."""
        self._heartbeat = heartbeat
        if self._seconds:
            self._timer = self._loop.call_later(self._seconds, self._check)

    def pause(self) -> None:
        """A message is being written: that is no silence, however slowly the caller reads."""
        self._last = float("inf")

    def resume(self) -> None:
        """A message was written."""
        self._last = self._loop.time()

    async def stop(self) -> None:
        """End the heartbeat, and wait for one that is being written."""
        if self._timer is not None:
            self._timer.cancel()
        if self.beat is not None:
            with suppress(Exception):  # the caller has gone, which the end of the call reports
                await self.beat
        # Timers copy the context that this is in, and a cancelled one may stay for minutes: the call must not stay with it.
        self._write, self._heartbeat = _write_nothing, None

    def _check(self) -> None:
        heartbeat = self._heartbeat
        assert heartbeat is not None, "the timer starts with it"
        left = self._last + self._seconds - self._loop.time()
        if left <= 0:
            left = self._seconds
            if self.beat is None:
                heartbeat.sent = True
                self.beat = self._loop.create_task(self._send(heartbeat.message))
        if heartbeat.message is not None or not heartbeat.sent:
            self._timer = self._loop.call_later(min(left, self._seconds), self._check)

    async def _send(self, message: Any) -> None:
        await self._write(message)
        self.beat = None
