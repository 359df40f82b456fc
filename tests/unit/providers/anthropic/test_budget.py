"""Tests of how many schemas Claude can be held to."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, Tool
from antiphon.providers.anthropic.budget import SchemaBudget
from antiphon.providers.anthropic.request import encode as encode_anthropic
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.parameters import Parameters

ENCODERS: dict[str, Callable[..., bytes]] = {
    "claude-sonnet-4-5": encode_anthropic,
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": encode_bedrock,
}


def schema(optional: int = 0, required: int = 1, several: int = 0) -> dict[str, Any]:
    """Return the schema of an object with so many parameters, of which `several` of the required ones may also be null."""
    properties: dict[str, Any] = {f"o{number}": {"type": "string"} for number in range(optional)}
    kinds = (["integer", "null"] if number < several else "integer" for number in range(required))
    properties |= {f"r{number}": {"type": kind} for number, kind in enumerate(kinds)}
    names = [f"r{number}" for number in range(required)]
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def sent(model: str, *tools: Tool, form: JsonSchemaFormat | None = None) -> tuple[list[bool], bool, list[str]]:
    """Return which tools are strict, whether a format is sent, and the reasons of the warnings."""
    parameters = Parameters("acme")
    request = ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), stream=True, tools=tools, response_format=form)
    body = json.loads(ENCODERS[model](request, "acme", parameters))
    offered = [tool.get("toolSpec", tool) for tool in body.get("toolConfig", body)["tools"]]
    config = body.get("output_config") or body.get("outputConfig") or {}
    return [tool.get("strict", False) for tool in offered], bool(config), [warning.reason for warning in parameters.warnings]


@pytest.mark.parametrize("model", list(ENCODERS))
def test_more_strict_tools_than_the_api_enforces(model: str) -> None:
    """All are offered. The first that fit are strict, and one warning says that others are not."""
    strict, _, reasons = sent(model, *(Tool(f"t{number}", None, schema(), strict=True) for number in range(50)))
    assert strict == [True] * 20 + [False] * 30
    assert len(reasons) == 1
    fat = Tool("fat", None, schema(optional=25), strict=True)
    strict, _, reasons = sent(
        model, fat, Tool("a", None, schema(optional=24), strict=True), Tool("b", None, schema(1), strict=True)
    )
    assert (strict, len(reasons)) == ([False, True, False], 1)
    several = Tool("s", None, schema(required=9, several=9), strict=True)
    assert sent(model, several, several)[0] == [True, False]


@pytest.mark.parametrize("model", list(ENCODERS))
def test_the_format_counts_first(model: str) -> None:
    """The tools have what it leaves. One that is too large is told to the model."""
    tool = Tool("a", None, schema(optional=5), strict=True)
    assert sent(model, tool, form=JsonSchemaFormat("n", schema(optional=20)))[:2] == ([False], True)
    strict, has_format, reasons = sent(model, tool, form=JsonSchemaFormat("n", schema(optional=30)))
    assert (strict, has_format, len(reasons)) == ([True], False, 1)


def test_parameters_within_others_count() -> None:
    """Those in lists, in branches and in definitions as well."""
    inner = {"type": "array", "items": schema(optional=13)}
    outer = {"type": "object", "properties": {"a": {"anyOf": [inner, {"type": "null"}]}}, "required": ["a"]}
    budget = SchemaBudget()
    assert budget.admits_tool({**outer, "$defs": {"d": schema(optional=11)}})
    assert not budget.admits_tool(schema(optional=1))
    assert budget.admits_tool(schema())
    assert not SchemaBudget().admits_format({**outer, "$defs": {"d": schema(optional=12)}})
    assert SchemaBudget().admits_format({"properties": [], "anyOf": {}, "required": 1, "items": True})
