"""Tests of names and ids that a host refuses: they are replaced in the request, and put back in the reply."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Origin, Role, Text, ToolCall, ToolResult
from antiphon.domain.events import BlockStarted, InputDelta
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, NativeTool, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.openai.capabilities import UNKNOWN, HostCapabilities, capabilities_of
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta, sse

NAME = "my.tool/ns:x"
LONG = "toolu_" + "x" * 60
SCHEMA = {"type": "object", "properties": {}}
REQUEST = ChatRequest(
    "m",
    (
        Message(Role.USER, (Text("hi"),)),
        Message(Role.ASSISTANT, (ToolCall(LONG, NAME, "{}"), ToolCall("c2", "plain", "{}")), origin=Origin("anthropic", "other")),
        Message(Role.TOOL, (ToolResult(LONG, (Text("1"),)), ToolResult("c2", (Text("2"),)))),
    ),
    stream=True,
    tools=(Tool(NAME, None, SCHEMA), Tool("plain", None, SCHEMA), NativeTool({"type": "custom", "custom": {"name": "sql"}})),
    tool_choice=ToolChoice(ToolChoiceMode.TOOL, NAME),
    response_format=JsonSchemaFormat("a b", SCHEMA),
)
HOSTS = ("openai", "azure", "mistral", "deepseek", "moonshot", "xai", "groq", "cerebras", "openrouter", "anthropic")


def sent(host: HostCapabilities) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(REQUEST, "acme", stream_usage=False, host=host))
    return body


@pytest.mark.parametrize("host", HOSTS)
def test_names_that_the_host_refuses(host: str) -> None:
    """The same replacement everywhere in the request; names that the host accepts stay, and so do those of custom tools."""
    body = sent(capabilities_of(host, None))
    name = body["tools"][0]["function"]["name"]
    assert name != NAME
    assert name.replace("_", "").replace("-", "").isalnum()
    assert body["tools"][1]["function"]["name"] == "plain"
    assert body["tools"][2]["custom"]["name"] == "sql"
    assert body["tool_choice"]["function"]["name"] == name
    calls = body["messages"][1]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == [name, "plain"]
    assert [result["tool_call_id"] for result in body["messages"][2:4]] == [call["id"] for call in calls]
    if "response_format" in body and body["response_format"]["type"] == "json_schema":
        assert " " not in body["response_format"]["json_schema"]["name"]


def test_names_that_the_host_accepts() -> None:
    """Google's endpoint takes more names than OpenAI; of an unknown host nothing is known."""
    assert sent(UNKNOWN)["tools"][0]["function"]["name"] == NAME
    assert sent(capabilities_of("gemini", None))["tools"][0]["function"]["name"].startswith("my.tool_ns:x_")


@pytest.mark.parametrize(("host", "length"), [("openai", 37), ("azure", 37), ("openrouter", 37), ("mistral", 9), ("groq", 66)])
def test_call_ids(host: str, length: int) -> None:
    """OpenAI refuses ids of more than 40 characters, which other providers make; a call and its result keep the same one."""
    messages = sent(capabilities_of(host, None))["messages"]
    assert len(messages[1]["tool_calls"][0]["id"]) == length
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]
    assert len(messages[1]["tool_calls"][1]["id"]) == (9 if host == "mistral" else 2)


@pytest.mark.parametrize("pieces", [1, 2])
def test_names_in_the_reply(pieces: int) -> None:
    """The caller reads its own name, also where the host sends it in pieces."""
    host = capabilities_of("openai", None)
    name = sent(host)["tools"][0]["function"]["name"]
    cut = len(name) // pieces
    call = {"index": 0, "id": "c", "type": "function"}
    deltas = [delta(tool_calls=[{**call, "function": {"name": name[:cut], "arguments": ""}}])]
    if name[cut:]:
        deltas.append(delta(tool_calls=[{"index": 0, "function": {"name": name[cut:]}}]))
    deltas.append(delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]))
    reader = OpenAIReader(REQUEST, "acme", host.names)
    events = [*reader.feed(sse(*deltas, delta(finish="tool_calls"))), *reader.end()]
    started = [event.value for event in events if isinstance(event, BlockStarted)]
    assert started == [ToolCall("c", NAME, "")]
    assert [event.text for event in events if isinstance(event, InputDelta)] == ["{}"]

    whole = {**call, "function": {"name": name, "arguments": "{}"}}
    body = {"id": "x", "choices": [{"message": {"content": None, "tool_calls": [whole]}, "finish_reason": "tool_calls"}]}
    events = OpenAIReader(REQUEST, "acme", host.names).read_object(json.dumps(body).encode())
    assert [event.value for event in events if isinstance(event, BlockStarted)] == [ToolCall("c", NAME, "")]


@pytest.mark.parametrize("address", ["https://eu.openai.azure.com/openai/v1", "https://x.services.ai.azure.com/openai/v1"])
def test_azure_under_any_name(address: str) -> None:
    assert capabilities_of("mine", address) is capabilities_of("azure", None)
