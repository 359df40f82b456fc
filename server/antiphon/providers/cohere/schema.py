"""Brings a JSON schema into the form that Cohere's structured output accepts. No I/O.

https://docs.cohere.com/docs/structured-outputs#specifying-a-schema. The schema must be of an object, and each object needs a
required field. Limits that the API does not know are added to the description, which the model reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon.domain.content import JsonObject

NOT_ENFORCEABLE: Final = "the API has only objects with required fields, and no schemas made of others"
"""The reason for a warning."""

_LIMITS: Final = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)
_REFUSED: Final = frozenset({"allOf", "oneOf", "not", "patternProperties", "prefixItems", "if"})
"""Keywords without which a schema would allow something else."""
_FORMATS: Final = frozenset({"date-time", "uuid", "date", "time"})
_ADDITIONAL: Final = "additionalProperties"
_BY_NAME: Final = ("properties", "$defs", "definitions")


def is_enforceable(schema: JsonObject) -> bool:
    """Return whether the API can enforce a schema, apart from limits that can be described."""
    return schema.get("type") == "object" and _accepts(schema)


def _accepts(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return True
    if _REFUSED & schema.keys() or isinstance(schema.get(_ADDITIONAL), Mapping):
        return False
    if schema.get("type") == "object" and not schema.get("required"):
        return False
    inner = [one for name in _BY_NAME if isinstance(schema.get(name), Mapping) for one in schema[name].values()]
    branches = schema.get("anyOf")
    return all(map(_accepts, (*inner, schema.get("items"), *(branches if isinstance(branches, list) else ()))))


def reduced(schema: JsonObject) -> dict[str, Any]:
    """Return the schema without the limits that the API does not know, which are added to the description."""
    made: dict[str, Any] = {}
    limits: list[str] = []
    for name, value in schema.items():
        if name in _LIMITS or _is_unknown_text(name, value):
            limits.append(f"{name}: {orjson.dumps(value).decode()}")
        elif name in _BY_NAME and isinstance(value, Mapping):
            made[name] = {key: _inner(one) for key, one in value.items()}
        elif name == "anyOf" and isinstance(value, list):
            made[name] = [_inner(one) for one in value]
        elif name == "items":
            made[name] = _inner(value)
        elif name not in (_ADDITIONAL, "$schema"):
            made[name] = value
    if limits:
        parts = (made.get("description"), "{" + ", ".join(limits) + "}")
        made["description"] = "\n\n".join(part for part in parts if isinstance(part, str) and part)
    return made


def _inner(value: Any) -> Any:
    return reduced(value) if isinstance(value, Mapping) else value


def _is_unknown_text(name: str, value: object) -> bool:
    """Return whether a limit of a text is one that the API does not know: another format, or an expression with an anchor."""
    if name == "format":
        return value not in _FORMATS
    return name == "pattern" and isinstance(value, str) and any(mark in value for mark in ("^", "$", "?=", "?!"))
