"""Balance: which of several equal candidates gets a call. No I/O and no clock.

Two candidates are drawn by weight, and the cheaper one is taken ("power of two choices"): two are enough to avoid the busy ones,
and as both may be the same one, a candidate that looks expensive still gets calls, and is measured again. Of two that would be a
quarter of all calls, too many for one that is slow or fails; so one that costs far more than the cheapest gets only `MEASURED` of
the calls that it alone was drawn for. The cost is

    (in flight / weight + 1) x time to first token x (1 + FAILURES x part of recent calls that failed)

so equal candidates share calls by weight, whether idle or busy. One that was not measured yet counts as the median of the others.
Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

FAILURES: Final = 20.0
"""How much more a candidate costs whose calls all fail."""

FAR: Final = 4.0
"""How many times the cheapest candidate's cost is far more."""

MEASURED: Final = 0.2
"""The part of its calls that a candidate still gets then, so that it is measured again."""

_SHARE: Final = 0.2
"""The part that the newest time to first token has in the average."""

_FORGET: Final = 10.0
"""Seconds after which a failure counts less than half (1/e)."""


class Average:
    """An exponentially weighted average of times, in seconds; None before the first one.

    The first ones count alike: the very first call also opens a connection, and must not tell what the candidate is like for long.
    `value` is an average that others measured.
    """

    def __init__(self, value: float | None = None) -> None:
        self.value = value
        self._share = 1.0 if value is None else _SHARE

    def add(self, seconds: float) -> None:
        """Add a measurement. Runs for every call."""
        value = self.value
        self.value = seconds if value is None else value + self._share * (seconds - value)
        if self._share > _SHARE:
            self._share = max(_SHARE, self._share / (1 + self._share))

    def add_at_least(self, seconds: float) -> None:
        """Add a measurement that was broken off after so many seconds: if it is less than the average, it says nothing."""
        if self.value is None or seconds > self.value:
            self.add(seconds)


class FailureRate:
    """The part of recent calls that failed, from 0 to 1, which fades with time: a candidate that is avoided is tried again."""

    def __init__(self) -> None:
        self.value = 0.0
        """The rate at the time of the last call."""
        self._at = 0.0

    def add(self, now: float, *, failed: bool) -> None:
        """Add the outcome of a call. Runs for every call."""
        if failed:
            value = self.at(now)
            self.value = value + _SHARE * (1 - value)
            self._at = now
        elif self.value:
            self.value = self.at(now) * (1 - _SHARE)
            self._at = now
            if self.value < 1e-3:
                self.value = 0.0

    def set(self, now: float, value: float) -> None:
        """Set the rate at a time."""
        self.value, self._at = value, now

    def at(self, now: float) -> float:
        """Return the rate at a time."""
        return self.value * math.exp((self._at - now) / _FORGET) if self.value else 0.0


class Load(Struct, frozen=True):
    """What is known of a candidate. `first_token` is its average, in seconds; None if it was not measured."""

    weight: float
    in_flight: int
    first_token: float | None
    failures: float = 0.0


def choose(loads: Sequence[Load], random: Callable[[], float]) -> int:
    """Return the index of the candidate that gets the call. `loads` is not empty; `random` returns numbers from 0 to 1."""
    if len(loads) == 1:
        return 0
    first, second = _draw(loads, random()), _draw(loads, random())
    usual = _median([load.first_token for load in loads if load.first_token is not None])
    mean = sum(load.weight for load in loads) / len(loads)
    if first != second:
        return first if _cost(loads[first], mean, usual) <= _cost(loads[second], mean, usual) else second
    costs = [_cost(load, mean, usual) for load in loads]
    cheapest = min(range(len(loads)), key=costs.__getitem__)
    return cheapest if costs[first] > FAR * costs[cheapest] and random() >= MEASURED else first


def _draw(loads: Sequence[Load], at: float) -> int:
    rest = at * sum(load.weight for load in loads)
    for index, load in enumerate(loads):
        rest -= load.weight
        if rest < 0:
            return index
    return len(loads) - 1


def _cost(load: Load, mean: float, usual: float) -> float:
    first_token = usual if load.first_token is None else load.first_token
    return (load.in_flight * mean / load.weight + 1) * first_token * (1 + FAILURES * load.failures)


def _median(values: list[float]) -> float:
    """Return the (lower) median, or 1 if nothing was measured."""
    values.sort()
    return values[(len(values) - 1) // 2] if values else 1.0
