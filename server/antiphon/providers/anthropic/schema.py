"""Reduces JSON schemas to what Anthropic's structured output accepts. No I/O.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations. The API refuses a schema with any
other keyword. Limits such as `maximum` are left out: they are then not enforced, but added to the description, which the model
reads. Schemas of tools that are not strict may have any keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon.domain.content import JsonObject
from antiphon.providers.parameters import Parameters

_KEPT: Final = frozenset(
    {
        "$schema",
        "type",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "$ref",
        "$defs",
        "definitions",
        "anyOf",
        "allOf",
        "description",
        "title",
        "default",
        "enum",
        "const",
    }
)
_FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_BY_NAME: Final = frozenset({"properties", "$defs", "definitions"})
"""Keywords whose values are objects of schemas."""
_LISTS: Final = frozenset({"anyOf", "allOf"})
"""Keywords whose values are lists of schemas."""
_SILENT: Final = frozenset({"$id", "$comment", "examples", "readOnly", "writeOnly", "deprecated", "strict"})
"""Keywords that limit nothing, and so are not added to the description."""


def enforced(schema: JsonObject, path: tuple[str, ...], parameters: Parameters) -> JsonObject:
    """Return the schema at `path` of a request in the form that the API accepts. Limits that it does not enforce are reported.

    Raises `Unsupported` if the policy is to refuse.
    """
    described, bare = reduced(schema), reduced(schema, describes=False)
    if described == bare or not parameters.mapped(path, "description", "the API does not enforce all keywords of the schema"):
        return bare
    return described


def reduced(schema: JsonObject, *, describes: bool = True) -> dict[str, Any]:
    """Return the schema with the accepted keywords only. Objects get `additionalProperties: false`, which the API requires.

    `describes`: the others are added to the description, as far as they limit anything.
    """
    result: dict[str, Any] = {}
    limits: list[str] = []
    for keyword, value in schema.items():
        name = "anyOf" if keyword == "oneOf" and "anyOf" not in schema else keyword
        if name == "additionalProperties" and value is True:
            limits.append("additionalProperties: true")  # the API has false alone
        elif name in _BY_NAME and isinstance(value, Mapping):
            result[name] = {key: _inner(one, describes=describes) for key, one in value.items()}
        elif name in _LISTS and isinstance(value, list):
            result[name] = [_inner(one, describes=describes) for one in value]
        elif name in _KEPT:
            result[name] = _inner(value, describes=describes) if name in ("items", "additionalProperties") else value
        elif (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1)):
            result[name] = value
        elif name not in _SILENT:
            limits.append(f"{keyword}: {_text(value)}")
    if limits and describes:
        parts = (result.get("description"), "{" + ", ".join(limits) + "}")
        result["description"] = "\n\n".join(part for part in parts if isinstance(part, str) and part)
    if result.get("type") == "object" or "properties" in result:
        result.setdefault("additionalProperties", False)
    return result


def _inner(value: Any, *, describes: bool) -> Any:
    """Return a schema within a schema. `true` and `false` are schemas, too."""
    return reduced(value, describes=describes) if isinstance(value, Mapping) else value


def _text(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return str(value)
