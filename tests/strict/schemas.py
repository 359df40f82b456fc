"""What providers refuse of a JSON schema, of a tool or of an answer."""

from collections.abc import Iterator
from typing import Any

ANTHROPIC = frozenset(
    {
        *("type", "properties", "required", "items", "additionalProperties", "$ref", "$defs", "definitions", "anyOf", "allOf"),
        *("description", "title", "default", "enum", "const", "format", "minItems", "$schema"),
    }
)
GEMINI = frozenset(
    {
        *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems"),
        *("maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required", "default", "allOf"),
        *("propertyOrdering", "minLength", "maxLength", "pattern", "exclusiveMinimum", "exclusiveMaximum", "examples"),
        *(
            "multipleOf",
            "uniqueItems",
            "not",
            "minProperties",
            "maxProperties",
            "definitions",
            "discriminator",
            "if",
            "then",
            "else",
        ),
        *("patternProperties", "$comment"),
    }
)
NOT_COHERE = frozenset(
    {
        *("allOf", "oneOf", "not", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"),
        *("maxLength", "uniqueItems", "minProperties", "maxProperties", "maxItems", "patternProperties", "prefixItems"),
    }
)
"""Keywords that a schema of structured output may not have: https://docs.cohere.com/docs/structured-outputs."""


def parts(schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield a schema and all schemas within it, with their places."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for name in ("properties", "$defs", "definitions"):
        for key, inner in (schema.get(name) or {}).items():
            yield from parts(inner, f"{place}.{key}")
    for name in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(name, [])
        for one in inner if isinstance(inner, list) else [inner]:
            yield from parts(one, f"{place}.{name}")


def objects(schema: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield those that are more than `true` and `false`."""
    yield from ((at, part) for at, part in parts(schema, place) if isinstance(part, dict))


def anthropic_problems(schema: Any, place: str) -> Iterator[str]:
    """Yield what Anthropic does not accept of the schema of an answer, or of a strict tool."""
    yield from (f"{at}: no schema" for at, part in parts(schema, place) if not isinstance(part, dict | bool))
    for at, part in objects(schema, place):
        yield from (f"{at}: {name} is not supported" for name in part.keys() - ANTHROPIC)
        if part.get("minItems", 0) not in (0, 1):
            yield f"{at}: minItems"
        if (part.get("type") == "object" or "properties" in part) and part.get("additionalProperties") is not False:
            yield f"{at}: for 'object' type, 'additionalProperties' must be explicitly set to false"
        if any(isinstance(one, dict | list) for one in part.get("enum", ())):
            yield f"{at}: complex enum"
        if any("$ref" in inner for inner in part.get("allOf", ())):
            yield f"{at}: allOf with $ref is not supported"
    yield from reference_problems(schema, schema, place)


def reference_problems(schema: Any, root: Any, place: str, passed: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield which references lead nowhere, or back to where they are."""
    for at, part in objects(schema, place):
        if (name := part.get("$ref")) is None:
            continue
        target = root
        for step in name.removeprefix("#/").split("/") if name != "#" else ():
            target = target.get(step) if isinstance(target, dict) else None
        if name in passed or name == "#":
            yield f"{at}: recursive schemas are not supported"
        elif target is None:
            yield f"{at}: {name} does not resolve"
        else:
            yield from reference_problems(target, root, f"{at}>{name}", (*passed, name))


def cohere_problems(schema: Any, place: str) -> Iterator[str]:
    """Yield what Cohere does not accept of the schema of an answer, or of a strict tool."""
    for at, part in objects(schema, place):
        yield from (f"{at}: {name} is not supported" for name in part.keys() & NOT_COHERE)
        if part.get("minItems", 0) not in (0, 1):
            yield f"{at}: minItems"


def gemini_problems(schema: Any, place: str) -> Iterator[str]:
    """Yield what Gemini does not accept of any schema."""
    for at, part in objects(schema, place):
        yield from (f"{at}: {name} is not supported" for name in part.keys() - GEMINI)
        if "$ref" in part and any(not name.startswith("$") for name in part):
            yield f"{at}: there is more than a reference"


def openai_problems(schema: Any, place: str) -> Iterator[str]:
    """Yield what OpenAI does not accept of a strict schema."""
    for at, part in objects(schema, place):
        if part.get("type") == "object" and part.get("additionalProperties") is not False:
            yield f"{at}: 'additionalProperties' is required to be supplied and to be false."
        if part.get("type") == "object" and sorted(part.get("required", ())) != sorted(part.get("properties", ())):
            yield f"{at}: 'required' must include every key in properties."
