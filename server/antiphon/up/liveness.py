"""Tells whether a child process works or hangs, by its signs of life.

A worker writes into a pipe every second, from its event loop (`antiphon.up.heartbeat`). Envoy is queried on its admin interface,
which its main thread answers; its other threads have their own watchdog (`bootstrap.yaml`). A child hangs if it has given a sign
before, and then none at several checks in a row. Checks are counted, not seconds: if the whole machine was suspended, so was the
supervisor. Uses the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

INTERVAL = 5.0
"""Seconds between two checks."""

FIRST_INTERVAL = 0.5
"""Seconds between two checks before the first sign of life."""

MAX_MISSES: Final = 3
"""The number of checks in a row without a sign after which a child hangs."""


class Liveness:
    """Whether one process gives signs of life."""

    def __init__(self, has_sign: Callable[[], bool], close: Callable[[], None] = lambda: None) -> None:
        """`has_sign` returns True if there was a sign since the last check, or is one now; it must not block for long.

        `close` frees what `has_sign` uses.
        """
        self.due = time.monotonic() + FIRST_INTERVAL
        """When to check again, by `time.monotonic`."""
        self.close = close
        self._has_sign = has_sign
        self._had_sign = False
        self._misses = 0

    @property
    def is_suspect(self) -> bool:
        """True if the process counts as hanging once one more check finds no sign."""
        return self._misses >= MAX_MISSES - 1

    @property
    def silence(self) -> float:
        """Seconds without a sign, as far as the checks can tell."""
        return self._misses * INTERVAL

    def check(self, now: float) -> bool:
        """Check for a sign if that is due at the time `now`, by `time.monotonic`. Return True if the process hangs."""
        if now < self.due:
            return False
        if self._has_sign():
            self._had_sign, self._misses = True, 0
        elif self._had_sign:
            self._misses += 1
        self.due = now + (INTERVAL if self._had_sign else FIRST_INTERVAL)
        return self._misses >= MAX_MISSES


def liveness_of_pipe() -> tuple[Liveness, int]:
    """Return the liveness of a process that writes into a pipe, and the descriptor to write to. Raises `OSError`."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(reader, False)  # a positional-only argument

    def has_sign() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(reader, 65536))
        return False

    return Liveness(has_sign, lambda: os.close(reader)), writer
