"""Guards over JSON values: each string in one is a text of its own, and so is each number, and of requests each name of a field."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from antiphon.guards.base import Guard
from antiphon.guards.chain import passed


class Names:
    """Names of the fields of one object, as they are told: two that are masked alike stay two."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._alike: dict[str, int] = {}

    def ending(self, name: str, masked: str) -> str:
        """What to add to what a guard made of a name: nothing, unless it made the same of another."""
        ending = ""
        while self._told.setdefault(masked + ending, name) != name:
            alike = self._alike[masked] = self._alike.get(masked, 0) + 1
            ending = "_" if alike == 1 else f"_{alike}"
        return ending


class Turns:
    """Lets other calls have their turn after every so many texts: each is short, but a request may hold very many."""

    _TEXTS: Final = 100

    def __init__(self) -> None:
        self._texts = 0

    async def take(self) -> None:
        """Count one more text."""
        self._texts += 1
        if self._texts % self._TEXTS == 0:
            await asyncio.sleep(0)


async def passed_value(
    guards: Sequence[Guard], value: Any, *, names: dict[str, str] | None = None, turns: Turns | None = None
) -> Any:
    """What of a JSON value may be passed on: the very value if nothing of it is masked. A number that is becomes a string.

    `names` remembers what names of fields become, as schemas have the same few again and again; None: they are not read. No value
    has more than 100 levels: callers' are refused, and providers' left out, before they come here. Raises `Blocked`.
    """
    masked: Any
    turns = turns or Turns()
    match value:
        case bool() | None:
            return value
        case str() | int() | float():
            await turns.take()
            masked = await passed(guards, str(value))
            return value if masked == str(value) else masked
        case Mapping():
            masked = {name: await passed_value(guards, field, names=names, turns=turns) for name, field in value.items()}
            if names is not None:
                masked = await _named(guards, masked, names, turns)
            return masked if any(masked.get(name, masked) is not value[name] for name in value) else value
        case list() | tuple():
            masked = [await passed_value(guards, item, names=names, turns=turns) for item in value]
            return masked if any(new is not old for new, old in zip(masked, value, strict=True)) else value
        case _:
            return value


async def _named(guards: Sequence[Guard], fields: dict[str, Any], names: dict[str, str], turns: Turns) -> dict[str, Any]:
    """The fields by what of their names may be passed on."""
    named: dict[str, Any] = {}
    told = Names()
    for name, field in fields.items():
        if name not in names:
            await turns.take()
            names[name] = await passed(guards, name)
        named[names[name] + told.ending(name, names[name])] = field
    return named
