"""Values that are read again when they are too old, each by one reading at a time, however many callers wait for it.

A value is fresh for `ttl` seconds after its reading; then the next caller has it read again. Where that fails, what was read before
is used for `stale` seconds more, and for `retry` seconds nobody waits for another reading. A reading of None tells that there is
nothing: that is believed while it is fresh, and no longer. What is read, and how long that may take, is the caller's matter.
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
"""Seconds since whenever."""

Failures: TypeAlias = tuple[type[Exception], ...]
"""What a reading that fails raises. All else is a defect, and goes to whoever waits for the reading."""

K = TypeVar("K")
T = TypeVar("T")


class Times(Struct, frozen=True):
    """How old a value may be, in seconds."""

    ttl: float
    """How long it is fresh."""
    stale: float
    """How long it is used after that, if it cannot be read again."""
    retry: float
    """How long nobody waits for another reading after one that failed, if there is something to use."""
    patience: float | None = None
    """How long a caller waits for a reading if there is something to use; None: to its end. `retry` counts from then too."""


class Refreshing(Generic[T]):
    """One value. Belongs to the event loop of its first call."""

    __slots__ = ("_clock", "_due", "_failures", "_read", "_reading", "_times", "_usable_until", "_value", "is_failing")

    def __init__(self, read: Callable[[], Awaitable[T]], times: Times, failures: Failures, clock: Clock = time.monotonic) -> None:
        self._read = read
        self._times = times
        self._failures = failures
        self._clock = clock
        self._value: T | None = None
        self._due = self._usable_until = clock()
        self._reading: asyncio.Task[tuple[T | None, Exception | None]] | None = None
        self.is_failing = False
        """Whether the last reading failed."""

    @property
    def is_due(self) -> bool:
        """Whether the next caller has the value read."""
        return self._clock() >= self._due

    @property
    def is_reading(self) -> bool:
        """Whether a reading is going on."""
        return self._reading is not None

    @property
    def usable(self) -> T | None:
        """The value, if it is not too old."""
        return self._value if self._clock() < self._usable_until else None

    async def get(self) -> T:
        """Return the value, read again if it is due. Raise what the reading raised, if there is nothing older to use."""
        if not self.is_due:
            return cast(T, self._value)
        older = self.usable
        patience = asyncio.timeout(None if older is None else self._times.patience)
        try:
            async with patience:
                value, error = await self.renew()
        except TimeoutError:
            if older is None or not patience.expired():
                raise
            self._leave_alone()
            return older
        if error is None:
            return cast(T, value)
        if (older := self.usable) is None:
            raise error
        return older

    def renew(self) -> asyncio.Future[tuple[T | None, Exception | None]]:
        """Begin a reading, unless one is going on; return a future of what is read, and of the error if it fails.

        Who stops waiting for it takes it from nobody else.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._run())
        return asyncio.shield(self._reading)

    async def close(self) -> None:
        """End a reading that is going on."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _run(self) -> tuple[T | None, Exception | None]:
        try:
            value = await self._read()
        except self._failures as error:
            self.is_failing = True
            self._value = self.usable
            self._leave_alone()
            return None, error
        else:
            self.is_failing = False
            self._value = value
            self._due = self._clock() + self._times.ttl
            self._usable_until = self._due if value is None else self._due + self._times.stale
            return value, None
        finally:
            self._reading = None

    def _leave_alone(self) -> None:
        """Let nobody wait for another reading for a while: for no longer than there is something to use."""
        self._due = min(self._clock() + self._times.retry, self._usable_until)


class RefreshingMap(Generic[K, T]):
    """A value for each key, as many as `size`; of more, those go that were read longest ago."""

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
        self._first: dict[K, Refreshing[T]] = {}
        """Those that are being read for the first time: while nothing can be read, they push none out that is known."""

    async def get(self, key: K) -> T:
        """Return the value of a key, as `Refreshing.get` does."""
        entry = self._known.get(key) or self._first.get(key)
        if entry is None:
            entry = self._first[key] = Refreshing(partial(self._load, key), self._times, self._failures, self._clock)
        return await entry.get()

    async def _load(self, key: K) -> T:
        try:
            value = await self._read(key)
        finally:
            first = self._first.pop(key, None)
        if first is not None:
            self._known[key] = first
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        elif key in self._known:
            self._known.move_to_end(key)
        return value
