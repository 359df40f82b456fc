"""Ids of conversations and messages: UUIDs of version 7 (RFC 9562) as text, so that later ones sort later.

Two ids of the same quarter of a microsecond may sort either way. Where order matters, there is a column for it.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new id: 48 bits of milliseconds, 12 of their fraction, 62 random ones, and 6 fixed by RFC 9562."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    chance = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{milliseconds << 80 | 0x7000 << 64 | fraction << 64 | 0x8000_0000_0000_0000 | chance:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an id. Other text may hold characters that a database rejects."""
    return _ID.fullmatch(text) is not None
