"""How many schemas of a request Claude can be held to. No I/O.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#schema-complexity-limits. The limits are for the
format of the reply and all strict tools of a request together. The API refuses a request beyond them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_MOST_TOOLS: Final = 20
_MOST_OPTIONAL: Final = 24
"""Parameters that are not required."""
_MOST_UNIONS: Final = 16
"""Parameters with several types."""

TOO_MANY: Final = "the API enforces 20 tools, 24 optional parameters and 16 parameters with several types at most"
"""The reason for a warning."""

_UNIONS: Final = ("anyOf", "oneOf")
_LISTS: Final = (*_UNIONS, "allOf")
_MAPS: Final = ("properties", "$defs", "definitions")


class SchemaBudget:
    """The schemas of one request."""

    def __init__(self) -> None:
        self._tools = self._optional = self._unions = 0

    def admits_format(self, schema: JsonObject) -> bool:
        """Return whether the reply can be held to a schema, which then counts."""
        return self._admits(schema, 0)

    def admits_tool(self, schema: JsonObject) -> bool:
        """Return whether the arguments of another tool can be held to a schema, which then counts."""
        return self._admits(schema, 1)

    def _admits(self, schema: JsonObject, tools: int) -> bool:
        objects = list(_schemas(schema))
        optional, unions = self._optional + sum(map(_optional, objects)), self._unions + sum(map(_unions, objects))
        tools += self._tools
        if tools > _MOST_TOOLS or optional > _MOST_OPTIONAL or unions > _MOST_UNIONS:
            return False
        self._tools, self._optional, self._unions = tools, optional, unions
        return True


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for name in _MAPS:
        inner = schema.get(name)
        for one in inner.values() if isinstance(inner, Mapping) else ():
            yield from _schemas(one)
    yield from _schemas(schema.get("items"))
    for name in _LISTS:
        listed = schema.get(name)
        for one in listed if isinstance(listed, list) else ():
            yield from _schemas(one)


def _optional(schema: Mapping[str, Any]) -> int:
    """Return the number of optional parameters of an object."""
    properties, required = schema.get("properties"), schema.get("required")
    names = required if isinstance(required, list) else []
    return sum(name not in names for name in properties) if isinstance(properties, Mapping) else 0


def _unions(schema: Mapping[str, Any]) -> int:
    """Return the number of parameters of an object that have several types."""
    properties = schema.get("properties")
    return sum(map(_has_several_types, properties.values())) if isinstance(properties, Mapping) else 0


def _has_several_types(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (isinstance(schema.get("type"), list) or any(name in schema for name in _UNIONS))
