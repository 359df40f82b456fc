"""Filters JSON values: each string and each number is a separate text, and in requests each field name too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from antiphon.guards.base import Guard
from antiphon.guards.chain import filter_text


class FieldNames:
    """Keeps the masked field names of one object unique, so that two fields masked alike stay two."""

    def __init__(self) -> None:
        self._used: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def suffix(self, name: str, masked: str) -> str:
        """Return the suffix that makes the masked name unique: empty, "_", "_2" and so on."""
        suffix = ""
        while self._used.setdefault(masked + suffix, name) != name:
            number = self._counts[masked] = self._counts.get(masked, 0) + 1
            suffix = "_" if number == 1 else f"_{number}"
        return suffix


class Pacer:
    """Lets other calls run after every 100 texts: each text is short, but a request may have very many."""

    _TEXTS: Final = 100

    def __init__(self) -> None:
        self._texts = 0

    async def count(self) -> None:
        """Count one more text, and let other calls run if it is time."""
        self._texts += 1
        if self._texts % self._TEXTS == 0:
            await asyncio.sleep(0)


async def filter_value(
    guards: Sequence[Guard], value: Any, *, names: dict[str, str] | None = None, pacer: Pacer | None = None
) -> Any:
    """Return a JSON value with all matches masked; the same object if nothing is. Raises `Blocked`.

    A masked number becomes a string. `names` caches masked field names, as schemas repeat the same few; None: field names are not
    filtered. Values have at most 100 levels: requests with more are rejected, and deeper values of replies are dropped, before they
    come here.
    """
    masked: Any
    pacer = pacer or Pacer()
    match value:
        case bool() | None:
            return value
        case str() | int() | float():
            await pacer.count()
            masked = await filter_text(guards, str(value))
            return value if masked == str(value) else masked
        case Mapping():
            masked = {name: await filter_value(guards, field, names=names, pacer=pacer) for name, field in value.items()}
            if names is not None:
                masked = await _filter_names(guards, masked, names, pacer)
            return masked if any(masked.get(name, masked) is not value[name] for name in value) else value
        case list() | tuple():
            masked = [await filter_value(guards, item, names=names, pacer=pacer) for item in value]
            return masked if any(new is not old for new, old in zip(masked, value, strict=True)) else value
        case _:
            return value


async def _filter_names(guards: Sequence[Guard], fields: dict[str, Any], names: dict[str, str], pacer: Pacer) -> dict[str, Any]:
    """Return the fields under their filtered names."""
    named: dict[str, Any] = {}
    unique = FieldNames()
    for name, field in fields.items():
        if name not in names:
            await pacer.count()
            names[name] = await filter_text(guards, name)
        named[names[name] + unique.suffix(name, names[name])] = field
    return named
