"""Limits on JSON texts, checked on their bytes before parsing.

A parser holds the interpreter's lock until it is done, and so does everything that walks over its result: `[[],[],...]` of 32 MiB
takes seconds in which no other call is served, and gigabytes. The cost depends on the number of values far more than on the bytes,
so that number is limited. Depth needs no limit here: parsers stop at a few thousand levels.

A text of `SMALL` bytes cannot hold too much, and is not checked.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

MAX_VALUES: Final = 65_536
"""The most values in one text, with objects and lists: 10,000 messages of one part each have 60,000."""

MAX_BARE_BYTES: Final = 16 * MAX_VALUES
"""The most bytes outside of strings and white space: numbers of very many digits take long to parse."""

SMALL: Final = 2 * MAX_VALUES
"""Bytes that cannot hold more than `MAX_VALUES` values: each takes one at least, and one for the separator."""

_PIECE: Final = 64 * 1024
"""Bytes counted in one go, which takes 0.2 ms, or 2 at the most."""

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string, or the start of one that ends later. It matches at every quote, so no byte is scanned repeatedly."""

_END: Final = b"\0"
"""Appended to a piece: it remains after the strings are removed, unless the piece ends within a string."""

_NO_VALUES: Final = b" \t\r\n" + _END


class TooMuch(ValueError):
    """A JSON text exceeds a limit. The message is a sentence about the text without its subject."""


def check(data: bytes) -> None:
    """Raise `TooMuch` for a text that exceeds a limit. It need not be valid JSON."""
    if len(data) > SMALL:
        count = _Count()
        for begin in range(0, len(data), _PIECE):
            count.add(data[begin : begin + _PIECE])


async def check_in_turns(data: bytes) -> None:
    """Check as `check` does, and let other calls run between two pieces of the text."""
    if len(data) > SMALL:
        count = _Count()
        for begin in range(0, len(data), _PIECE):
            count.add(data[begin : begin + _PIECE])
            await asyncio.sleep(0)


class _Count:
    """Counts the values of a text, piece by piece."""

    def __init__(self) -> None:
        self._values = 1
        self._strings = 0
        self._bare = 0
        self._open = b""  # the start of a string that continues in the next piece

    def add(self, piece: bytes) -> None:
        """Count one more piece. Raises `TooMuch`."""
        text = self._open + piece
        bare, strings = _STRING.subn(b"", text + _END)
        escaping = (len(text) - len(text.rstrip(b"\\"))) % 2
        self._open = b"" if bare.endswith(_END) else b'"' + b"\\" * escaping
        bare = bare.translate(None, _NO_VALUES)
        # Every value but the first follows a comma, or is the first in a list or an object.
        self._values += bare.count(b",") + bare.count(b"[") + bare.count(b"{")
        self._strings += strings
        self._bare += len(bare)
        # Each value may have a name, so there are at most two strings for each.
        if self._values > MAX_VALUES or self._strings > 2 * MAX_VALUES:
            raise TooMuch(f"must not hold more than {MAX_VALUES} values")
        if self._bare > MAX_BARE_BYTES:
            raise TooMuch(f"must not hold more than {MAX_BARE_BYTES} bytes of numbers")
