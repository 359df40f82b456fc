"""Guards over JSON: each string in it is a text of its own, and so is each number, and of requests each name of a field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from antiphon.guards.base import Guard
from antiphon.guards.chain import passed

_DEEPEST: Final = 200
"""Levels. A request of more than 100 is refused before it comes here."""


class TooDeep(ValueError):
    """A value is nested deeper than can be read here."""


async def passed_value(guards: Sequence[Guard], value: Any, depth: int = 0, *, names: dict[str, str] | None = None) -> Any:
    """What of a JSON value may be passed on: the very value if nothing of it is masked. A number that is becomes a string.

    `names` remembers what names of fields become, as schemas have the same few again and again; None: they are not read.

    Raises `Blocked`, `TooDeep`.
    """
    masked: Any
    match value:
        case bool() | None:
            return value
        case str() | int() | float():
            masked = await passed(guards, str(value))
            return value if masked == str(value) else masked
        case _ if depth >= _DEEPEST:
            raise TooDeep
        case Mapping():
            masked = {name: await passed_value(guards, field, depth + 1, names=names) for name, field in value.items()}
            if names is not None:
                masked = await _named(guards, masked, names)
            return masked if any(masked.get(name, masked) is not value[name] for name in value) else value
        case list() | tuple():
            masked = [await passed_value(guards, item, depth + 1, names=names) for item in value]
            return masked if any(new is not old for new, old in zip(masked, value, strict=True)) else value
        case _:
            return value


async def _named(guards: Sequence[Guard], fields: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The fields by what of their names may be passed on."""
    named: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in names:
            names[name] = await passed(guards, name)
        new = names[name]
        while new in named:  # two that are masked alike: neither is lost
            new += "_"
        named[new] = field
    return named


async def passed_json(guards: Sequence[Guard], text: str, *, names: bool = False) -> str:
    """What of a JSON text may be passed on: as it was written if nothing is masked. Other text is text. Raises `Blocked`.

    So is JSON that names a field twice: who reads it as JSON sees one of the two, and a model both. `names`: also names of fields
    are read.
    """
    try:
        value = orjson.loads(text)
        json.loads(text, object_pairs_hook=_check_fields)
        masked = await passed_value(guards, value, names={} if names else None)
    except (ValueError, RecursionError):  # of all three
        return await passed(guards, text)
    return text if masked is value else orjson.dumps(masked).decode()


def _check_fields(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field is named twice")
