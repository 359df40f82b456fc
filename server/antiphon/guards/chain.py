"""Guards one after the other: what one of them passes on is what the next one reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from antiphon.guards.base import Blocked, Filter, Guard

PIECE: Final = 512
"""Characters that are filtered at one go. Between two such pieces of a long text other calls have their turn."""


class Chain:
    """One text, through new filters of all `guards`."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._filters = [make() for make in guards]

    @property
    def held(self) -> int:
        """How many characters are held back, about: a guard may have masked what the next one holds."""
        return sum(getattr(each, "held", 0) for each in self._filters)

    async def feed(self, text: str, *, final: bool = False) -> str:
        """See `Filter.feed`; `text` may be of any length. Raises `Blocked`, whose `before` has passed the later guards too."""
        if len(text) <= PIECE:
            return _feed(self._filters, text, final=final)
        passed: list[str] = []
        for begin in range(0, len(text), PIECE):
            try:
                passed.append(_feed(self._filters, text[begin : begin + PIECE], final=final and begin + PIECE >= len(text)))
            except Blocked as blocked:
                raise Blocked(blocked.guard, "".join(passed) + blocked.before) from None
            await asyncio.sleep(0)
        return "".join(passed)


async def passed(guards: Sequence[Guard], text: str) -> str:
    """What of a whole text may be passed on. Raises `Blocked`."""
    return await Chain(guards).feed(text, final=True) if text else text


def _feed(filters: Sequence[Filter], text: str, *, final: bool) -> str:
    for index, each in enumerate(filters):
        if not text and not final:
            break
        try:
            text = each.feed(text, final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, _feed(filters[index + 1 :], blocked.before, final=True)) from None
    return text
