"""Frees the properties in which a JSON Schema contains itself, as the Gemini API takes them only if they are not required. No I/O.

https://ai.google.dev/api/generate-content#FIELDS.response_json_schema: "Cyclic references are unrolled to a limited degree and, as
such, may only be used within non-required properties. (Nullable properties are not sufficient.)" Strict schemas of OpenAI require
every property, so that each recursive one of them would be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_ROOT: Final = "#"
_DEFS: Final = "$defs"
_INNER: Final = f"{_ROOT}/{_DEFS}/"


def without_required_cycles(schema: JsonObject) -> JsonObject:
    """Return the schema in which no property that may contain its own schema again is required; the same one if there is none.

    The schema has its definitions in `$defs` at its root alone.
    """
    definitions = schema.get(_DEFS)
    parts: dict[str, Any] = {_ROOT: {name: value for name, value in schema.items() if name != _DEFS}}
    if isinstance(definitions, Mapping):
        parts |= {_INNER + name: value for name, value in definitions.items()}
    named = {name: {_definition(one) for one in _references(part)} for name, part in parts.items()}
    reached = {name: _reached(name, named) for name in parts}
    cyclic = {name: {one for one in reached[name] if name in reached.get(one, ())} for name in parts}
    if not any(cyclic.values()):
        return schema
    made = {name: _freed(part, cyclic[name]) for name, part in parts.items()}
    if made == parts:
        return schema
    return {**made.pop(_ROOT), **({_DEFS: {name.removeprefix(_INNER): part for name, part in made.items()}} if made else {})}


def _definition(reference: str) -> str:
    """Return the part of the schema that a reference is into: the root, or a definition."""
    if not reference.startswith(_INNER):
        return _ROOT
    return _INNER + reference.removeprefix(_INNER).partition("/")[0]


def _references(value: Any) -> Iterator[str]:
    """Yield the references to other places of the same schema, at any depth."""
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_ROOT):
            yield reference
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        yield from _references(one)


def _reached(start: str, named: Mapping[str, set[str]]) -> set[str]:
    """Return all parts that references lead to from one part."""
    found: set[str] = set()
    left = [start]
    while left:
        new = named.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def _freed(value: Any, cyclic: set[str]) -> Any:
    """Return a part in which no property with a reference to one of `cyclic` is required."""
    if isinstance(value, list | tuple):
        return [_freed(one, cyclic) for one in value]
    if not isinstance(value, Mapping):
        return value
    made = {name: _freed(inner, cyclic) for name, inner in value.items()}
    required, properties = made.get("required"), made.get("properties")
    if isinstance(required, list) and isinstance(properties, Mapping):
        kept = [name for name in required if not any(_definition(one) in cyclic for one in _references(properties.get(name)))]
        if len(kept) < len(required):
            made["required"] = kept
    return made
