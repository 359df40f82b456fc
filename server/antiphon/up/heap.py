"""Settings of the C heap: when this process returns memory to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3)."""

LARGE: Final = 1024 * 1024
"""Blocks of at least this many bytes are returned to the system when they are freed."""

SPARE: Final = 16 * 1024 * 1024
"""Free bytes at the end of the heap that are kept."""


def give_back_large_blocks() -> None:
    """Make glibc return large blocks to the system when they are freed.

    By default glibc raises its threshold to the size of each large block that is freed, up to 32 MiB, and then keeps blocks below
    it: a few bodies of that size would leave several hundred MiB with the process for good. Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, SPARE)
