"""JSON schemas in the form that Anthropic's structured output accepts."""

from typing import Any

import pytest

from antiphon.providers.anthropic.schema import reduced


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"type": "string", "format": "date", "minLength": 1},
            {"type": "string", "format": "date", "description": "{minLength: 1}"},
        ),
        ({"type": "string", "format": "odd"}, {"type": "string", "description": '{format: "odd"}'}),
        ({"type": "array", "minItems": 1, "maxItems": 5, "items": {"type": "integer", "maximum": 3}}, None),
        ({"oneOf": [{"const": 1}, True]}, {"anyOf": [{"const": 1}, True]}),
        ({"anyOf": [{"type": "null"}], "oneOf": []}, {"anyOf": [{"type": "null"}], "description": "{oneOf: []}"}),
        ({"type": "object", "additionalProperties": {"minimum": 1}}, None),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {}}}, "examples": [1]}, None),
        ({"minimum": 2**70}, {"description": f"{{minimum: {2**70}}}"}),
        ({"description": "a", "minimum": 1}, {"description": "a\n\n{minimum: 1}"}),
    ],
)
def test_reduced(schema: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """Limits go into the description, and nothing else is lost."""
    others: dict[str, Any] = {
        "array": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "integer", "description": "{maximum: 3}"},
            "description": "{maxItems: 5}",
        },
        "object": {"type": "object", "additionalProperties": {"description": "{minimum: 1}"}},
        "None": {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {}, "additionalProperties": False}}},
    }
    before = repr(schema)
    assert reduced(schema) == (others[str(schema.get("type"))] if expected is None else expected)
    assert repr(schema) == before, "the caller's schema is not changed"


def test_an_object_with_any_further_fields_gets_none() -> None:
    """The API refuses `additionalProperties: true`, at every level."""
    open_object = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}
    found = reduced({**open_object, "properties": {"a": open_object}})
    assert found["additionalProperties"] is False
    assert found["properties"]["a"]["additionalProperties"] is False
