"""Signs of life: how a child that hangs is told from one that works.

A worker writes into a pipe every second, from its event loop (`antiphon.up.heartbeat`). Envoy is asked on its admin interface,
which its main thread answers; its other threads are watched by a watchdog of its own (`bootstrap.yaml`). A child counts as gone
when it has given a sign once, and then none at several looks in a row. Looks are counted, and not seconds: where the whole
machine stood still, the supervisor stood still as well. Of the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

INTERVAL = 5.0
"""Seconds between two looks."""

FIRST = 0.5
"""The same, until there was a sign."""

SILENT: Final = 3
"""So many looks in a row without a sign mean that a child hangs."""


class Pulse:
    """Whether one process gives signs of life."""

    def __init__(self, sign: Callable[[], bool], close: Callable[[], None] = lambda: None) -> None:
        """`sign` tells whether there was one since it was last asked, or is one now; it must not wait for long."""
        self.due = time.monotonic() + FIRST
        """When to look again."""
        self.close = close
        self._sign = sign
        self._heard = False
        self._silent = 0

    @property
    def is_weak(self) -> bool:
        """Whether it will be taken for gone, if the next look finds no sign either."""
        return self._silent >= SILENT - 1

    @property
    def silence(self) -> float:
        """Seconds without a sign."""
        return self._silent * INTERVAL

    def is_gone(self, now: float) -> bool:
        """Look, if it is time for that. Returns whether the process hangs."""
        if now < self.due:
            return False
        if self._sign():
            self._heard, self._silent = True, 0
        elif self._heard:
            self._silent += 1
        self.due = now + (INTERVAL if self._heard else FIRST)
        return self._silent >= SILENT


def pulse_of_pipe() -> tuple[Pulse, int]:
    """Return the pulse of a process that writes into a pipe, and the end for it to write to. Raises `OSError`."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(reader, False)  # it has no name

    def sign() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(reader, 65536))
        return False

    return Pulse(sign, lambda: os.close(reader)), writer
