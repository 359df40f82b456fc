"""Brings a JSON Schema into the form that the Gemini API accepts, without changing what it allows. No I/O.

The API takes JSON Schema in `parametersJsonSchema` and `responseJsonSchema`, but knows neither `$schema` nor `const`, has
definitions only in `$defs`, and nothing beside a reference. https://ai.google.dev/gemini-api/docs/structured-output#json_schema_support
and https://ai.google.dev/api/generate-content#FIELDS.response_json_schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject

_SCHEMAS: Final = frozenset({"items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

_DEFINITIONS: Final = "definitions"
"""The name of `$defs` in drafts of JSON Schema before that of 2019."""
_DEFS: Final = "$defs"
_REF: Final = "$ref"

_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def accepted(schema: JsonObject) -> JsonObject:
    """Return the schema in the form that the API accepts."""
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
            inner = {key: accepted(one) if isinstance(one, Mapping) else one for key, one in value.items()}
            kind = _DEFS if name == _DEFINITIONS else name
            made[kind] = {**made.get(kind, {}), **inner}
        elif name == _REF and isinstance(value, str):
            made[name] = value.replace(f"/{_DEFINITIONS}/", f"/{_DEFS}/") if value.startswith("#") else value
        elif name != "$schema":
            made[name] = value
    return _with_lone_reference(made)


def _with_lone_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with a reference in a branch of its own, if anything but definitions is beside it."""
    if _REF not in schema or all(name.startswith("$") for name in schema):
        return schema
    branch = {_REF: schema.pop(_REF)}
    if "anyOf" in schema:
        schema["allOf"] = [*schema.get("allOf", []), branch]
    else:
        schema["anyOf"] = [branch]
    return schema
