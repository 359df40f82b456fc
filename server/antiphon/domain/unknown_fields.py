"""Merges the deltas of fields that only a provider knows. No I/O.

Fields of a message are merged the way hosts stream them:

- texts are concatenated, except those that identify something (`id`, `type`, ...);
- objects are merged field by field;
- list items with the same `index` and type are merged, and so is the first new item with the last one if the reader says so
  (`ExtraFields.continued`); all others are appended;
- any other value is replaced;
- null does not erase a text, an object or a list.

Fields of a choice are merged alike, except that texts are replaced, because hosts send results there. Fields of the reply as a
whole are always replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_NAMING: Final = frozenset({"id", "type", "name", "role", "index", "format", "channel"})
"""Fields that identify something. They may be repeated in every delta, so they are never concatenated."""


def add(known: dict[str, Any], fields: JsonObject, *, joins: bool, continued: frozenset[str] = frozenset()) -> None:
    """Merge the fields of a delta into `known`. `joins`: texts are concatenated, else replaced.

    `continued` are the lists whose first new item goes on with the last one.
    """
    for name, value in fields.items():
        known[name] = _merged(name, known[name], value, joins=joins, goes_on=name in continued) if name in known else value


def _merged(name: str, old: Any, new: Any, *, joins: bool, goes_on: bool = False) -> Any:
    """Return the value of the field `name` after a delta."""
    match old, new:
        case str(), str() if joins and name not in _NAMING:
            return old + new
        case str(), str() | None if name in _NAMING:
            return new or old
        case Mapping(), Mapping():
            whole = dict(old)
            add(whole, new, joins=joins)
            return whole
        case list(), list():
            return _joined(old, new, joins=joins, goes_on=goes_on)
        case ((str() | Mapping() | list()), None):
            return old
        case _:
            return new


def _joined(old: list[Any], new: list[Any], *, joins: bool, goes_on: bool) -> list[Any]:
    """Return the list after a delta: items that continue an old one are merged, the others appended."""
    whole = list(old)
    for number, item in enumerate(new):
        place = len(old) - 1 if goes_on and old and number == 0 else _place(whole, item)
        if place is None:
            whole.append(item)
        else:
            whole[place] = _merged("", whole[place], item, joins=joins)
    return whole


def _place(items: list[Any], item: Any) -> int | None:
    """Return the position of the object in `items` that `item` continues; None if it continues none."""
    index = item.get("index") if isinstance(item, Mapping) else None
    if index is None:
        return None
    for place in range(len(items) - 1, -1, -1):
        known = items[place]
        if isinstance(known, Mapping) and known.get("index") == index:
            kinds = known.get("type"), item.get("type")
            if None in kinds or kinds[0] == kinds[1]:
                return place
    return None
