"""Heartbeats: what a stream sends while its model is silent, so that no proxy or client in between drops the connection.

A servicer whose reply may take long starts the heartbeat with `Call.heartbeat`. From then on `Handling.stream` notes in the
`HeartbeatWriter` of the call when each message was written. There is one timer for a call, and not one for a message: a stream
writes thousands of messages and is rarely silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from antiphon.domain.call import Heartbeat

WRITING: Final = float("inf")
"""The time of the last message while one is being written: a caller that reads slowly is not silence."""


async def _write_nothing(_message: Any) -> None:
    pass


class HeartbeatWriter:
    """Writes the heartbeats of one call. Used only by the task that handles the call."""

    def __init__(self, seconds: float, write: Callable[[Any], Awaitable[None]], heartbeat: Heartbeat) -> None:
        """Write `heartbeat` with `write` after each `seconds` of silence, from now on; 0: never."""
        self._seconds = seconds
        self._write = write
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self.last = self.time()
        """When the last message was written. `WRITING` while one is."""
        self._heartbeat: Heartbeat | None = heartbeat
        self._timer = self._loop.call_later(seconds, self._check) if seconds else None
        self.beat: asyncio.Task[None] | None = None
        """The task that is writing a heartbeat, or None. The next message has to wait for it."""

    async def stop(self) -> None:
        """Stop the timer, and wait for a heartbeat that is being written."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self.beat is not None:
                with suppress(Exception):  # the caller is gone; the end of the call reports it
                    await self.beat
        finally:
            # A timer keeps a copy of the context, and a cancelled one may stay for minutes: it must not keep the call in memory.
            # Nor may a failed heartbeat: the context of its error has the frame of the handler, which refers to this object.
            self._write, self._heartbeat, self.beat = _write_nothing, None, None

    def _check(self) -> None:
        """Write the heartbeat if the silence was long enough; set the next timer. Without a message it is sent only once."""
        heartbeat = self._heartbeat
        assert heartbeat is not None, "the timer is stopped with it"
        left = self.last + self._seconds - self.time()
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
