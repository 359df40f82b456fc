"""Reads the JSON of chunks, in which some hosts cut a text in the middle of a surrogate pair. No I/O.

A first half at the end of a text is kept until the next delta of the same text brings the second. Everything else that is not quite
valid is repaired as in `codec.json`. No fields of the protocol are known here except `choices`, `delta` and `index`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from antiphon.net import json_bounds
from antiphon.providers.codec.json import REPLACEMENT, decode, join_halves, load, replace_halves

_Place: TypeAlias = "tuple[str | int, ...]"
"""The location of a text: field names, and for lists the `index` of the object."""


class ChunkDecoder(Struct):
    """Decodes the chunks of one reply."""

    _halves: dict[_Place, str] = {}

    def read(self, payload: bytes) -> Any:
        """Decode one chunk. Raises `ValueError` if it is not JSON or too large, and `RecursionError` if it is nested too deeply."""
        if len(payload) > json_bounds.SMALL:
            json_bounds.check(payload)
        try:
            value = decode(payload)
        except ValueError:
            return self._mended(load(payload), ())
        return self._mended(value, ()) if self._halves else value

    @property
    def is_whole(self) -> bool:
        """Return whether no text waits for the second half of a surrogate."""
        return not self._halves

    def end(self) -> dict[str, Any] | None:
        """Return a chunk that completes the texts still waiting for a second half of a surrogate; None if there are none.

        Each of those texts gets a replacement character.
        """
        if not self._halves:
            return None
        choices: list[dict[str, Any]] = []
        for place in self._halves:
            _, index, *steps = place
            choices.append({"index": index, **_at(steps)})
        self._halves.clear()
        return {"choices": choices}

    def _mended(self, value: Any, place: _Place | None) -> Any:
        """Return the value with its surrogates repaired. `place` None: this text will not be continued."""
        match value:
            case str():
                return self._text(value, place)
            case dict():
                return {name: self._mended(field, None if place is None else _inner(place, name)) for name, field in value.items()}
            case list():
                return [self._mended(item, _item(place, item)) for item in value]
            case _:
                return value

    def _text(self, text: str, place: _Place | None) -> str:
        """Return a text with its surrogates repaired. A first half at the end is kept for the next delta."""
        if place is not None and text:
            text = self._halves.pop(place, "") + text
        text = join_halves(text)
        if place is not None and "\ud800" <= text[-1:] <= "\udbff":
            self._halves[place] = text[-1]
            text = text[:-1]
        return replace_halves(text)


def _inner(place: _Place, name: str) -> _Place | None:
    """Return the location of a field of an object; None if it will not be continued. Only deltas of choices are."""
    match place:
        case ():
            return (name,) if name == "choices" else None
        case ("choices", int()):
            return (*place, name) if name == "delta" else None
        case _:
            return (*place, name)


def _item(place: _Place | None, item: Any) -> _Place | None:
    """Return the location of a list item by its `index`; None if it has none and so cannot be continued."""
    if place is None or not isinstance(item, dict):
        return None
    index = item.get("index", 0 if place == ("choices",) else None)
    return (*place, index) if type(index) is int else None


def _at(steps: list[Any]) -> dict[str, Any]:
    """Return an object with a replacement character at the end of the path `steps`."""
    name, *rest = steps
    if not rest:
        return {name: REPLACEMENT}
    if isinstance(rest[0], int):
        return {name: [{"index": rest[0], **_at(rest[1:])}]}
    return {name: _at(rest)}
