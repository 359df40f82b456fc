"""How fields that only a provider knows add up, delta by delta. No I/O.

Of a message, as hosts stream them in deltas: texts are joined, but for those that name a thing (`id`, `type`, ...); objects add up
field by field; in lists, objects of the same `index` and type are one, so is a block of thinking without a signature and the next
(LiteLLM), and all else is appended; everything else is replaced. Null ends nothing that grew. Of a choice the same, except that
texts are replaced, as hosts tell there what they found. Of the reply as a whole, everything is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_NAMING: Final = frozenset({"id", "type", "name", "role", "index", "format", "channel"})
"""Fields that name a thing: every delta may repeat them."""


def add(known: dict[str, Any], fields: JsonObject, *, joins: bool) -> None:
    """Add the fields of one more delta to those that are known. `joins`: texts are joined."""
    for name, value in fields.items():
        known[name] = _merged(name, known[name], value, joins=joins) if name in known else value


def _merged(name: str, old: Any, new: Any, *, joins: bool) -> Any:
    """Return what a field is after a delta."""
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
            return _joined(old, new, joins=joins)
        case ((str() | Mapping() | list()), None):
            return old
        case _:
            return new


def _joined(old: list[Any], new: list[Any], *, joins: bool) -> list[Any]:
    whole = list(old)
    for item in new:
        place = _place(whole, item)
        if place is None:
            whole.append(item)
        else:
            whole[place] = _merged("", whole[place], item, joins=joins)
    return whole


def _place(items: list[Any], item: Any) -> int | None:
    """Return where the object is that this is more of; None: it is another one."""
    index = item.get("index") if isinstance(item, Mapping) else None
    if index is None:
        return len(items) - 1 if items and _is_unsigned(items[-1]) and _is_thinking(item) else None
    for place in range(len(items) - 1, -1, -1):
        known = items[place]
        if isinstance(known, Mapping) and known.get("index") == index:
            kinds = known.get("type"), item.get("type")
            if None in kinds or kinds[0] == kinds[1]:
                return place
    return None


def _is_thinking(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("type") == "thinking" and "signature" in item


def _is_unsigned(item: Any) -> bool:
    return _is_thinking(item) and not item["signature"]
