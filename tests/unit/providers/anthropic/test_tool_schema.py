"""The schema of a tool's input is that of one object."""

from typing import Any

import pytest

from antiphon.domain.errors import Unsupported
from antiphon.providers.anthropic.tool_schema import object_schema, without_union
from antiphon.providers.parameters import Parameters

STRING, NUMBER = {"type": "string"}, {"type": "number"}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "name": STRING}, "required": ["kind", "name"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "name": STRING, "age": NUMBER}, "required": ["kind"]}


def test_object_schema() -> None:
    """A tool without a schema takes no arguments, and any other takes an object."""
    assert object_schema(None) == {"type": "object", "properties": {}}
    assert object_schema({}) == {"type": "object"}
    assert object_schema({"type": ["object", "null"], "properties": {"a": STRING}}) == {
        "type": "object",
        "properties": {"a": STRING},
    }
    assert object_schema(CAT) is CAT


def test_no_union() -> None:
    """A schema without one is sent as it is, without a warning."""
    parameters = Parameters("acme", "refuse")
    assert without_union(CAT, parameters) is CAT


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
def test_one_of_several(keyword: str) -> None:
    """The object has the properties of all branches, and needs those that all of them need."""
    parameters = Parameters("acme")
    schema = {"type": "object", "$defs": {"Dog": DOG}, keyword: [CAT, {"$ref": "#/$defs/Dog"}]}
    made = without_union(schema, parameters)
    assert made["properties"] == {"kind": {"anyOf": [{"const": "cat"}, {"const": "dog"}]}, "name": STRING, "age": NUMBER}
    assert made["required"] == ["kind"]
    assert keyword not in made
    assert keyword in made["description"]
    assert [(warning.path, warning.replacement) for warning in parameters.warnings] == [(("tools", "parameters"), "description")]


def test_at_least_one() -> None:
    """Branches that only say what is needed leave the properties as they are."""
    limits = [{"required": ["a"]}, {"required": ["b"]}]
    schema = {"type": "object", "description": "A search.", "properties": {"a": STRING, "b": STRING}, "anyOf": limits}
    made = without_union(schema, Parameters("acme"))
    assert made["properties"] == schema["properties"]
    assert "required" not in made
    assert made["description"].startswith("A search.\n\n")


def test_all_of_several() -> None:
    """What any branch needs is needed, and the schema's own properties count first."""
    schema = {"type": "object", "properties": {"name": NUMBER}, "required": ["id"], "allOf": [CAT, DOG]}
    made = without_union(schema, Parameters("acme"))
    assert made["required"] == ["id", "kind", "name"]
    assert made["properties"]["name"] == NUMBER


@pytest.mark.parametrize("union", [None, [], "x", [True, 7], [{"properties": 7, "required": "a"}]])
def test_odd_unions(union: Any) -> None:
    """What is no list of schemas is left out."""
    assert without_union({"type": "object", "anyOf": union}, Parameters("acme"))["properties"] == {}


def test_policy() -> None:
    """The union is left out or refused if the operator says so."""
    schema = {"type": "object", "anyOf": [CAT]}
    dropped = Parameters("acme", "drop")
    assert "description" not in without_union(schema, dropped)
    assert [warning.treatment.value for warning in dropped.warnings] == ["dropped"]
    with pytest.raises(Unsupported):
        without_union(schema, Parameters("acme", "refuse"))
