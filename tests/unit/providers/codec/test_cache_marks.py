"""Tests of marks for the cache."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import ChatRequest, Tool
from antiphon.providers.anthropic.request import encode as encode_anthropic
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.parameters import Parameters

MARK = {"cache_control": {"type": "ephemeral"}}
MESSAGES = (
    Message(Role.SYSTEM, (Text("s", extra=MARK),)),
    Message(Role.USER, (Text("a", extra=MARK), Text("b", extra=MARK))),
    Message(Role.ASSISTANT, (Text("c", extra=MARK),)),
    Message(Role.USER, (Text("d", extra=MARK),)),
)
TOOLS = (Tool("f", extra=MARK),)
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def marked(body: dict[str, Any]) -> list[str]:
    """Return the tools and texts that are marked, or followed by a mark."""
    tools = body.get("tools") or body.get("toolConfig", {}).get("tools", [])
    system = body.get("system", [])
    parts: list[dict[str, Any]] = [*tools, *(system if isinstance(system, list) else [])]
    for message in body["messages"]:
        parts += message["content"] if isinstance(message["content"], list) else []
    names = [part.get("text") or part.get("name") or part.get("toolSpec", {}).get("name") for part in parts]
    own = [name for name, part in zip(names, parts, strict=True) if "cache_control" in part]
    return own + [str(names[at - 1]) for at, part in enumerate(parts) if "cachePoint" in part]


def test_claude_has_four() -> None:
    """The last ones count; one is the API's own if the request asks for it."""
    parameters = Parameters("acme")
    request = ChatRequest("claude-opus-5", MESSAGES, stream=True, tools=TOOLS)
    assert marked(json.loads(encode_anthropic(request, "acme", parameters))) == ["a", "b", "c", "d"]
    assert [warning.path for warning in parameters.warnings] == [("messages", "cache_control")]
    automatic = ChatRequest("claude-opus-5", MESSAGES, stream=True, tools=TOOLS, extra=MARK)
    made = json.loads(encode_anthropic(automatic, "acme"))
    assert (marked(made), made["cache_control"]) == (["b", "c", "d"], {"type": "ephemeral"})
    few = ChatRequest("claude-opus-5", MESSAGES[1:], stream=True)
    assert marked(json.loads(encode_anthropic(few, "acme", Parameters("acme", "refuse")))) == ["a", "b", "c", "d"]
    with pytest.raises(Unsupported):
        encode_anthropic(request, "acme", Parameters("acme", "refuse"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SONNET, ["a", "b", "c", "d"]),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", ["a", "b", "c", "d"]),
        ("us.amazon.nova-pro-v1:0", ["a", "b", "c", "d"]),
        ("us.meta.llama4-scout-17b-instruct-v1:0", []),
    ],
)
def test_bedrock(model: str, expected: list[str]) -> None:
    """The last four, of a model that has a cache."""
    parameters = Parameters("acme")
    request = ChatRequest(model, MESSAGES, stream=True, tools=TOOLS)
    assert marked(json.loads(encode_bedrock(request, "acme", parameters))) == expected
    assert ("messages", "cache_control") in [warning.path for warning in parameters.warnings]


def test_nova_has_none_among_tools() -> None:
    """Those of messages stay."""
    request = ChatRequest("us.amazon.nova-pro-v1:0", MESSAGES[3:], stream=True, tools=TOOLS)
    assert marked(json.loads(encode_bedrock(request, "acme"))) == ["d"]
    request = ChatRequest(SONNET, MESSAGES[3:], stream=True, tools=TOOLS)
    assert marked(json.loads(encode_bedrock(request, "acme", Parameters("acme", "refuse")))) == ["f", "d"]
