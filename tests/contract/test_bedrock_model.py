"""AWS's own description of Bedrock's API, in botocore: nothing of it is unknown here, and what is sent follows it."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    Citation,
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
    Video,
)
from antiphon.domain.errors import ProviderError, ProviderUnavailable, Unsupported
from antiphon.domain.events import BlockProgress, BlockStarted, Finished, FinishReason
from antiphon.domain.request import (
    ChatRequest,
    JsonSchemaFormat,
    NativeTool,
    Reasoning,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.providers.bedrock.request import encode
from antiphon.providers.bedrock.response import BedrockReader
from docs.features import CONTENT, EFFORTS, OPTIONS, Feature
from tests.converse import problems, service
from tests.eventstream import exception, stream

REQUEST = ChatRequest("m", (), stream=True)
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}

SAMPLES: dict[str, Any] = {"string": "a", "integer": 1, "long": 1, "boolean": True, "blob": "YWI=", "float": 1.0, "double": 1.0}

OPAQUE = {
    "document",
    "video",
    "guardContent",
    "cachePoint",
    "searchResult",
    "toolAddition",
    "toolRemoval",
}
"""Blocks that are kept without being understood, if a model should send them."""

EVENTS = {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}


def sample(shape: Any, depth: int = 0) -> Any:
    """Return a value of a shape, with all of its fields; of a union, the first member."""
    match shape.type_name:
        case "structure" if getattr(shape, "is_document_type", False):
            return {}
        case "structure":
            members = list(shape.members.items())
            if getattr(shape, "is_tagged_union", False):
                members = members[:1]
            return {name: sample(inner, depth + 1) for name, inner in members} if depth < 8 else {}
        case "list":
            return [sample(shape.member, depth + 1)]
        case "map":
            return {"a": sample(shape.value, depth + 1)}
        case "string" if shape.enum:
            return shape.enum[0]
        case kind:
            return SAMPLES[kind]


def each(union: str) -> Iterable[tuple[str, Any]]:
    """Yield the name and a value of each member of a union."""
    for name, shape in service().shape_for(union).members.items():
        yield name, {name: sample(shape)}


def read(*events: dict[str, Any]) -> Any:
    reader = BedrockReader(REQUEST, "p")
    return [*reader.feed(stream(*events, {"messageStop": {"stopReason": "end_turn"}})), *reader.end()]


@pytest.mark.parametrize(("name", "block"), list(each("ContentBlock")), ids=lambda one: one if isinstance(one, str) else "")
def test_blocks(name: str, block: dict[str, Any]) -> None:
    """Every kind of block of a whole reply is one of the domain's, but for those that are named here."""
    body = {"output": {"message": {"role": "assistant", "content": [block]}}, "stopReason": "end_turn", "usage": {}}
    events = BedrockReader(REQUEST, "p").read_object(json.dumps(body).encode())
    (first,) = [one for one in events if isinstance(one, BlockStarted)]
    assert isinstance(first.value, Opaque) is (name in OPAQUE)


@pytest.mark.parametrize("union", ["ReasoningContentBlock"])
def test_inner_blocks(union: str) -> None:
    """The same within reasoning."""
    for name, inner in each(union):
        body = {"output": {"message": {"content": [{"reasoningContent": inner}]}}, "stopReason": "end_turn", "usage": {}}
        events = BedrockReader(REQUEST, "p").read_object(json.dumps(body).encode())
        (first,) = [one for one in events if isinstance(one, BlockStarted)]
        assert not isinstance(first.value, Opaque), name


def test_starts() -> None:
    """Every start of a block is known."""
    for name, start in each("ContentBlockStart"):
        events = read({"contentBlockStart": {"contentBlockIndex": 0, "start": start}})
        (first,) = [one for one in events if isinstance(one, BlockStarted)]
        assert not isinstance(first.value, Opaque), name


def test_deltas() -> None:
    """Every delta of a block is known, in its own kind of block."""
    starts = dict(each("ContentBlockStart"))
    reasoning = [(f"reasoning {name}", {"reasoningContent": inner}) for name, inner in each("ReasoningContentBlockDelta")]
    for name, delta in (*each("ContentBlockDelta"), *reasoning):
        begin = [{"contentBlockStart": {"contentBlockIndex": 0, "start": starts[name]}}] if name in starts else []
        events = read(*begin, {"contentBlockDelta": {"contentBlockIndex": 0, "delta": delta}})
        (first,) = [one for one in events if isinstance(one, BlockStarted)]
        assert not isinstance(first.value, Opaque), name
        assert not any(isinstance(one, BlockProgress) for one in events), name


def test_events() -> None:
    """Every event is known, and every exception has an error of its own."""
    members = service().shape_for("ConverseStreamOutput").members
    assert {name for name, shape in members.items() if not shape.metadata.get("exception")} == EVENTS
    for name in members.keys() - EVENTS:
        reader = BedrockReader(REQUEST, "p")
        with pytest.raises(ProviderError):
            reader.feed(exception(name, {"message": "x"}))
        assert reader.failure is not None
        assert reader.failure.status == members[name].metadata["error"]["httpStatusCode"], name


def test_reasons() -> None:
    """Every reason to stop has its own in the domain, or is a failure."""
    reasons = set(service().shape_for("StopReason").enum)
    assert "malformed_tool_use" in reasons
    for word in reasons:
        reader = BedrockReader(REQUEST, "p")
        if word.startswith("malformed_"):
            reader.feed(stream({"messageStop": {"stopReason": word}}))
            with pytest.raises(ProviderUnavailable):
                reader.end()
            continue
        reader.feed(stream({"messageStop": {"stopReason": word}}))
        finished = reader.end()[-1]
        assert isinstance(finished, Finished)
        assert finished.reason is not FinishReason.OTHER, word


def test_usage() -> None:
    """Every count is known; the members of citations are kept as they are."""
    assert set(service().shape_for("TokenUsage").members) == {
        "inputTokens",
        "outputTokens",
        "totalTokens",
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
        "cacheDetails",
    }
    assert set(service().shape_for("CacheTTL").enum) == {"5m", "1h"}
    assert set(service().shape_for("ConverseStreamMetadataEvent").members) == {
        "usage",
        "metrics",
        "trace",
        "performanceConfig",
        "serviceTier",
    }


def conversation(model: str) -> tuple[Message, ...]:
    """Return a conversation with everything that callers and models may send."""
    own = Origin("bedrock", "acme", model, "acme")
    citation = Citation("https://x", "t", "x", "s", fields={"location": {"web": {"domain": "x"}}})
    found = {"content": [{"json": {"x": 1}}], "status": "success"}
    png = Media("data:image/png;base64,AA==")
    return (
        Message(Role.SYSTEM, (Text("s", extra=MARK),)),
        Message(
            Role.USER,
            (
                Text("hi"),
                Image(png),
                Image(Media("s3://bucket/a.jpg"), extra=MARK),
                Document(Media("data:application/pdf;base64,AA=="), "a.b/c_d  e.pdf", extra={"citations": {"enabled": True}}),
                Document(Media("data:text/plain;base64,eA=="), "a.b/c_d  e.pdf"),
                Document(Media("s3://bucket/x.docx")),
                Audio(Media("data:audio/wav;base64,AA==")),
                Video(Media("data:video/3gpp;base64,AA==")),
                Opaque({"type": "guardContent", "guardContent": {"text": {"text": "x"}}}),
            ),
        ),
        Message(Role.ASSISTANT, (Text("a"), Text(" "), Image(png)), origin=own),
        Message(Role.USER, (Document(Media("data:text/csv;base64,eA==")),)),
        Message(
            Role.ASSISTANT,
            (
                Thinking("t", state=State("sig")),
                RedactedThinking(state=State("/+8=")),
                ServerToolCall("s", "server_tool_use", "nova_grounding", "{}"),
                ServerToolResult("s", "toolResult", state=State(fields=found)),
                Text("a", (citation,)),
                ToolCall("c 1", "f.g", '{"a": 1}'),
                ToolCall("x" * 80, "h" * 80, ""),
            ),
            origin=own,
        ),
        Message(Role.TOOL, (ToolResult("c 1", (Text("1"), Image(png)), is_error=True),)),
        Message(Role.TOOL, (ToolResult("x" * 80, (), extra=MARK),)),
        Message(Role.USER, (Text("go on"), Document(Media("data:text/html;base64,eA=="), "t"))),
        Message(Role.SYSTEM, (Text("late"),)),
    )


MODELS = (
    "us.anthropic.claude-opus-5-v1:0",
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "global.anthropic.claude-sonnet-5-5",
    "amazon.nova-2-lite-v1:0",
    "us.amazon.nova-pro-v1:0",
    "meta.llama3-3-70b-instruct-v1:0",
    "mistral.mistral-large-2407-v1:0",
    "openai.gpt-oss-120b-1:0",
    "qwen.qwen3-32b-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("effort", ["none", "minimal", "high", "max"])
@pytest.mark.parametrize("mode", [None, ToolChoiceMode.AUTO, ToolChoiceMode.NONE])
def test_requests(model: str, effort: str, mode: ToolChoiceMode | None) -> None:
    """What is sent is what the API's description allows, without any other field, and follows its rules on turns."""
    request = ChatRequest(
        model,
        conversation(model),
        stream=True,
        sampling=Sampling(max_tokens=5000, stop="x"),
        tools=(
            Tool("f.g", "d", {"type": "object"}, strict=True, extra=MARK),
            Tool("h" * 80),
            NativeTool({"systemTool": {"name": "nova_grounding"}}),
        ),
        tool_choice=None if mode is None else ToolChoice(mode),
        response_format=JsonSchemaFormat("n", {"type": "object", "properties": {}}, "d"),
        reasoning=Reasoning(effort),
        extra={
            "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1", "streamProcessingMode": "async"},
            "performanceConfig": {"latency": "optimized"},
            "requestMetadata": {"a": "b"},
            "additionalModelRequestFields": {"more": 1},
        },
    )
    body = json.loads(encode(request, "acme"))
    assert problems(model, body) == ""
    assert body["additionalModelRequestFields"]["more"] == 1


def test_the_checks_find_something() -> None:
    """What is wrong in a request is reported."""
    text = [{"text": "x"}]
    for body, what in (
        ({"messages": [{"role": "user", "content": text}], "new": 1}, "unknown"),
        ({"messages": [{"role": "user", "content": [{"text": "x", "image": {}}]}]}, "Invalid number of parameters"),
        ({"messages": [{"role": "user", "content": text}] * 2}, "alternate"),
        ({"messages": [{"role": "assistant", "content": text}]}, "first"),
        ({"messages": [{"role": "user", "content": []}]}, "empty"),
        ({"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "?", "content": []}}]}]}, "toolUseId is '?'"),
    ):
        assert what in problems("m", body), what


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feature", [*OPTIONS, *EFFORTS, *CONTENT], ids=lambda feature: feature.title)
def test_whatever_is_asked_the_request_is_valid(model: str, feature: Feature) -> None:
    """With any feature a request is one that the API's description allows, unless it is refused here."""
    try:
        body = json.loads(encode(replace(feature.asked, model=model), "acme"))
    except Unsupported:
        return
    assert problems(model, body) == ""
