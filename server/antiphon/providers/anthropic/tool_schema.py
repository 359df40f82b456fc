"""Brings the schema of a tool's input into the form that Claude models accept: an object, and no union at the top. No I/O.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools. The API refuses `oneOf`, `anyOf` and `allOf` at the top
of an input schema. The properties of all branches then become properties of the one object, and the union is added to the
description, which the model reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from antiphon.domain.content import JsonObject
from antiphon.providers.anthropic.enforceable import resolved
from antiphon.providers.parameters import Parameters

_UNIONS: Final = ("oneOf", "anyOf", "allOf")
_PROPERTIES: Final = "properties"
_REQUIRED: Final = "required"


def object_schema(schema: JsonObject | None) -> JsonObject:
    """Return the schema as one of an object, which the input of a tool always is."""
    if schema is None:
        return {"type": "object", _PROPERTIES: {}}
    return schema if schema.get("type") == "object" else {**schema, "type": "object"}


def without_union(schema: JsonObject, parameters: Parameters) -> JsonObject:
    """Return the schema of an object without a union at its top. Raises `Unsupported` if the policy is to refuse."""
    unions = {name: schema[name] for name in _UNIONS if name in schema}
    if not unions:
        return schema
    made: dict[str, Any] = {name: value for name, value in schema.items() if name not in unions}
    properties = dict(_mapping(made.get(_PROPERTIES)))
    needed = list(_strings(made.get(_REQUIRED)))
    for name, value in unions.items():
        branches = [_resolved(one, schema) for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
        for key, one in _joined(branches).items():
            properties.setdefault(key, one)
        wanted = [set(_strings(branch.get(_REQUIRED))) for branch in branches]
        both = (set.union(*wanted) if name == "allOf" else set.intersection(*wanted)) if wanted else set()
        needed += sorted(both.difference(needed))
    made[_PROPERTIES] = properties
    if needed:
        made[_REQUIRED] = needed
    if parameters.mapped(("tools", "parameters"), "description", "the API has no union at the top of a schema"):
        described = (made.get("description"), orjson.dumps(unions).decode())
        made["description"] = "\n\n".join(text for text in described if isinstance(text, str) and text)
    return made


def _joined(branches: Iterable[JsonObject]) -> dict[str, Any]:
    """Return the properties of all branches. One that differs between them may be any of what it is."""
    found: dict[str, list[Any]] = {}
    for branch in branches:
        for key, value in _mapping(branch.get(_PROPERTIES)).items():
            if value not in found.setdefault(key, []):
                found[key].append(value)
    return {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in found.items()}


def _resolved(branch: JsonObject, root: JsonObject) -> JsonObject:
    name = branch.get("$ref")
    return (resolved(name, root) or branch) if isinstance(name, str) else branch


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
