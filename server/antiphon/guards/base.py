"""The interface of guards: a guard makes filters, each of which reads one text in pieces.

A guard reads only text: it knows no message, event or provider, and does no I/O. One text is one part of a message, one channel of
a reply, or one string, field name or number in JSON. A guard that counts anything counts within one text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

LONGEST: Final = 255
"""The most characters of a match, and the most that are held back of a text. Longer matches are not found."""


class Blocked(Exception):
    """Raised if a text contains what a guard blocks. `guard` is the guard's name.

    `before` is the text before the match that may still be passed on, including what was held back, but without what was passed on
    already.
    """

    def __init__(self, guard: str, before: str) -> None:
        super().__init__(guard)
        self.guard = guard
        self.before = before


class Filter(Protocol):
    """Reads one text in pieces, split anywhere. The joined results must not depend on where it was split.

    A filter that holds text back has the number of those characters as `held`: it determines in which block a mask appears.
    """

    def feed(self, piece: str, *, final: bool) -> str:
        """Take the next piece, of at most 512 characters, and return the text that may be passed on now.

        The rest is held back; its length is bounded. With `final` the text ends, and nothing is held back. Runs on the event loop
        for every token of a reply: it must take a few microseconds, and time linear in the piece.

        Raises `Blocked`; the filter must not be used after that.
        """
        ...


Guard: TypeAlias = Callable[[], Filter]
"""Makes a new filter for each text. A guard is shared by all calls of a process."""
