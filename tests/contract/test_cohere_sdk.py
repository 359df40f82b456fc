"""The types of Cohere's SDK: none is unknown here, and what is sent is of them."""

import json
from typing import Any, get_args

import pytest
from cohere.types import (
    AssistantMessageResponse,
    AssistantMessageResponseContentItem,
    ChatFinishReason,
    Citation,
    CitationType,
    Source,
    Usage,
)
from cohere.v2.client import V2Client
from cohere.v2.types import V2ChatResponse, V2ChatStreamResponse

from antiphon.domain.content import (
    Audio,
    Image,
    Media,
    Message,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import BlockStarted, CitationDelta, FinishReason
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, Reasoning, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.cohere.request import encode
from antiphon.providers.cohere.response import CohereReader
from tests.odd_upstream import sse
from tests.sdk_types import body_problems, words

EVENTS = {
    *("message-start", "message-end", "content-start", "content-delta", "content-end", "tool-plan-delta"),
    *("tool-call-start", "tool-call-delta", "tool-call-end", "citation-start"),
}
"""Events that say something."""

SILENT = {"citation-end", "debug"}
"""Events that are ignored: the first repeats the index of its start, the second is only for Cohere."""


def read(*events: dict[str, Any]) -> Any:
    reader = CohereReader(ChatRequest("m", (), stream=True), "p")
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}
    return [*reader.feed(sse(*events, end)), *reader.end()]


def test_events() -> None:
    """Every event is known."""
    assert words(V2ChatStreamResponse) == EVENTS | SILENT


def test_content() -> None:
    """Every kind of content is a block of its own."""
    kinds = words(AssistantMessageResponseContentItem)
    assert kinds == {"text", "thinking"}
    for kind in kinds:
        start = {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": kind, kind: ""}}}}
        (block,) = [event.value for event in read(start) if isinstance(event, BlockStarted)]
        assert isinstance(block, Text if kind == "text" else Thinking)


def test_fields() -> None:
    """Every field of a reply, its message and its usage has a place."""
    assert set(V2ChatResponse.model_fields) == {"id", "finish_reason", "message", "usage", "logprobs"}
    assert set(AssistantMessageResponse.model_fields) == {"role", "tool_calls", "tool_plan", "content", "citations"}
    assert set(Usage.model_fields) == {"billed_units", "tokens", "cached_tokens"}


def test_citations() -> None:
    """Every kind of source and of citation is kept whole."""
    assert set(Citation.model_fields) == {"start", "end", "text", "sources", "content_index", "type"}
    assert {*get_args(get_args(CitationType)[0])} == {"TEXT_CONTENT", "THINKING_CONTENT", "PLAN"}
    start = {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": "x"}}}}
    for kind in words(Source):
        source = {"type": kind, "id": "s", "document": {"title": "t"}, "tool_output": {"x": 1}}
        citation = {"start": 0, "end": 1, "text": "x", "sources": [source], "type": "TEXT_CONTENT"}
        events = read(start, {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}})
        (found,) = [event.citation for event in events if isinstance(event, CitationDelta)]
        assert found.fields["sources"] == [source]


def test_reasons() -> None:
    """Every reason to finish has its own in the domain, or is a failure."""
    reasons = set(get_args(get_args(ChatFinishReason)[0]))
    assert "COMPLETE" in reasons
    for word in reasons:
        reader = CohereReader(ChatRequest("m", (), stream=True), "p")
        data = sse({"type": "message-start"}, {"type": "message-end", "delta": {"finish_reason": word}})
        if word in ("ERROR", "TIMEOUT"):
            with pytest.raises(ProviderError):
                reader.feed(data)
        else:
            reader.feed(data)
            assert reader.end()[-1].reason is not FinishReason.OTHER, word  # type: ignore[union-attr]


OWN = Origin("cohere", "acme", "m", "acme")
PNG = Image(Media("data:image/png;base64,AA=="), "high")
CONVERSATION = (
    Message(Role.SYSTEM, (Text("s"),)),
    Message(Role.DEVELOPER, (Text("d"),)),
    Message(Role.USER, (Text("hi"), PNG)),
    Message(
        Role.ASSISTANT,
        (Thinking("p", field="tool_plan"), Thinking("t"), Text("a"), ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "h", "")),
        origin=OWN,
    ),
    Message(Role.TOOL, (ToolResult("c1", (Text("1"), Text("2")), is_error=True),)),
    Message(Role.TOOL, (ToolResult("c2", ()),)),
    Message(
        Role.ASSISTANT,
        (
            Thinking("t", state=State("sig")),
            RedactedThinking(state=State("R")),
            ServerToolCall("s", "server_tool_use", "web_search", "{}"),
            Refusal("no"),
            Audio(Media(), "a", "spoken"),
            PNG,
        ),
        origin=Origin("anthropic", "other", "m", "other"),
    ),
    Message(Role.USER, (Text("go on"),), name="Ann"),
)


@pytest.mark.parametrize("mode", [None, *ToolChoiceMode])
@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_requests(mode: ToolChoiceMode | None, effort: str | None) -> None:
    """What is sent is what the SDK's types describe, without any other field."""
    request = ChatRequest(
        "command-a-reasoning",
        CONVERSATION,
        stream=True,
        sampling=Sampling(temperature=0.5, top_p=0.5, top_k=3, max_tokens=50, stop="x", seed=1, presence_penalty=2.0),
        tools=(Tool("f", "d", {"type": "object"}, strict=True), Tool("h")),
        tool_choice=None if mode is None else ToolChoice(mode, "f" if mode is ToolChoiceMode.TOOL else None),
        parallel_tool_calls=False,
        response_format=JsonSchemaFormat("n", {"type": "object", "properties": {}}, "d"),
        reasoning=None if effort is None else Reasoning(effort),
        end_user="u",
    )
    body = json.loads(encode(request, "acme"))
    assert body.pop("stream") is True  # the SDK's method adds it
    assert body_problems(body, V2Client.chat_stream) == []
