"""Long conversations with Bedrock over a real socket: what it signed comes back to it byte for byte, and to nobody else."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon import domain
from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Role, Text, ToolCall, ToolResult
from antiphon.domain.reply import collect
from antiphon.providers.base import Provider
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.registry import build
from antiphon.rest.openai.reply import completion
from antiphon.rest.openai.request import ChatCompletionBody, request_from_body
from tests.converse import ConverseUpstream

CLAUDE = "us.anthropic.claude-opus-4-6-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
TOOLS = (domain.Tool("look up", "finds", {"type": "object"}, strict=True), domain.Tool("f"))
TURNS = 20


@pytest.fixture
async def upstream() -> AsyncIterator[ConverseUpstream]:
    async with ConverseUpstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: ConverseUpstream) -> AsyncIterator[Provider]:
    made = build("acme", ProviderConfig(protocol="bedrock", base_url=upstream.url, api_key_env="KEY"), {"KEY": "sesame"})
    yield made
    await made.close()


def signed(kind: str, number: int) -> str:
    """Return a signature in base64, with all of its characters."""
    return base64.b64encode(f"{kind} {number} ".encode() + bytes(range(240, 256))).decode()


def turn(number: int) -> list[dict[str, Any]]:
    """Return a reply that thinks, also between its text and its calls.

    Every third has redacted reasoning, too, and every fourth thought has no text.
    """
    thought = {"text": "" if number % 4 == 0 else f"Hm {number}.\n ", "signature": signed("thought", number)}
    redacted = [{"reasoningContent": {"redactedContent": signed("redacted", number)}}] if number % 3 == 0 else []
    calls = [{"toolUse": {"toolUseId": f"tooluse_{number}", "name": "f", "input": {"n": number}}}]
    if number % 2:
        calls.append({"toolUse": {"toolUseId": f"tooluse_{number}b", "name": NAMES.sent("look up"), "input": {}}})
    between = [{"reasoningContent": {"reasoningText": {"text": "And so.", "signature": signed("between", number)}}}]
    return [{"reasoningContent": {"reasoningText": thought}}, *redacted, {"text": f"Step {number}"}, *between, *calls]


def script(upstream: ConverseUpstream) -> None:
    """Answer each request with the turn of its number, and check that all turns before it came back unchanged."""

    def reply(request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        replies = [message["content"] for message in request["messages"] if message["role"] == "assistant"]
        for number, content in enumerate(replies):
            if content != turn(number):
                upstream.refused.append(f"turn {number} has changed: {content}")
        return (turn(len(replies)), "tool_use") if len(replies) < TURNS else ([{"text": "done"}], "end_turn")

    upstream.reply = reply


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_turns_of_calls(upstream: ConverseUpstream, provider: Provider, stream: bool) -> None:
    """Twenty turns of parallel calls, with reasoning between them: each request is valid, and each turn comes back as it was."""
    script(upstream)
    messages = [Message(Role.USER, (Text("go"),))]
    for _ in range(TURNS + 1):
        reply = await collect(provider.stream(domain.ChatRequest(CLAUDE, tuple(messages), stream=stream, tools=TOOLS)))
        message = reply.message()
        messages.append(message)
        calls = [block for block in message.blocks if isinstance(block, ToolCall)]
        assert {call.name for call in calls} <= {"f", "look up"}
        messages += [Message(Role.TOOL, (ToolResult(call.id, (Text("r"),), is_error=call.name == "f"),)) for call in calls]
    assert messages[-1].blocks == (Text("done"),)
    assert len(upstream.requests) == TURNS + 1
    assert upstream.refused == []


async def test_turns_through_chat_completions(upstream: ConverseUpstream, provider: Provider) -> None:
    """The same by a client of chat completions, which sends back what it was sent."""
    script(upstream)
    sent: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("look up", "f")]
    for _ in range(TURNS + 1):
        body = ChatCompletionBody.model_validate({"model": CLAUDE, "messages": sent, "tools": tools})
        request = request_from_body(body, stream=True)
        message = completion(await collect(provider.stream(request)))["choices"][0]["message"]
        sent.append(json.loads(json.dumps(message)))
        sent += [{"role": "tool", "tool_call_id": call["id"], "content": "r"} for call in message.get("tool_calls") or ()]
        if not message.get("tool_calls"):
            break
    assert message["content"] == "done"
    assert upstream.refused == []


async def test_another_model(upstream: ConverseUpstream, provider: Provider) -> None:
    """A model of another maker, behind the same host, gets the conversation without what the first one signed."""
    script(upstream)
    first = await collect(
        provider.stream(domain.ChatRequest(CLAUDE, (Message(Role.USER, (Text("go"),)),), stream=True, tools=TOOLS))
    )
    upstream.reply = lambda _: ([{"text": "done"}], "end_turn")
    messages = (Message(Role.USER, (Text("go"),)), first.message(), Message(Role.TOOL, (ToolResult("tooluse_0", (Text("r"),)),)))
    await collect(provider.stream(domain.ChatRequest(NOVA, messages, stream=True, tools=TOOLS)))
    body = upstream.requests[-1].body.decode()
    assert "Step 0" in body
    assert not any(signed(kind, 0) in body for kind in ("thought", "redacted", "between"))
    assert "reasoningContent" not in body


async def test_another_provider(upstream: ConverseUpstream, provider: Provider) -> None:
    """So does a host of the same protocol under another name."""
    script(upstream)
    first = await collect(
        provider.stream(domain.ChatRequest(CLAUDE, (Message(Role.USER, (Text("go"),)),), stream=True, tools=TOOLS))
    )
    upstream.reply = lambda _: ([{"text": "done"}], "end_turn")
    other = build("other", ProviderConfig(protocol="bedrock", base_url=upstream.url, api_key_env="KEY"), {"KEY": "sesame"})
    messages = (Message(Role.USER, (Text("go"),)), first.message(), Message(Role.TOOL, (ToolResult("tooluse_0", (Text("r"),)),)))
    await collect(other.stream(domain.ChatRequest(CLAUDE, messages, stream=True, tools=TOOLS)))
    await other.close()
    assert "reasoningContent" not in upstream.requests[-1].body.decode()
    assert upstream.refused == []
