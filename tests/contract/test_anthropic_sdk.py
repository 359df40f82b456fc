"""The types of Anthropic's SDK, where it is installed: none is unknown here, and what is sent is of them."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest

from antiphon.domain.content import (
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.events import BlockStarted, CitationDelta, FinishReason
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, NativeTool, Reasoning, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.citations import citation_json
from antiphon.providers.anthropic.request import encode
from antiphon.providers.anthropic.response import AnthropicReader
from tests.odd_upstream import sse
from tests.unit.providers.anthropic.test_response import STOP, block, end, start

types = pytest.importorskip("anthropic.types.beta")
stable = pytest.importorskip("anthropic.types")
pydantic = pytest.importorskip("pydantic")

OPAQUE = {"container_upload", "fallback", "mcp_tool_listing"}
"""Blocks that are kept without being understood."""

FIELDS = {"text": "x", "thinking": "x", "signature": "x", "data": "x", "id": "x", "name": "x", "tool_use_id": "x", "input": {}}


def members(union: Any) -> Iterator[Any]:
    """Yield the members of a union of the SDK."""
    for one in get_args(union):
        if get_args(one) and not hasattr(one, "model_fields"):
            yield from members(one)
        elif hasattr(one, "model_fields"):
            yield one


def words(union: Any) -> set[str]:
    """Return the values of `type` of the members."""
    return {word for one in members(union) for word in get_args(one.model_fields["type"].annotation)}


def read(*events: dict[str, Any]) -> Any:
    reader = AnthropicReader(ChatRequest("m", (), stream=True), "p")
    return [*reader.feed(sse(*events)), *reader.end()]


def test_blocks() -> None:
    """Every kind of block is one of the domain's, but for those that are named here."""
    kinds = words(types.BetaContentBlock) | words(stable.ContentBlock)
    assert kinds
    for kind in kinds:
        first = next(
            event for event in read(start(), *block(0, type=kind, **FIELDS), end(), STOP) if isinstance(event, BlockStarted)
        )
        assert isinstance(first.value, Opaque) is (kind in OPAQUE), kind


def test_deltas_and_events() -> None:
    """Every delta and every event is known."""
    assert words(types.BetaRawContentBlockDelta) | words(stable.RawContentBlockDelta) == {
        "text_delta",
        "thinking_delta",
        "signature_delta",
        "input_json_delta",
        "citations_delta",
        "compaction_delta",
    }
    assert words(types.BetaRawMessageStreamEvent) | words(stable.RawMessageStreamEvent) == {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    }


def test_citations() -> None:
    """Every kind of citation is kept whole, and is written back as it was."""
    for one in {*members(types.BetaTextCitation), *members(stable.TextCitation)}:
        (kind,) = get_args(one.model_fields["type"].annotation)
        plain = {str: "x", int: 1}
        fields = {name: plain.get(field.annotation) for name, field in one.model_fields.items()} | {"type": kind}
        added = [{"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": fields}}]
        first, *_, last = block(0, type="text", text="x")
        events = read(start(), first, *added, last, end(), STOP)
        (citation,) = [event.citation for event in events if isinstance(event, CitationDelta)]
        assert citation_json(citation) == fields


def test_reasons() -> None:
    """Every reason to stop has its own in the domain."""
    reasons = {*get_args(types.BetaStopReason), *get_args(stable.StopReason)}
    assert reasons
    for word in reasons:
        assert read(start(), end(word), STOP)[-1].reason is not FinishReason.OTHER, word


def test_models() -> None:
    """Every model of the SDK can think, and the newest ones without a number of tokens."""
    models = {word for one in get_args(stable.Model) for word in get_args(one)}
    assert "claude-opus-5" in models
    for model in models:
        row = capabilities(model)
        assert row.structured_output, model
        assert row.max_output >= 64_000, model


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
OWN = Origin("anthropic", "acme", "m", "acme")
CITATION = Citation("https://x", "t", "x", fields={"type": "web_search_result_location", "encrypted_index": "E"})
NOT_FOUND = {"type": "web_fetch_tool_result_error", "error_code": "unavailable"}
CONVERSATION = (
    Message(Role.SYSTEM, (Text("s", extra=MARK),)),
    Message(
        Role.USER,
        (
            Text("hi"),
            Image(Media("data:image/png;base64,AA==")),
            Image(Media("https://x/y.png"), extra=MARK),
            Document(Media("data:application/pdf;base64,AA=="), "a.pdf", extra={"citations": {"enabled": True}}),
            Document(Media("data:text/plain;base64,eA==")),
            Document(Media("https://x/y.pdf")),
        ),
    ),
    Message(
        Role.ASSISTANT,
        (
            Thinking("t", state=State("sig")),
            RedactedThinking(state=State("R")),
            ServerToolCall("s", "server_tool_use", "web_fetch", "{}", state=State(fields={"caller": {"type": "direct"}})),
            ServerToolResult("s", "web_fetch_tool_result", state=State(fields={"content": NOT_FOUND})),
            Text("a", (CITATION,)),
            ToolCall("c1", "f.g", '{"a": 1}'),
            ToolCall("c2", "h", ""),
        ),
        origin=OWN,
    ),
    Message(Role.TOOL, (ToolResult("c1", (Text("1"), Image(Media("https://x/y.png"))), is_error=True),)),
    Message(Role.TOOL, (ToolResult("c2", (), extra=MARK),)),
    Message(Role.USER, (Text("go on"),)),
)


@pytest.mark.parametrize("model", ["claude-opus-5", "claude-sonnet-4-5", "claude-sonnet-5-5", "claude-fable-5"])
@pytest.mark.parametrize("effort", ["none", "minimal", "high", "max"])
@pytest.mark.parametrize("mode", [None, ToolChoiceMode.AUTO, ToolChoiceMode.NONE])
def test_requests(model: str, effort: str, mode: ToolChoiceMode | None) -> None:
    """What is sent is what the SDK's types describe, without any other field."""
    request = ChatRequest(
        model,
        CONVERSATION,
        stream=True,
        sampling=Sampling(max_tokens=5000, stop="x"),
        tools=(
            Tool("f.g", "d", {"type": "object"}, strict=True, extra=MARK),
            Tool("h"),
            NativeTool({"type": "web_search_20250305", "name": "web_search"}),
        ),
        tool_choice=None if mode is None else ToolChoice(mode),
        parallel_tool_calls=False,
        response_format=JsonSchemaFormat("n", {"type": "object", "properties": {}}),
        reasoning=Reasoning(effort),
        end_user="u",
    )
    body = json.loads(encode(request, "acme"))
    check(body, stable.message_create_params.MessageCreateParamsStreaming, stable.ContentBlockParam)


def test_a_compaction() -> None:
    """It goes back as a block of the beta."""
    reply = Message(Role.ASSISTANT, (Compaction("c", state=State("E")), Text("a")), origin=OWN)
    user = Message(Role.USER, (Text("x"),))
    request = ChatRequest("claude-opus-4-6", (user, reply, user), stream=True)
    body = json.loads(encode(request, "acme"))
    check(body, types.message_create_params.MessageCreateParamsStreaming, types.BetaContentBlockParam)


def check(body: dict[str, Any], kind: Any, block_kind: Any) -> None:
    """Assert that a body is valid, and that no field is lost by it.

    Blocks of replies are checked alone, because pydantic loses the lists of them: they may be of other types, too.
    """
    for message in body["messages"]:
        if message["role"] == "assistant" and isinstance(message["content"], list):
            for one in message["content"]:
                assert written(one, block_kind) == one
            message["content"] = "x"
    assert written(body, kind) == body


@cache
def adapter_of(kind: Any) -> Any:
    return pydantic.TypeAdapter(kind)


def written(value: Any, kind: Any) -> Any:
    adapter = adapter_of(kind)
    return json.loads(adapter.dump_json(adapter.validate_python(value)))
