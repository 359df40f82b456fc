"""Cached values that are read again when they are too old, with one read at a time for all callers that wait.

A value is fresh for `ttl` seconds after it was read, or has an end of its own; then the next caller causes a new read. If that
fails, the old value is used for `stale` seconds more, and nobody waits for another read for `retry` seconds. A read that returns
None means that nothing exists; this is only used while it is fresh. The caller decides what is read, and how long that may take.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeAlias, TypeVar, cast

from msgspec import Struct

Clock: TypeAlias = Callable[[], float]
"""Returns seconds, from any starting point."""

Failures: TypeAlias = tuple[type[Exception], ...]
"""The exceptions of a failed read. Any other is a bug, and is raised to the callers that wait for the read."""

K = TypeVar("K")
T = TypeVar("T")


class Times(Struct, frozen=True):
    """The ages of a value, in seconds."""

    ttl: float
    """How long a value is fresh."""
    stale: float
    """How long it is used after that if it cannot be read again."""
    retry: float
    """How long nobody waits for another read after a failed one, if there is an old value."""
    patience: float | None = None
    """How long a caller waits for a read if there is an old value; None: until it ends. `retry` then also starts."""


class Refreshing(Generic[T]):
    """One cached value. Belongs to the event loop of its first call."""

    __slots__ = ("_clock", "_due", "_ends", "_failures", "_read", "_reading", "_times", "_usable_until", "_value", "is_failing")

    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        times: Times,
        failures: Failures,
        clock: Clock = time.monotonic,
        *,
        ends: Callable[[T], tuple[float, float]] | None = None,
    ) -> None:
        """Take what reads the value.

        `ends` returns until when a value is fresh and usable, on `clock`, in place of `Times.ttl` and `Times.stale`.
        """
        self._read = read
        self._ends = ends
        self._times = times
        self._failures = failures
        self._clock = clock
        self._value: T | None = None
        self._due = self._usable_until = clock()
        self._reading: asyncio.Task[tuple[T | None, Exception | None]] | None = None
        self.is_failing = False
        """Whether the last read failed."""

    @property
    def is_due(self) -> bool:
        """Return whether the next caller causes a read."""
        return self._clock() >= self._due

    @property
    def is_reading(self) -> bool:
        """Return whether a read is in progress."""
        return self._reading is not None

    @property
    def usable(self) -> T | None:
        """Return the value if it is not too old, otherwise None."""
        return self._value if self._clock() < self._usable_until else None

    async def get(self) -> T:
        """Return the value, read again if it is due. Raises the error of the read if there is no usable old value."""
        if not self.is_due:
            return cast(T, self._value)
        previous = self.usable
        patience = asyncio.timeout(None if previous is None else self._times.patience)
        try:
            async with patience:
                value, error = await self.renew()
        except TimeoutError:
            if previous is None or not patience.expired():
                raise
            self._postpone()
            return previous
        if error is None:
            return cast(T, value)
        if (previous := self.usable) is None:
            raise error
        return previous

    def renew(self) -> asyncio.Future[tuple[T | None, Exception | None]]:
        """Start a read unless one is in progress; return a future of the value, and of the error if the read fails.

        A caller that is cancelled does not cancel the read.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._run())
        return asyncio.shield(self._reading)

    def expire(self) -> None:
        """Forget the value: the next caller waits for another read."""
        self._value = None
        self._due = self._usable_until = self._clock()

    async def close(self) -> None:
        """Cancel a read in progress."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _run(self) -> tuple[T | None, Exception | None]:
        try:
            value = await self._read()
        except self._failures as error:
            self.is_failing = True
            self._value = self.usable
            self._postpone()
            return None, error
        else:
            self.is_failing = False
            self._value = value
            if self._ends is None:
                self._due = self._clock() + self._times.ttl
                self._usable_until = self._due if value is None else self._due + self._times.stale
            else:
                self._due, self._usable_until = self._ends(value)
            return value, None
        finally:
            self._reading = None

    def _postpone(self) -> None:
        """Postpone the next read by `retry`, but not beyond the time for which the old value is usable."""
        self._due = min(self._clock() + self._times.retry, self._usable_until)


class RefreshingMap(Generic[K, T]):
    """A cached value for each key, at most `size` of them; the one that was read longest ago is dropped first."""

    def __init__(
        self,
        read: Callable[[K], Awaitable[T]],
        times: Times,
        failures: Failures,
        *,
        size: int,
        clock: Clock = time.monotonic,
    ) -> None:
        self._read = read
        self._times = times
        self._failures = failures
        self._size = size
        self._clock = clock
        self._known: OrderedDict[K, Refreshing[T]] = OrderedDict()
        self._loading: dict[K, Refreshing[T]] = {}
        """Entries read for the first time. They are kept apart, so that failing reads do not push out known values."""

    async def get(self, key: K) -> T:
        """Return the value of a key. See `Refreshing.get`."""
        entry = self._known.get(key) or self._loading.get(key)
        if entry is None:
            entry = self._loading[key] = Refreshing(partial(self._load, key), self._times, self._failures, self._clock)
        return await entry.get()

    async def _load(self, key: K) -> T:
        try:
            value = await self._read(key)
        finally:
            loaded = self._loading.pop(key, None)
        if loaded is not None:
            self._known[key] = loaded
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        elif key in self._known:
            self._known.move_to_end(key)
        return value
