"""Replies in the Responses API that hosts sent, where a folder of them is given by `ANTIPHON_RECORDED`: nothing of them is lost."""

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from antiphon import domain
from antiphon.domain.content import (
    Block,
    JsonObject,
    Message,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderRateLimited
from antiphon.domain.events import BlockProgress, CitationDelta, FinishReason, InputDelta, RefusalDelta, TextDelta, ThinkingDelta
from antiphon.domain.reply import Reply
from antiphon.providers.responses.item_json import item_of
from antiphon.providers.responses.messages import ResponsesEncoder
from antiphon.providers.responses.response import ResponsesReader
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = domain.ChatRequest("m", (), stream=True)
INPUT: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)

DELTAS = {
    "response.output_text.delta": TextDelta,
    "response.refusal.delta": RefusalDelta,
    "response.reasoning_summary_text.delta": ThinkingDelta,
    "response.reasoning_text.delta": ThinkingDelta,
    "response.function_call_arguments.delta": InputDelta,
    "response.custom_tool_call_input.delta": InputDelta,
    "response.mcp_call_arguments.delta": InputDelta,
    "response.code_interpreter_call_code.delta": InputDelta,
    "response.output_text.annotation.added": CitationDelta,
}
"""Events that each make one event of the domain."""

STRUCTURE = {
    "response.created",
    "response.in_progress",
    "response.queued",
    "response.completed",
    "response.incomplete",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.done",
    "response.refusal.done",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.reasoning_summary_text.done",
    "response.reasoning_text.done",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.done",
    "response.mcp_call_arguments.done",
    "response.code_interpreter_call_code.done",
}
"""Events that frame others, or repeat them. All else is progress."""

CREATED = '"type":"response.created"'


def streams(text: str) -> Iterator[list[str]]:
    """Return the streams of a file, which may have several, as their lines."""
    lines = [line for line in text.split("\n") if line.strip()]
    starts = [number for number, line in enumerate(lines) if CREATED in line]
    for start, end in itertools.pairwise([*starts, len(lines)]):
        yield lines[start:end]


def recorded(pattern: str) -> Iterator[Any]:
    """Files of the API, by their content."""
    for path in sorted(Path(FOLDER).glob(f"*/**/{pattern}")) if FOLDER else ():
        text = path.read_text()
        if path.suffix == ".json" and '"object": "response"' in text:
            yield pytest.param(text, id=f"{path.parent.parent.name}-{path.name}")
        if path.suffix == ".txt" and CREATED in text[:9000]:
            for number, lines in enumerate(streams(text)):
                yield pytest.param(lines, id=f"{path.parent.parent.name}-{path.name}-{number}")


def message(events: Iterable[domain.Event]) -> Message:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply.message()


def sse(lines: Iterable[str]) -> bytes:
    return b"".join(b"event: x\ndata: %b\n\n" % line.encode() for line in lines)


def read(data: bytes, size: int) -> list[domain.Event]:
    reader = ResponsesReader(REQUEST, "p")
    events: list[domain.Event] = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        if reader.failure is not None:
            raise reader.failure
        if reader.ending.done:
            break
    return [*events, *reader.end()]


def items(reply: Message) -> dict[int, JsonObject]:
    """Return the items of a reply by index, as they would be sent back if all of them could be."""
    groups: defaultdict[int, list[Block]] = defaultdict(list)
    for block in reply.blocks:
        assert block.state is not None
        assert block.state.item is not None
        groups[block.state.item].append(block)
    made = {index: item_of(blocks) for index, blocks in groups.items()}
    assert None not in made.values()
    return made  # type: ignore[return-value]


def without_logprobs(item: JsonObject) -> JsonObject:
    """Return an item without log probabilities, which are events of their own."""
    parts = [{**part, "logprobs": []} if part.get("logprobs") else part for part in item.get("content") or ()]
    return {**item, "content": parts} if parts else item


def check_sent_back(reply: Message) -> None:
    """Assert that the reply can be sent back: in order, as the SDK has it, with results of all calls."""
    results = [ToolResult(block.id, (Text("42"),)) for block in reply.blocks if isinstance(block, ToolCall)]
    sent = json.loads(json.dumps(ResponsesEncoder("p").encode([reply, Message(Role.TOOL, tuple(results))])))
    for at, item in enumerate(sent):
        if item.get("type") not in (
            "code_interpreter_call",
            "program_output",
            "web_search_call",
        ):  # hosts leave fields out that the SDK requires
            INPUT.validate_python(item)
        if item.get("type") == "reasoning":
            assert item["encrypted_content"]
            assert ("id" in item) == ("id" in sent[at + 1])
    calls = [item for item in sent if item.get("type") in ("function_call", "custom_tool_call")]
    outputs = [item for item in sent if item.get("type") in ("function_call_output", "custom_tool_call_output")]
    assert [call["call_id"] for call in calls] == [output["call_id"] for output in outputs]
    elsewhere = json.dumps(ResponsesEncoder("other").encode([reply]))
    for block in reply.blocks:
        if isinstance(block, RedactedThinking | Thinking | ServerToolCall) and block.state is not None:
            own = block.state.fields.get("item", {})
            for private in (block.state.opaque, own.get("id")):
                assert not private or private not in elsewhere


def check_usage(events: list[domain.Event], raw: dict[str, Any]) -> None:
    (usage,) = (event for event in events if isinstance(event, domain.Usage))
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (
        raw["input_tokens"],
        raw["output_tokens"],
        raw["total_tokens"],
    )
    assert usage.cached_tokens == raw["input_tokens_details"]["cached_tokens"]
    assert usage.reasoning_tokens == raw["output_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_stream(lines: list[str]) -> None:
    """Each of its events is accounted for, and each of its items is the same when it is sent back."""
    data = sse(lines)
    try:
        sent = [json.loads(line) for line in lines]
    except ValueError:
        with pytest.raises(ProviderProtocolError):
            read(data, 64)
        return
    if sent[-1]["type"] == "response.failed":
        with pytest.raises(ProviderRateLimited) as caught:
            read(data, 64)
        assert not caught.value.retryable
        return
    events = read(data, len(data))
    check(events)
    reply = message(events)
    for size in (7, 1021):
        assert message(read(data, size)) == reply
    by_type: defaultdict[Any, list[Any]] = defaultdict(list)
    for one in sent:
        if one["type"] in DELTAS:
            by_type[DELTAS[one["type"]]].append(one.get("delta"))
    for kind, deltas in by_type.items():
        made = [getattr(event, "text", None) for event in events if isinstance(event, kind)]
        written = "".join(filter(None, deltas))
        assert "".join(filter(None, made)).startswith(written) if kind is InputDelta else len(made) >= len(deltas)
    progress = [one for one in sent if one["type"] not in DELTAS and one["type"] not in STRUCTURE]
    assert len([event for event in events if isinstance(event, BlockProgress)]) == len(progress)
    found = items(reply)
    for one in sent:
        if one["type"] == "response.output_item.done":
            item = without_logprobs(one["item"])
            if found[one["output_index"]] != item:  # one file was shortened by hand: its end contradicts its deltas
                assert item["type"] == "message"
                assert str(found[one["output_index"]]["content"][0]["text"])[:20] == item["content"][0]["text"][:20]
    check_sent_back(reply)
    check_usage(events, sent[-1]["response"]["usage"])
    last = events[-1]
    assert isinstance(last, domain.Finished)
    assert last.provider_reason == "completed"
    has_calls = any(isinstance(block, ToolCall) for block in reply.blocks)
    assert (last.reason is FinishReason.TOOL_CALLS) == has_calls


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_cut_stream(lines: list[str]) -> None:
    """Cut anywhere, it is never a clean end."""
    data = sse(lines)
    for at in range(0, len(data) - 3, max(1, len(data) // 40)):
        with pytest.raises(ProviderError):
            read(data[:at], 4096)


@pytest.mark.parametrize("text", list(recorded("*.json")))
def test_a_whole_reply(text: str) -> None:
    """Each of its items is the same when it is sent back."""
    body = json.loads(text)
    events = ResponsesReader(REQUEST, "p").read_object(text.encode())
    check(events)
    reply = message(events)
    found = items(reply)
    assert [found[index] for index in range(len(body["output"]))] == list(map(without_logprobs, body["output"]))
    check_sent_back(reply)
    check_usage(events, body["usage"])
    texts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    assert "".join(block.text for block in reply.blocks if isinstance(block, Text | Refusal)) == "".join(
        part.get("text", "") for part in texts
    )
