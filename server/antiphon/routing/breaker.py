"""The breaker: stops calls to a target that fails, and lets them return slowly. No I/O and no clock: callers pass the time.

    closed     every call is admitted
    open       none is, for `open` seconds at first, for twice as long each time the target fails again, `open_most` at the longest
    half-open  one call at a time is admitted, as a probe
    ramp       the probe succeeded: a growing part of the calls is admitted, from 10 % to all of them in `RAMP` seconds

               A call that has nothing else to go to is admitted as well if none is in progress, and one more with each second
    early      a probe while it is open, for a call that has nothing else to go to: one each `EARLY` x `open` seconds. If it
               fails, the breaker stays open for as long as it was to be anyway. Such a call is also a further probe if the last
               one has had no answer for that time: it may hang for minutes, while the target is well again

It opens after `consecutive` failures in a row, or if a `ratio` of at least `of` calls in `window` seconds failed. A call that began
before the last change of state has no influence: its end says nothing about the target as it is now.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct

RAMP: Final = 10.0
"""Seconds from a successful probe until all calls are admitted again."""

RAMP_START: Final = 0.1
"""The part of the calls that is admitted at the start of the ramp."""

JITTER: Final = 0.2
"""How much the time for which a breaker is open varies, up and down, so that servers do not probe at the same moment."""

EARLY: Final = 0.2
"""The part of `open` that passes between two early probes: a second of five. While nothing else works, to wait for the end would
keep callers from a target that has long been well again."""

_NO_EPOCH: Final = -1
"""The number of a call whose end has no influence."""

_SLOTS: Final = 6
"""The window is counted in so many slots; the oldest is dropped as a whole."""


class BreakerState(StrEnum):
    """The states of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RAMP = "ramp"


class BreakerRules(Struct, frozen=True):
    """When a breaker opens, and for how long. Times are in seconds."""

    consecutive: int = 5
    ratio: float = 0.5
    of: int = 20
    window: float = 30.0
    open: float = 5.0
    open_most: float = 120.0


class SavedBreaker(Struct, frozen=True):
    """The state of a breaker at a moment, for one that takes its place. Times are seconds from that moment.

    `calls` and `failures` are those of the window's slots, the current one first. `early_for` is the time until
    an early probe may be made; None: there is none.
    """

    state: BreakerState
    open_for: float
    ramp_age: float
    times_opened: int
    in_a_row: int
    calls: tuple[int, ...]
    failures: tuple[int, ...]
    early_for: float | None = 0.0


class Breaker:
    """The breaker of one target. `random` returns numbers from 0 to 1."""

    def __init__(self, rules: BreakerRules, random: Callable[[], float]) -> None:
        self._rules = rules
        self._random = random
        self.state = BreakerState.CLOSED
        self.epoch = 0
        """The number of changes of state so far. A call keeps the number at its beginning, and passes it on with its outcome."""
        self.open_until = 0.0
        """The end of the time for which it is open."""
        self.is_early = False
        """Whether it is half-open before that end."""
        self._early_from = 0.0
        """The moment from which an early or further probe may be made; infinite if it was tripped, and until a probe has begun."""
        self._times_opened = 0
        """How often it opened since it was last closed."""
        self._probing = False
        self._ramp_start = 0.0
        self._in_progress = 0
        """The calls of the ramp that have not ended."""
        self._in_a_row = 0
        self._slot = 0
        """The number of the current slot of the window, counted from the clock's 0."""
        self._calls = [0] * _SLOTS
        self._failures = [0] * _SLOTS

    def admits(self, now: float) -> bool:
        """Return whether a call may be made now. During the ramp, the answer is random."""
        if self.state is BreakerState.CLOSED:
            return True
        state = self.refresh(now)
        if state is BreakerState.HALF_OPEN:
            return not self._probing
        if state is BreakerState.RAMP:
            return self._random() < RAMP_START + (1 - RAMP_START) * (now - self._ramp_start) / RAMP
        return state is BreakerState.CLOSED

    def begin(self, now: float) -> int:
        """Note the start of a call that `admits` allowed, and return the number to pass on with its outcome."""
        if self.state is not BreakerState.CLOSED:
            if self.state is BreakerState.OPEN:
                return _NO_EPOCH  # it was opened after it had admitted the call
            self._probing = self.state is BreakerState.HALF_OPEN
            self._early_from = now + self._early_pause()
            self._in_progress += 1
        return self.epoch

    def may_start(self, now: float) -> bool:
        """Return whether a call may be made in the ramp that has nothing else to go to: few calls at once are no stampede."""
        return self.state is BreakerState.RAMP and self._in_progress <= int(now - self._ramp_start)

    def early_wait(self, now: float) -> float | None:
        """Return the seconds until an early probe may be made; None if there will be none, as its end or a probe is awaited.

        While a probe has had no answer for long, 0: there may be a further one.
        """
        state = self.refresh(now)
        if state is BreakerState.HALF_OPEN and self._probing and now >= self._early_from:
            return 0.0
        if state is not BreakerState.OPEN or self._early_from >= self.open_until:
            return None
        return max(0.0, self._early_from - now)

    def probe_early(self) -> int:
        """Take the place of an early probe, which `early_wait` allowed. Return a number for `release`, if there is no call then."""
        if self.state is not BreakerState.HALF_OPEN:
            self._change(BreakerState.HALF_OPEN)
            self.is_early = self._probing = True
        self._early_from = math.inf
        return self.epoch

    def succeed(self, now: float, epoch: int) -> None:
        """Note that a call succeeded. Runs for every call."""
        if epoch != self.epoch:
            return
        self._in_a_row = 0
        if self.state is not BreakerState.CLOSED:
            if self.state is BreakerState.HALF_OPEN:
                self._change(BreakerState.RAMP)
                self._ramp_start = now
                return
            self._in_progress -= 1
        self._calls[self._at(now)] += 1

    def fail(self, now: float, epoch: int) -> None:
        """Note that a call failed, and open the breaker if the rules say so."""
        if epoch != self.epoch:
            return
        if self.is_early and now < self.open_until:
            self._change(BreakerState.OPEN)
            self._early_from = now + self._early_pause()
            return
        at = self._at(now)
        self._calls[at] += 1
        self._failures[at] += 1
        self._in_progress -= 1
        self._in_a_row += 1
        rules = self._rules
        calls = sum(self._calls)
        is_too_many = calls >= rules.of and sum(self._failures) >= rules.ratio * calls
        if self.state is BreakerState.HALF_OPEN or self._in_a_row >= rules.consecutive or is_too_many:
            self._open(now, min(rules.open * 2**self._times_opened, rules.open_most))

    def release(self, epoch: int) -> None:
        """Note that a call ended without saying anything about the target, for example because its caller left."""
        if epoch == self.epoch:
            self._probing = False
            self._early_from = 0.0
            self._in_progress -= 1
            if self.is_early:
                self._change(BreakerState.OPEN)

    def trip(self, now: float, seconds: float) -> None:
        """Open it for so many seconds, whatever its rules say; if it is open for longer already, that stays."""
        if self.state is not BreakerState.OPEN or now + seconds > self.open_until:
            self.hold_open(now, seconds)

    def hold_open(self, now: float, seconds: float) -> None:
        """Open it for exactly so many seconds, without early probes, also if it was to be open for longer."""
        self._open(now, seconds, jitter=False)
        self._early_from = math.inf

    def reset(self) -> None:
        """Close it."""
        self._times_opened = 0
        self._clear()
        self._change(BreakerState.CLOSED)

    def save(self, now: float) -> SavedBreaker:
        """Return its state for another breaker with the same rules. A probe in progress is not part of it."""
        at = self._at(now)
        slots = [(at - age) % _SLOTS for age in range(_SLOTS)]
        return SavedBreaker(
            state=BreakerState.OPEN if self.is_early and now < self.open_until else self.refresh(now),
            open_for=max(0.0, self.open_until - now),
            ramp_age=now - self._ramp_start,
            times_opened=self._times_opened,
            in_a_row=self._in_a_row,
            calls=tuple(self._calls[slot] for slot in slots),
            failures=tuple(self._failures[slot] for slot in slots),
            early_for=None if self._early_from == math.inf else max(0.0, self._early_from - now),
        )

    def restore(self, saved: SavedBreaker, now: float) -> None:
        """Take up a state that was saved at `now`."""
        at = self._at(now)
        for age, (calls, failures) in enumerate(zip(saved.calls, saved.failures, strict=True)):
            slot = (at - age) % _SLOTS
            self._calls[slot], self._failures[slot] = calls, failures
        self._change(saved.state)
        self.open_until = now + saved.open_for
        self._early_from = math.inf if saved.early_for is None else now + saved.early_for
        self._ramp_start = now - saved.ramp_age
        self._times_opened, self._in_a_row = saved.times_opened, saved.in_a_row

    def refresh(self, now: float) -> BreakerState:
        """Return the state at this time."""
        if self.state is not BreakerState.CLOSED:
            self._advance(now)
        return self.state

    def wait(self, now: float) -> float:
        """Return the seconds until it may admit a call, as far as it is known: 0 if it may do so now."""
        return max(0.0, self.open_until - now) if self.refresh(now) is BreakerState.OPEN else 0.0

    def _open(self, now: float, seconds: float, *, jitter: bool = True) -> None:
        factor = 1 + JITTER * (2 * self._random() - 1) if jitter else 1.0
        self.open_until = now + min(seconds * factor, max(seconds, self._rules.open_most))
        self._early_from = now + self._early_pause()
        self._times_opened = min(self._times_opened + 1, 30)
        self._clear()
        self._change(BreakerState.OPEN)

    def _early_pause(self) -> float:
        return EARLY * self._rules.open * (1 + JITTER * (2 * self._random() - 1))

    def _advance(self, now: float) -> None:
        """Make the changes of state that are due by time."""
        if self.state is BreakerState.OPEN and now >= self.open_until:
            self._change(BreakerState.HALF_OPEN)
        elif self.state is BreakerState.RAMP and now >= self._ramp_start + RAMP:
            self._times_opened = 0
            self.state = BreakerState.CLOSED  # calls of the ramp still count

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1
        self._probing = self.is_early = False
        self._in_progress = 0
        self._in_a_row = 0

    def _clear(self) -> None:
        self._calls = [0] * _SLOTS
        self._failures = [0] * _SLOTS

    def _at(self, now: float) -> int:
        """Return the index of the current slot, after dropping those that are too old."""
        slot = int(now * _SLOTS / self._rules.window)
        if slot != self._slot:
            for old in range(self._slot + 1, min(slot, self._slot + _SLOTS) + 1):
                self._calls[old % _SLOTS] = self._failures[old % _SLOTS] = 0
            self._slot = slot
        return slot % _SLOTS
