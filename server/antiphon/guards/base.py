"""What a guard is: something that makes filters, each of which reads one text piece by piece.

A guard reads text, and nothing else: it knows no message, no event, no provider, and does no I/O. A text is one part of a message,
one channel of a reply, or in JSON one string, name or number; a guard that counts counts within one of those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class Blocked(Exception):
    """A text holds what may not pass. `guard` is the guard's name.

    `before` is what may still be passed on of the piece, and of what was held back before it; never what was passed on already.
    """

    def __init__(self, guard: str, before: str) -> None:
        super().__init__(guard)
        self.guard = guard
        self.before = before


class Filter(Protocol):
    """Reads one text, in pieces that may be split anywhere: what it gives for them together must not depend on where.

    One that holds something back tells how many characters, as `held`: by it what it masks is told in the block in which it stood.
    """

    def feed(self, piece: str, *, final: bool) -> str:
        """Takes the next piece, and gives what may be passed on now; the rest is held back, a bounded tail of it.

        With `final` the text ends here, and nothing is held back. It runs on the event loop, for every token of a reply: in a few
        microseconds, and in time linear in its piece. Pieces are of 512 characters at most.

        Raises `Blocked`; the filter is not used after that.
        """
        ...


Guard: TypeAlias = Callable[[], Filter]
"""Makes a new filter for each text. Shared by all calls of a process."""
