"""Tests of the forms of chat completions that other protocols do not have."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from antiphon.config import UnsupportedPolicy
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import ChatRequest, NativeFormat, NativeTool, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.anthropic.request import encode as encode_anthropic
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.cohere.request import encode as encode_cohere
from antiphon.providers.gemini.request import encode as encode_gemini
from antiphon.providers.parameters import Parameters
from antiphon.providers.registry import PROTOCOLS

CUSTOM = NativeTool({"type": "custom", "custom": {"name": "c"}})
OWN = {
    "anthropic": NativeTool({"type": "web_search_20250305", "name": "web_search"}),
    "bedrock": NativeTool({"systemTool": {"name": "nova_grounding"}}),
    "cohere": NativeTool({"type": "a_tool_of_tomorrow"}),
    "gemini": NativeTool({"googleSearch": {}}),
}
TOOLSET = NativeTool({"type": "browser_toolset_20260801"})
MODELS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "anthropic": ("claude-sonnet-4-5", encode_anthropic),
    "bedrock": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", encode_bedrock),
    "cohere": ("command-a-03-2025", encode_cohere),
    "gemini": ("gemini-3-flash", encode_gemini),
}
A = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
every = pytest.mark.parametrize("protocol", list(MODELS))


def encoded(protocol: str, policy: UnsupportedPolicy = "map", **fields: Any) -> tuple[dict[str, Any], Parameters]:
    model, encode = MODELS[protocol]
    parameters = Parameters("acme", policy)
    body = json.loads(encode(ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), stream=True, **fields), "acme", parameters))
    return body, parameters


def names(body: dict[str, Any]) -> list[str]:
    """Return the names of the functions that are offered."""
    if "contents" in body:
        return [one["name"] for tool in body.get("tools", []) for one in tool.get("functionDeclarations", [])]
    tools = body.get("toolConfig", body).get("tools", [])
    found = (tool.get("toolSpec", tool.get("function", tool)) for tool in tools)
    return [one["name"] for one in found if not one.keys().isdisjoint(("inputSchema", "input_schema", "parameters"))]


def choice(body: dict[str, Any]) -> Any:
    """Return the choice of tools in one word, with a name if there is one."""
    if "contents" in body:
        config = body.get("toolConfig", {}).get("functionCallingConfig", {})
        return {"ANY": config.get("allowedFunctionNames", ["any"])[0], "AUTO": "auto"}.get(config.get("mode"))
    if body.get("tool_choice") == "REQUIRED":
        return "any"
    found = body.get("tool_choice") or body.get("toolConfig", {}).get("toolChoice")
    if found is None or "type" in found:
        return None if found is None else found.get("name", found["type"])
    return found.get("tool", {}).get("name") or next(iter(found))


def test_every_protocol_is_here() -> None:
    """A new protocol has to be added, as it is asked for by chat completions, too. The others have these forms themselves."""
    assert MODELS.keys() == PROTOCOLS.keys() - {"echo", "openai", "openai-by-model", "openai-responses", "vertex"}


@every
def test_a_custom_tool_is_left_out(protocol: str) -> None:
    """The tools of the API itself stay."""
    native = ToolChoice(ToolChoiceMode.AUTO, native={"type": "custom", "custom": {"name": "c"}})
    body, parameters = encoded(protocol, tools=(Tool("f"), CUSTOM, OWN[protocol]), tool_choice=native)
    text = json.dumps(body)
    assert "custom" not in text
    assert names(body) == ["f"]
    assert any(name in text for name in ("web_search", "nova_grounding", "googleSearch", "a_tool_of_tomorrow"))
    assert choice(body) is None
    assert [warning.path for warning in parameters.warnings] == [("tool_choice",), ("tools",)]
    with pytest.raises(Unsupported):
        encoded(protocol, "refuse", tools=(CUSTOM,))


def test_a_set_of_tools_has_no_name() -> None:
    """It is Anthropic's own all the same."""
    assert encoded("anthropic", tools=(TOOLSET,))[0]["tools"] == [TOOLSET.fields]


@every
def test_a_named_function_with_other_fields(protocol: str) -> None:
    """It stays the choice. Cohere cannot name it, and gets no other."""
    native = {"type": "function", "function": {"name": "f", "x": 1}}
    body, _ = encoded(protocol, tools=(Tool("f"), Tool("g")), tool_choice=ToolChoice(ToolChoiceMode.TOOL, "f", native))
    assert (names(body), choice(body)) == ((["f"], "any") if protocol == "cohere" else (["f", "g"], "f"))


@every
@pytest.mark.parametrize(("mode", "expected"), [("auto", "auto"), ("required", "any")])
def test_allowed_tools(protocol: str, mode: str, expected: str) -> None:
    """Only these are offered. Cohere has no word for "auto"."""
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "g"}}, {"type": "function", "name": "h"}]}
    native = ToolChoice(ToolChoiceMode.AUTO, native={"type": "allowed_tools", "allowed_tools": allowed})
    tools = (Tool("f"), Tool("g"), Tool("h"), OWN[protocol])
    body, parameters = encoded(protocol, tools=tools, tool_choice=native)
    assert (names(body), choice(body)) == (["g", "h"], None if (protocol, mode) == ("cohere", "auto") else expected)
    assert [warning.replacement for warning in parameters.warnings] == ["tools"]
    body, _ = encoded(protocol, "drop", tools=tools[:3], tool_choice=native)
    assert (names(body), choice(body)) == (["f", "g", "h"], None)


@every
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"schema": A}},
        {"type": "json_schema", "schema": A},
    ],
)
def test_a_schema_without_a_name(protocol: str, form: dict[str, Any]) -> None:
    """It is a schema as any other."""
    body, parameters = encoded(protocol, response_format=NativeFormat(form))
    assert '"a"' in json.dumps(body).replace("\\", "")
    assert body.get("response_format", {}).get("type") != "json_schema"
    assert parameters.warnings == ()
