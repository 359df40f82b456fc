"""Runs several guards in order: each reads what the previous one passes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from antiphon.guards.base import Blocked, Filter, Guard

PIECE: Final = 512
"""The number of characters that are filtered at once. Between two such pieces of a long text, other calls run."""


class Chain:
    """Filters one text with new filters of all `guards`."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._filters = [make() for make in guards]

    @property
    def held(self) -> int:
        """Return how many characters are held back; approximate, as a guard may have masked text that the next one holds."""
        return sum(getattr(each, "held", 0) for each in self._filters)

    async def feed(self, text: str, *, final: bool = False) -> str:
        """Filter more of the text, of any length, as `Filter.feed`.

        Raises `Blocked`; its `before` has passed the later guards too.
        """
        if len(text) <= PIECE:
            return _feed(self._filters, text, final=final)
        done: list[str] = []
        for begin in range(0, len(text), PIECE):
            try:
                done.append(_feed(self._filters, text[begin : begin + PIECE], final=final and begin + PIECE >= len(text)))
            except Blocked as blocked:
                raise Blocked(blocked.guard, "".join(done) + blocked.before) from None
            await asyncio.sleep(0)
        return "".join(done)


async def filter_text(guards: Sequence[Guard], text: str) -> str:
    """Return a whole text with all matches masked. Raises `Blocked`."""
    return await Chain(guards).feed(text, final=True) if text else text


def _feed(filters: Sequence[Filter], text: str, *, final: bool) -> str:
    """Feed the text through the filters, and return what comes out. Raises `Blocked`."""
    for index, each in enumerate(filters):
        if not text and not final:
            break
        try:
            text = each.feed(text, final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, _feed(filters[index + 1 :], blocked.before, final=True)) from None
    return text
