"""Guards over JSON: each string in it is a text of its own, and so is each number. Names of fields are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from antiphon.guards.base import Guard
from antiphon.guards.chain import passed

_DEEPEST: Final = 200
"""Levels. A request of more than 100 is refused before it comes here."""


class TooDeep(ValueError):
    """A value is nested deeper than can be read here."""


async def passed_value(guards: Sequence[Guard], value: Any, depth: int = 0) -> Any:
    """What of a JSON value may be passed on: the very value if nothing of it is masked. A number that is becomes a string.

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
            masked = {name: await passed_value(guards, field, depth + 1) for name, field in value.items()}
            return masked if any(masked[name] is not value[name] for name in masked) else value
        case list() | tuple():
            masked = [await passed_value(guards, item, depth + 1) for item in value]
            return masked if any(new is not old for new, old in zip(masked, value, strict=True)) else value
        case _:
            return value


async def passed_json(guards: Sequence[Guard], text: str) -> str:
    """What of a JSON text may be passed on: as it was written if nothing is masked. Other text is text. Raises `Blocked`."""
    try:
        value = orjson.loads(text)
        masked = await passed_value(guards, value)
    except (orjson.JSONDecodeError, TooDeep):
        return await passed(guards, text)
    return text if masked is value else orjson.dumps(masked).decode()
