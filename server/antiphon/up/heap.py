"""How this process gives memory back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3)."""

LARGE: Final = 1024 * 1024
"""Bytes from which a block is given back at once when it is freed."""

SPARE: Final = 16 * 1024 * 1024
"""Free bytes at the end of the heap that are kept."""


def give_back_large_blocks() -> None:
    """Have glibc give back large blocks when they are freed, also after the largest one so far was.

    By itself it raises the size below which it keeps blocks to that of each large block that is freed, up to 32 MiB: a few bodies
    of that size would leave several hundred MiB with the process for good. Does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, SPARE)
