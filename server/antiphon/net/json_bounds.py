"""How much a JSON text may hold, counted on its bytes before any of it is parsed.

A parser holds the interpreter's lock until it is done, and so does all that looks at what it made: `[[],[],...]` of 32 MiB takes
seconds in which nobody else is served, and gigabytes. What a text costs goes by the number of its values far more than by its
bytes, so that number is bounded. Depth needs no count of its own: parsers stop at some thousand levels by themselves.

A text of `SMALL` bytes cannot hold too much, and is not looked at.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

MAX_VALUES: Final = 65_536
"""The most values in one text, objects and lists among them: 10,000 messages of one part each have 60,000."""

MAX_BARE_BYTES: Final = 16 * MAX_VALUES
"""The most bytes outside of strings, white space aside: numbers of very many digits take long to read."""

SMALL: Final = 2 * MAX_VALUES
"""Bytes that no more than `MAX_VALUES` values fit into, as each has one at least, and another that parts it from the next."""

_PIECE: Final = 64 * 1024
"""Bytes that are looked at in one go: 0.2 ms, or 2 at the most."""

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string, or the beginning of one that ends later. It matches at every quote, so that no byte is looked at again and again."""

_END: Final = b"\0"
"""Put behind a piece: it is left over only if the piece does not end within a string."""

_NO_VALUES: Final = b" \t\r\n" + _END


class TooMuch(ValueError):
    """A JSON text holds more than may be parsed. The message is a sentence about it without its subject."""


def check(data: bytes) -> None:
    """Raise `TooMuch` for a text that may not be parsed. It need not be JSON."""
    if len(data) > SMALL:
        count = _Count()
        for begin in range(0, len(data), _PIECE):
            count.add(data[begin : begin + _PIECE])


async def check_in_turns(data: bytes) -> None:
    """The same, and let other calls have their turn between two pieces of the text."""
    if len(data) > SMALL:
        count = _Count()
        for begin in range(0, len(data), _PIECE):
            count.add(data[begin : begin + _PIECE])
            await asyncio.sleep(0)


class _Count:
    """What a text holds, piece by piece."""

    def __init__(self) -> None:
        self._values = 1
        self._strings = 0
        self._bare = 0
        self._open = b""  # the beginning of a string that the piece before has not ended

    def add(self, piece: bytes) -> None:
        """Count one more piece. Raises `TooMuch`."""
        text = self._open + piece
        bare, strings = _STRING.subn(b"", text + _END)
        escaping = (len(text) - len(text.rstrip(b"\\"))) % 2
        self._open = b"" if bare.endswith(_END) else b'"' + b"\\" * escaping
        bare = bare.translate(None, _NO_VALUES)
        # Every value but the first comes behind a comma, or is the first in a list or an object.
        self._values += bare.count(b",") + bare.count(b"[") + bare.count(b"{")
        self._strings += strings
        self._bare += len(bare)
        # Each value may have a name, so there are two strings at most for each.
        if self._values > MAX_VALUES or self._strings > 2 * MAX_VALUES:
            raise TooMuch(f"must not hold more than {MAX_VALUES} values")
        if self._bare > MAX_BARE_BYTES:
            raise TooMuch(f"must not hold more than {MAX_BARE_BYTES} bytes of numbers")
