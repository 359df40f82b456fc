"""Receives request messages; limits how long each may take to arrive, and how much memory all of them may take.

A message is read only after its call is authenticated. Until then gRPC buffers no more of it than a stream's window (see
`server.Server`). Messages of calls without a key are read too, but only a few at a time, and within a shorter time.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from antiphon.config import MAX_KEYLESS_BYTES, MAX_MESSAGE_BYTES
from antiphon.domain.errors import AntiphonError, InvalidRequest, RateLimited, ShuttingDown, Unauthenticated
from antiphon.rpc.context import Context

MESSAGE_TIMEOUT: Final = 300.0
"""Seconds within which a message has to arrive; the edge has the same limit."""

SLOW_AFTER: Final = 0.5
"""Seconds after which a message that is still arriving is counted with the maximum message size."""

UNCOUNTED_BYTES: Final = 64 * 1024
"""Messages up to this many bytes are not counted against the capacity."""

MAX_KEYLESS: Final = 8
"""The most messages of callers without a key that may be arriving at once; one more ends the oldest."""

MAX_KEYLESS_BUFFERED: Final = 256
"""The same for messages that the edge buffers until they are complete: clients with a key in the body may send many at once."""

KEYLESS_TIMEOUT: Final = 10.0
"""Seconds within which a message of a caller without a key has to arrive."""

CANCEL_GRACE: Final = 0.05
"""Seconds to wait after the end of a call's messages: if the caller is gone, gRPC cancels the call within that time."""

DRAIN_GRACE: Final = 1.0
"""Seconds within which a message may still arrive once the server stops."""

CHECK_INTERVAL: Final = 0.1
"""Seconds between two checks of the messages that are arriving."""


class Arrival:
    """A message that is arriving; after that, the bytes that are reserved for it until its call ends.

    `authenticated` is True if the caller is. `buffered` is True if the edge sends the message only once it is complete, so that a
    slow caller takes no memory here.
    """

    __slots__ = ("authenticated", "buffered", "refusal", "reserved", "since", "waiting")

    def __init__(self, *, authenticated: bool, buffered: bool = False) -> None:
        self.authenticated = authenticated
        self.buffered = buffered
        self.reserved = 0
        self.since = 0.0
        """When waiting for it began, by the clock of the event loop."""
        self.waiting: asyncio.Task[Any] | None = None
        """The task that waits for the message."""
        self.refusal: AntiphonError | None = None

    def refuse(self, error: AntiphonError) -> None:
        """Stop waiting for the message, so that `Receiver.receive` raises `error`."""
        if self.refusal is None:
            self.refusal = error
            if self.waiting is not None:
                self.waiting.cancel()


class Receiver:
    """Receives the request messages of a server process."""

    def __init__(self, capacity: int | None = None) -> None:
        """Allow messages above `UNCOUNTED_BYTES` up to `capacity` bytes together, until their calls end. None: no limit."""
        self._capacity = capacity
        self._reserved = 0
        self._authenticated: dict[Arrival, None] = {}
        self._keyless: dict[Arrival, None] = {}
        self._keyless_buffered: dict[Arrival, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def receive(self, context: Context, arrival: Arrival) -> bytes | None:
        """Return the next message, or None if the caller sends no more. Call `release` when the call has ended.

        Raises `RateLimited` if there is no room, `Unauthenticated` if the message is too large for a caller without a key,
        `InvalidRequest` if it takes too long, and `ShuttingDown` if the server stops before it has arrived.
        """
        if self._stopped:
            raise ShuttingDown
        waiting, most = self._authenticated, None
        if not arrival.authenticated:
            waiting, most = (self._keyless_buffered, MAX_KEYLESS_BUFFERED) if arrival.buffered else (self._keyless, MAX_KEYLESS)
        if most is not None and len(waiting) >= most:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.refuse(_full("messages_without_a_key", most))
        waiting[arrival] = None
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(CHECK_INTERVAL, self._check)
        arrival.since = loop.time()
        arrival.waiting = task = asyncio.current_task(loop)
        try:
            data: Any = await context.read()
        except asyncio.CancelledError:
            if arrival.refusal is not None and task is not None and task.uncancel() == 0:
                raise arrival.refusal from None
            raise
        finally:
            arrival.waiting = None
            waiting.pop(arrival, None)
        if data is grpc.aio.EOF:
            await asyncio.sleep(CANCEL_GRACE)
            return None
        size = len(data)
        if not arrival.authenticated and size > MAX_KEYLESS_BYTES:
            raise Unauthenticated(
                f'A request of more than {MAX_KEYLESS_BYTES // 1024} KiB needs its key as "Authorization: Bearer <key>".'
            )
        if size > UNCOUNTED_BYTES or arrival.reserved:
            self._reserve(arrival, size)
        return bytes(data)

    def release(self, arrival: Arrival) -> None:
        """Give back the bytes reserved for the message of a call that has ended."""
        self._reserved -= arrival.reserved
        arrival.reserved = 0

    def drain(self) -> None:
        """Refuse all messages that have not arrived after `DRAIN_GRACE` seconds, as the server stops."""
        asyncio.get_running_loop().call_later(DRAIN_GRACE, self._stop)

    def _stop(self) -> None:
        self._stopped = True
        for arrival in self._arriving():
            arrival.refuse(ShuttingDown())

    def _arriving(self) -> list[Arrival]:
        return [*self._keyless, *self._keyless_buffered, *self._authenticated]

    def _reserve(self, arrival: Arrival, size: int) -> None:
        """Raise the bytes reserved for `arrival` to `size`. Raises `RateLimited` if the capacity is reached."""
        more = size - arrival.reserved
        if self._capacity is not None and more > 0 and self._reserved + more > self._capacity:
            raise _full("request_bytes_per_worker", self._capacity)
        self._reserved += more
        arrival.reserved = size

    def _check(self) -> None:
        """Refuse messages that take too long, and reserve the maximum size for slow ones.

        Runs again while messages are arriving.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        arriving = self._arriving()
        for arrival in arriving:
            age = now - arrival.since
            limit = MESSAGE_TIMEOUT if arrival.authenticated else KEYLESS_TIMEOUT
            if age > limit:
                arrival.refuse(InvalidRequest(f"The request did not arrive within {limit:.0f} seconds."))
            elif age > SLOW_AFTER and arrival.authenticated and not arrival.buffered and not arrival.reserved:
                try:
                    self._reserve(arrival, MAX_MESSAGE_BYTES)
                except RateLimited as error:
                    arrival.refuse(error)
        self._timer = loop.call_later(CHECK_INTERVAL, self._check) if arriving else None


def _full(limit: str, quota: int) -> RateLimited:
    message = "This server holds as many large or unfinished requests as it can. Try again in a moment."
    return RateLimited(message, limit=limit, scope="worker", quota=quota, retry_after=1.0)
