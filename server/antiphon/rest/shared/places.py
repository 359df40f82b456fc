"""Where a thought stood among the texts and calls of its reply. No I/O.

Chat completions have one place for all thoughts of a reply, but providers refuse signed thoughts that come back in another order.
So in `reasoning_details` the entry of a thought that followed a text or a call has an `id` that says so. Clients send it back with
the signature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from antiphon.domain.content import THOUGHTS, Block, Text, ToolCall
from antiphon.providers.openai.details import DETAILS

_ID: Final = "id"
_PLACE: Final = re.compile(r"after-(\d{1,4})-(\d{1,4})")
"""How many texts and how many calls of the reply came before."""


def placed(entry: dict[str, Any], texts: int, calls: int) -> dict[str, Any]:
    """Return an entry with the place of its thought, if texts or calls came before. An id of the provider's stays."""
    return {_ID: f"after-{texts}-{calls}", **entry} if texts or calls else entry


def in_place(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks of a reply that a client sent, with its thoughts where they stood.

    A client has joined the texts to one, so that a thought between two of them comes after both.
    """
    places = [_place(block) if isinstance(block, THOUGHTS) else None for block in blocks]
    if not any(places):
        return list(blocks)
    last_text = max((at for at, block in enumerate(blocks) if isinstance(block, Text)), default=-1)
    calls = [at for at, block in enumerate(blocks) if isinstance(block, ToolCall)]

    def key(at: int) -> tuple[int, int]:
        place = places[at]
        if place is None:
            return at, 1
        before = calls[: place[1]]
        return max(before[-1] if before else at, last_text if place[0] else at), 2

    return [blocks[at] for at in sorted(range(len(blocks)), key=key)]


def _place(block: Block) -> tuple[int, int] | None:
    """Return how many texts and calls came before a thought; None if nothing is known of it."""
    entry = {} if block.state is None else block.state.fields.get(DETAILS) or {}
    given = entry.get(_ID)
    found = _PLACE.fullmatch(given) if isinstance(given, str) else None
    return None if found is None else (int(found[1]), int(found[2]))
