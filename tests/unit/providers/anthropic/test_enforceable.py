"""Which schemas structured output can enforce."""

from typing import Any

import pytest
from pydantic import BaseModel

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, Tool
from antiphon.providers.anthropic.enforceable import is_enforceable, resolved
from antiphon.providers.anthropic.request import encode
from antiphon.providers.parameters import Parameters

STRING = {"type": "string"}
STEP = {"type": "object", "properties": {"text": STRING}}


class Node(BaseModel):
    """A schema that contains itself."""

    children: list["Node"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        STEP,
        {"type": "array", "items": STEP},
        {**STEP, "additionalProperties": True},
        {"type": "object", "additionalProperties": False},
        {"$defs": {"S": STEP}, "properties": {"a": {"$ref": "#/$defs/S"}, "b": {"$ref": "#/$defs/S"}}},
        {"$defs": {"a/b": STEP}, "$ref": "#/$defs/a~1b"},
        {"anyOf": [STEP, {"type": "null"}]},
    ],
)
def test_enforceable(schema: dict[str, Any]) -> None:
    """Objects with named keys, and references that lead to them, can be enforced."""
    assert is_enforceable(schema)


@pytest.mark.parametrize(
    "schema",
    [
        Node.model_json_schema(),
        {"type": "object", "properties": {"self": {"$ref": "#"}}},
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"properties": {"counts": {"type": "object", "additionalProperties": {"type": "integer"}}}},
        {"type": "array", "items": {"patternProperties": {"^x": STRING}}},
        {"anyOf": [{"type": "null"}, {"type": "object"}]},
        {"$defs": {"S": STEP}, "properties": {"a": {"allOf": [{"$ref": "#/$defs/S"}]}}},
        {"properties": {"a": {"$ref": "https://example.com/schema"}}},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"properties": {"a": {"$ref": 7}}},
    ],
)
def test_not_enforceable(schema: dict[str, Any]) -> None:
    """Recursion, keys of any name and references that lead nowhere cannot."""
    assert not is_enforceable(schema)


def test_many_references() -> None:
    """Each definition is visited once, however often it is referred to."""
    definitions: dict[str, Any] = {"d0": STEP}
    for number in range(1, 60):
        reference = {"$ref": f"#/$defs/d{number - 1}"}
        definitions[f"d{number}"] = {"properties": {"a": reference, "b": reference}}
    assert is_enforceable({"$defs": definitions, "$ref": "#/$defs/d59"})


def test_resolved() -> None:
    """A reference is resolved within its schema only."""
    assert resolved("#", STEP) == STEP
    assert resolved("#/properties/text", STEP) == STRING
    assert resolved("#/properties/text/type", STEP) is None


def test_what_is_told_instead() -> None:
    """A format that cannot be enforced is an instruction, and such a tool is not strict; both are reported."""
    parameters = Parameters("acme")
    schema = Node.model_json_schema()
    messages = (Message(Role.SYSTEM, (Text("Be brief."),)), Message(Role.USER, (Text("hi"),)))
    form = JsonSchemaFormat("n", schema, "A tree.", strict=True)
    tools = (Tool("f", parameters=schema, strict=True),)
    made = encode(ChatRequest("claude-sonnet-4-5", messages, stream=True, response_format=form, tools=tools), "acme", parameters)
    assert b"output_config" not in made
    assert b"A tree." in made
    assert b'"strict"' not in made
    assert b'"system":[{"type":"text","text":"Be brief."},{"type":"text","text":"Reply with JSON' in made
    assert [(warning.path, warning.treatment.value) for warning in parameters.warnings] == [
        (("response_format",), "mapped"),
        (("tools", "strict"), "dropped"),
    ]
    dropped = Parameters("acme", "drop")
    encode(ChatRequest("claude-sonnet-4-5", messages, stream=True, response_format=form), "acme", dropped)
    assert [warning.treatment.value for warning in dropped.warnings] == ["dropped"]
