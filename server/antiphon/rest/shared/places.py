"""Where the blocks of a reply stood: its thoughts, and texts with a state, among its texts and calls. No I/O.

Chat completions have one place for all thoughts of a reply, and one string for all its texts, but providers refuse signed blocks
that come back in another order. So the state of such a block goes out with its place: that of a thought which followed a text or a
call is the `id` of its entry of `reasoning_details`; that of a text is in its state (`carried`). Clients send both back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import THOUGHTS, Block, State, Text, ToolCall

_ID: Final = "id"
_PLACE: Final = re.compile(r"after-(\d{1,4})-(\d{1,4})(?:-(\d{1,9}))?")


class BlockPlace(Struct, frozen=True):
    """How many texts, calls and characters (code points) of text of the reply came before a block.

    `start` is None where an earlier version wrote the place. `end` is that of a text.
    """

    texts: int = 0
    calls: int = 0
    start: int | None = 0
    end: int = 0


_Key = tuple[float, float, float, int]
"""The order of blocks: calls, characters and texts before it; the last is the number of the block."""


def placed(entry: dict[str, Any], place: BlockPlace) -> dict[str, Any]:
    """Return an entry with the place of its thought, if texts or calls came before. An id of the provider's stays."""
    if not (place.texts or place.calls):
        return entry
    return {_ID: f"after-{place.texts}-{place.calls}-{place.start}", **entry}


def place_of(entry: Mapping[str, Any]) -> BlockPlace | None:
    """Return the place of the thought of an entry; None if nothing is known of it."""
    given = entry.get(_ID)
    found = _PLACE.fullmatch(given) if isinstance(given, str) else None
    return None if found is None else BlockPlace(int(found[1]), int(found[2]), None if found[3] is None else int(found[3]))


def in_place(
    blocks: Sequence[Block], places: Sequence[BlockPlace | None], states: Sequence[tuple[BlockPlace, State]] = ()
) -> list[Block]:
    """Return the blocks of a reply that a client sent, in the order in which they stood.

    `places` are those of the thoughts, which are the first blocks. `states` are those of pieces of the text. A client has joined
    the texts to one: it is cut where a thought or a piece of it began. Of a text that the client has changed, the last state is
    kept.
    """
    if not states and not any(places):
        return list(blocks)
    length = sum(len(block.text) for block in blocks if isinstance(block, Text))
    keyed: list[tuple[_Key, Block]] = []
    texts: list[Text] = []
    calls = 0
    for at, block in enumerate(blocks):
        if isinstance(block, THOUGHTS):
            place = (places[at] if at < len(places) else None) or BlockPlace()
            start = min(length if place.start is None else place.start, length) if place.texts else 0
            keyed.append(((place.calls, start, 2 * place.texts, at), block))
        elif isinstance(block, ToolCall):
            keyed.append(((calls, inf, inf, at), block))
            calls += 1
        elif isinstance(block, Text):
            texts.append(block)
        else:
            keyed.append(((0, length, inf, at), block))
    keyed += _text_keys(texts, states, [key for key, block in keyed if isinstance(block, THOUGHTS)])
    return [block for _, block in sorted(keyed, key=lambda one: one[0])]


def _text_keys(
    texts: Sequence[Text], states: Sequence[tuple[BlockPlace, State]], thoughts: Sequence[_Key]
) -> Iterator[tuple[_Key, Block]]:
    """Yield the texts with their keys: a single one in its pieces."""
    whole = texts[0] if texts else Text("")
    states = sorted(states, key=lambda one: (one[0].texts, one[0].start or 0))
    if len(texts) > 1 or whole.extra or whole.state is not None or not _are_pieces(states, len(whole.text)):
        start = 0
        for number, block in enumerate(texts):
            is_last = number == len(texts) - 1
            value = replace(block, state=states[-1][1]) if is_last and states and block.state is None else block
            yield (0, start, inf, number), value
            start += len(block.text)
        return
    known = [(place.calls, place.start or 0) for place, _ in states] + [(int(calls), int(at)) for calls, at, _, _ in thoughts]
    for place, state in states:
        piece = whole.text[place.start : place.end]
        yield (place.calls, place.start or 0, 2 * place.texts + 1, 0), replace(whole, text=piece, state=state)
    cuts = {at for _, at in known} | {place.end for place, _ in states}
    for start, end in _gaps(states, cuts, len(whole.text)):
        calls = max((calls for calls, at in known if at <= start), default=0)
        yield (calls, start, inf, 0), replace(whole, text=whole.text[start:end])
    if not whole.text and texts and not states:
        yield (0, 0, inf, 0), whole


def _are_pieces(states: Sequence[tuple[BlockPlace, State]], length: int) -> bool:
    """Return whether the places are those of a text of that length, one after another."""
    ends = [0, *(place.end for place, _ in states)]
    starts = [*((place.start or 0) for place, _ in states), length]
    return all(end <= start for end, start in zip(ends, starts, strict=True))


def _gaps(states: Sequence[tuple[BlockPlace, State]], cuts: set[int], length: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a text without a state, cut at these places."""
    at = 0
    for start, end in [*((place.start or 0, place.end) for place, _ in states), (length, length)]:
        inner = sorted({at, start} | {cut for cut in cuts if at < cut < start})
        yield from pairwise(inner)
        at = end
