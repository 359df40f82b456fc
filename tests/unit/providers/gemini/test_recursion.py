"""Schemas that contain themselves, for the Gemini API."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest, JsonSchemaFormat
from antiphon.domain.warnings import Treatment
from antiphon.providers.gemini.recursion import without_required_cycles
from antiphon.providers.gemini.request import encode
from antiphon.providers.parameters import Parameters

NULL = {"type": "null"}


def node(reference: str, required: list[str]) -> dict[str, Any]:
    properties = {"value": {"type": "string"}, "next": {"anyOf": [{"$ref": reference}, NULL]}}
    return {"type": "object", "properties": properties, "required": required}


def test_a_list_that_is_required() -> None:
    """The property with the cycle is not required any more, at the root and in a definition."""
    assert without_required_cycles(node("#", ["value", "next"])) == node("#", ["value"])
    inner = "#/$defs/N"
    assert without_required_cycles({"$ref": inner, "$defs": {"N": node(inner, ["value", "next"])}}) == {
        "$ref": inner,
        "$defs": {"N": node(inner, ["value"])},
    }


def test_cycles_over_several_definitions() -> None:
    """What leads into a cycle from outside stays required, and so does what only looks like one."""
    tree = {"type": "object", "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Leaf"}}}, "required": ["items"]}
    leaf = {"type": "object", "properties": {"up": {"$ref": "#/$defs/Tree"}, "x": {"$ref": "#/$defs/X"}}, "required": ["up", "x"]}
    schema = {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}, "required": {"type": "string"}},
        "required": ["tree", "required"],
        "$defs": {"Tree": tree, "Leaf": leaf, "X": {"type": "string"}},
    }
    assert without_required_cycles(schema) == {
        **schema,
        "$defs": {"Tree": {**tree, "required": []}, "Leaf": {**leaf, "required": ["x"]}, "X": {"type": "string"}},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], "$defs": {"A": {"type": "string"}}},
        node("#", ["value"]),
        node("https://x.test/other", ["value", "next"]),
        {"$defs": True, "required": True, "properties": []},
        {},
    ],
)
def test_other_schemas(schema: dict[str, Any]) -> None:
    """They are as they were."""
    assert without_required_cycles(schema) is schema


def test_what_is_sent() -> None:
    """The caller is told; where nothing is mapped the reply is JSON without a schema."""
    form = JsonSchemaFormat("n", node("#", ["value", "next"]), strict=True)
    request = ChatRequest("gemini-3.8-flash", (Message(Role.USER, (Text("hi"),)),), stream=True, response_format=form)
    parameters = Parameters("acme")
    config = json.loads(encode(request, "acme", parameters))["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": node("#", ["value"])}
    assert [(one.path, one.treatment) for one in parameters.warnings] == [(("response_format",), Treatment.MAPPED)]
    dropping = json.loads(encode(request, "acme", Parameters("acme", "drop")))["generationConfig"]
    assert dropping == {"responseMimeType": "application/json"}
