"""Whether Anthropic's structured output can enforce a JSON schema at all. No I/O.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations. The API has no recursive schemas,
and no objects with keys of any name: `additionalProperties` must be false, so that such an object would always be empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_LISTS: Final = ("anyOf", "oneOf", "allOf")
_REF: Final = "$ref"
_ADDITIONAL: Final = "additionalProperties"

NOT_ENFORCEABLE: Final = "the API has no recursive schemas and no objects with keys of any name"
"""The reason for a warning."""


def is_enforceable(schema: JsonObject) -> bool:
    """Return whether the API can enforce a schema, apart from limits that can be described."""
    return _Walk(schema).accepts(schema)


class _Walk:
    """A walk through a schema that visits each definition once."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._open: set[str] = set()
        self._accepted: set[str] = set()

    def accepts(self, schema: Any) -> bool:
        if not isinstance(schema, Mapping):
            return True
        if _REF in schema and not self._accepts_reference(schema[_REF]):
            return False
        if _is_map(schema) or any(isinstance(one, Mapping) and _REF in one for one in _list(schema.get("allOf"))):
            return False
        return all(map(self.accepts, _inner(schema)))

    def _accepts_reference(self, name: object) -> bool:
        if not isinstance(name, str) or name in self._open:
            return False
        if name in self._accepted:
            return True
        target = resolved(name, self._root)
        if target is None:
            return False
        self._open.add(name)
        found = self.accepts(target)
        self._open.discard(name)
        self._accepted.add(name)
        return found


def resolved(name: str, root: JsonObject) -> JsonObject | None:
    """Return the schema that a reference within `root` names, such as "#/$defs/Step"; None if there is none."""
    if not name.startswith("#"):
        return None
    target: Any = root
    for step in name.removeprefix("#").strip("/").split("/") if name != "#" else ():
        target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else None


def _inner(schema: JsonObject) -> Iterator[Any]:
    properties = schema.get("properties")
    yield from properties.values() if isinstance(properties, Mapping) else ()
    yield schema.get("items")
    for name in _LISTS:
        yield from _list(schema.get(name))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_map(schema: JsonObject) -> bool:
    """Return whether a schema is of objects whose keys it does not name."""
    if "patternProperties" in schema or isinstance(schema.get(_ADDITIONAL), Mapping):
        return True
    names_keys = "properties" in schema or any(name in schema for name in (*_LISTS, _REF))
    return schema.get("type") == "object" and not names_keys and schema.get(_ADDITIONAL) is not False
