"""JSON Schema in the form of the Gemini API."""

from antiphon.providers.gemini.schema import accepted


def test_keywords_that_are_not_known() -> None:
    """`$schema` is left out, and `const` is an `enum` of one, wherever a schema may be, and nowhere else."""
    const = {"const": "x"}
    enum = {"enum": ["x"], "type": "string"}
    assert accepted(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "const": const,
                "$schema": {"type": "string"},
                "n": {"const": None},
                "typed": {"type": "integer", "const": 1},
            },
            "anyOf": [const, True],
            "additionalProperties": False,
            "$defs": {"d": {"items": const}},
            "default": {"const": 1},
        }
    ) == {
        "type": "object",
        "properties": {
            "const": enum,
            "$schema": {"type": "string"},
            "n": {"enum": [None], "type": "null"},
            "typed": {"type": "integer", "enum": [1]},
        },
        "anyOf": [enum, True],
        "additionalProperties": False,
        "$defs": {"d": {"items": enum}},
        "default": {"const": 1},
    }


def test_references() -> None:
    """Nothing may be beside one, and definitions are in `$defs` alone."""
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/definitions/A", "description": "one", "default": None},
            "b": {"$ref": "#/$defs/B"},
            "definitions": {"type": "string"},
            "c": {"$ref": "#/$defs/B", "anyOf": [{"type": "object"}]},
        },
        "definitions": {"A": {"type": "string"}},
        "$defs": {"B": {"items": {"$ref": "#/definitions/A"}}},
    }
    assert accepted(schema) == {
        "type": "object",
        "properties": {
            "a": {"description": "one", "default": None, "anyOf": [{"$ref": "#/$defs/A"}]},
            "b": {"$ref": "#/$defs/B"},
            "definitions": {"type": "string"},
            "c": {"anyOf": [{"type": "object"}], "allOf": [{"$ref": "#/$defs/B"}]},
        },
        "$defs": {"A": {"type": "string"}, "B": {"items": {"$ref": "#/$defs/A"}}},
    }
    root = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}
    assert accepted(root) == root
