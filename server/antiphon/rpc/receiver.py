"""Receiving the one message of a request: how long it may take to arrive, and how much memory all of them may take.

A message is asked for only when the call's key is known to be good. Until then gRPC takes no more of it than a stream's window (see
`server.Server`). What may be called without a key is received as well, but only few such messages at a time, and not for long.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import grpc

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.errors import AntiphonError, InvalidRequest, RateLimited, ShuttingDown, Unauthenticated

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

TIME: Final = 300.0
"""Seconds in which a message has to arrive: as long as at the edge."""

SLOW: Final = 0.5
"""Seconds after which a message that is not there counts as the largest that there can be."""

SMALL: Final = 64 * 1024
"""Bytes up to which a message is not counted."""

STRANGERS: Final = 8
"""Messages of callers without a key that may be on their way at once; a further one takes the place of the oldest."""

STRANGERS_WHOLE: Final = 256
"""The same of those that are whole at the edge, and here in a moment: clients whose key is in the body may send many at once."""

STRANGERS_TIME: Final = 10.0
"""Seconds in which such a message has to arrive."""

STRANGERS_BYTES: Final = 256 * 1024
"""The largest such message; `status.lua` has the same figure."""

GONE: Final = 0.05
"""Seconds after the end of a call's messages in which gRPC cancels it if it was its caller that ended."""

LAST_WORDS: Final = 1.0
"""Seconds in which, once the server stops, what is on its way may still come."""

TICK: Final = 0.1
"""Seconds between two looks at what is on its way."""


class Arrival:
    """A message on its way, and then the bytes that it takes until its call ends.

    `known`: its caller has a good key. `whole`: it is held at the edge until it is whole, so that it takes nothing here before.
    """

    __slots__ = ("known", "refusal", "reserved", "since", "timeout", "whole")

    def __init__(self, *, known: bool, whole: bool = False) -> None:
        self.known = known
        self.whole = whole
        self.reserved = 0
        self.since = asyncio.get_running_loop().time()
        self.timeout = asyncio.timeout(None)
        self.refusal: AntiphonError | None = None

    def refuse(self, error: AntiphonError) -> None:
        """Ends the waiting for it, with `error`."""
        if self.refusal is None:
            self.refusal = error
            self.timeout.reschedule(0)


class Receiver:
    """Receives the messages of a server process."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: the bytes that all messages above `SMALL` may have together, from their arrival to their calls' end."""
        self._capacity = capacity
        self._reserved = 0
        self._known: dict[Arrival, None] = {}
        self._strangers: dict[Arrival, None] = {}
        self._strangers_whole: dict[Arrival, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    async def receive(self, context: Context, arrival: Arrival) -> bytes | None:
        """The next message; None if the caller ends without one. `release` has to follow when the call ends.

        Raises `RateLimited`, `Unauthenticated` for one that is too large for a caller without a key, `InvalidRequest` for one that
        takes too long, and `ShuttingDown` where the server stops before it is there.
        """
        if self._ended:
            raise ShuttingDown
        waiting, most = self._known, None
        if not arrival.known:
            waiting, most = (self._strangers_whole, STRANGERS_WHOLE) if arrival.whole else (self._strangers, STRANGERS)
        if most is not None and len(waiting) >= most:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.refuse(_full("messages_without_a_key", most))
        waiting[arrival] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._look)
        try:
            async with arrival.timeout:
                data: Any = await context.read()
        except TimeoutError:
            assert arrival.refusal is not None
            raise arrival.refusal from None
        finally:
            waiting.pop(arrival, None)
        if data is grpc.aio.EOF:
            await asyncio.sleep(GONE)
            return None
        size = len(data)
        if not arrival.known and size > STRANGERS_BYTES:
            raise Unauthenticated('A request of more than 256 KiB needs its key as "Authorization: Bearer <key>".')
        if size > SMALL or arrival.reserved:
            self._reserve(arrival, size)
        return bytes(data)

    def release(self, arrival: Arrival) -> None:
        """The call of a message has ended."""
        self._reserved -= arrival.reserved
        arrival.reserved = 0

    def drain(self) -> None:
        """The server stops: what is not there in `LAST_WORDS` is not waited for."""
        asyncio.get_running_loop().call_later(LAST_WORDS, self._end)

    def _end(self) -> None:
        self._ended = True
        for arrival in (*self._known, *self._strangers, *self._strangers_whole):
            arrival.refuse(ShuttingDown())

    def _reserve(self, arrival: Arrival, size: int) -> None:
        more = size - arrival.reserved
        if self._capacity is not None and more > 0 and self._reserved + more > self._capacity:
            raise _full("request_bytes_per_worker", self._capacity)
        self._reserved += more
        arrival.reserved = size

    def _look(self) -> None:
        """Ends what takes too long, and counts what is slow."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for arrival in (*self._strangers, *self._strangers_whole, *self._known):
            age = now - arrival.since
            limit = TIME if arrival.known else STRANGERS_TIME
            if age > limit:
                arrival.refuse(InvalidRequest(f"The request did not arrive within {limit:.0f} seconds."))
            elif age > SLOW and arrival.known and not arrival.whole and not arrival.reserved:
                try:
                    self._reserve(arrival, MAX_MESSAGE_BYTES)
                except RateLimited as error:
                    arrival.refuse(error)
        self._timer = loop.call_later(TICK, self._look) if self._known or self._strangers or self._strangers_whole else None


def _full(limit: str, quota: int) -> RateLimited:
    message = "This server holds as many large or unfinished requests as it can. Try again in a moment."
    return RateLimited(message, limit=limit, scope="worker", quota=quota, retry_after=1.0)
