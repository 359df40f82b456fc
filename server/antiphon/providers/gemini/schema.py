"""Brings a JSON Schema into the form that the Gemini API accepts, without changing what it allows. No I/O.

The API takes JSON Schema in `parametersJsonSchema` and `responseJsonSchema`, but knows neither `$schema` nor `const`.
https://ai.google.dev/gemini-api/docs/structured-output#json_schema_support
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_SCHEMAS: Final = frozenset({"items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def accepted(schema: JsonObject) -> JsonObject:
    """Return the schema without the keywords that the API does not know."""
    made: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "const":
            made["enum"] = [value]
            if "type" not in schema and type(value) in _TYPES:
                made["type"] = _TYPES[type(value)]
        elif name in _SCHEMAS and isinstance(value, Mapping):
            made[name] = accepted(value)
        elif name in _LISTS and isinstance(value, list | tuple):
            made[name] = [accepted(one) if isinstance(one, Mapping) else one for one in value]
        elif name in _MAPS and isinstance(value, Mapping):
            made[name] = {key: accepted(one) if isinstance(one, Mapping) else one for key, one in value.items()}
        elif name != "$schema":
            made[name] = value
    return made
