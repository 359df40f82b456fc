"""Replies that Bedrock sent, where a folder of them is given by `ANTIPHON_RECORDED`: none is cut, changed or doubled."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.content import Message, Role, Text, Thinking, ToolCall, ToolResult
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import BlockFinished, BlockStarted, ExtraFields, Finished, InputDelta, Started, TextDelta, ThinkingDelta
from antiphon.domain.reply import Reply
from antiphon.providers.bedrock.messages import BedrockEncoder
from antiphon.providers.bedrock.response import BedrockReader
from antiphon.rest.openai.reply import completion
from tests.eventstream import stream
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
REQUEST = domain.ChatRequest(MODEL, (), stream=True)


def recorded(pattern: str) -> Iterator[Any]:
    """Files of Bedrock's replies."""
    for path in sorted(Path(FOLDER, "amazon-bedrock").glob(pattern)) if FOLDER else ():
        yield pytest.param(path.read_text(), id=path.name)


def events_in(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.split("\n") if line[:1] == "{"]


def fold(events: list[domain.Event]) -> Reply:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply


def read(data: bytes, size: int) -> list[domain.Event]:
    reader = BedrockReader(REQUEST, "p")
    events: list[domain.Event] = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        assert reader.failure is None
        if reader.ending.done:
            break
    return [*events, *reader.end()]


def added_up(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the content of a stream, each block as it is in a whole reply."""
    blocks: dict[int, dict[str, Any]] = {}
    for one in sent:
        match one:
            case {"contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": call}}}:
                blocks[index] = {"toolUse": {**call, "input": ""}}
            case {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"text": text}}}:
                blocks.setdefault(index, {"text": ""})["text"] += text
            case {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"toolUse": {"input": text}}}}:
                blocks[index]["toolUse"]["input"] += text
            case {"contentBlockDelta": {"contentBlockIndex": index, "delta": {"reasoningContent": piece}}}:
                thought = blocks.setdefault(index, {"reasoningContent": {"reasoningText": {"text": ""}}})
                for name, text in piece.items():
                    inner = thought["reasoningContent"]["reasoningText"]
                    inner[name] = inner.get(name, "") + text
            case {"contentBlockStart": {"start": {}}} | {"contentBlockStop": _} | {"messageStart": _}:
                pass
            case {"messageStop": _} | {"metadata": _}:
                pass
            case _:
                pytest.fail(f"unknown: {one}")
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"] or "{}")
    return [blocks[index] for index in sorted(blocks)]


def written(reply: Message) -> list[dict[str, Any]]:
    """Return the content of a reply as it is sent back. Its calls have results."""
    results = tuple(ToolResult(block.id, (Text("y"),)) for block in reply.blocks if isinstance(block, ToolCall))
    turns = [Message(Role.USER, (Text("x"),)), reply]
    encoder = BedrockEncoder("p", MODEL, system_turns=False, has_tools=True)
    encoder.encode([*turns, Message(Role.TOOL, results)] if results else turns)
    content: list[dict[str, Any]] = json.loads(json.dumps(encoder.messages[1]["content"]))
    return content


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_stream(lines: str) -> None:
    """It is whole however it is cut, each delta is one event, and sent back it is what was received."""
    sent = events_in(lines)
    data = stream(*sent)
    events = read(data, len(data))
    check(events)
    reply = fold(events)
    message = reply.message()
    for size in (1, 7):
        assert fold(read(data, size)).message() == message
    deltas = [one["contentBlockDelta"]["delta"] for one in sent if "contentBlockDelta" in one]
    for kind, count in (
        (TextDelta, sum("text" in delta for delta in deltas)),
        (ThinkingDelta, sum(bool(delta.get("reasoningContent", {}).get("text")) for delta in deltas)),
    ):
        assert sum(isinstance(event, kind) for event in events) == count
    pieces = [delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta]
    inputs = [event.text for event in events if isinstance(event, InputDelta)]
    assert [text for text in inputs if text != "{}"] == [text for text in pieces if text and text != "{}"]
    assert written(message) == added_up(sent)
    check_end(events, next(one["messageStop"] for one in sent if "messageStop" in one), metadata(sent))
    frame = {Started, BlockStarted, BlockFinished, domain.Usage, ExtraFields, Finished}
    assert {type(event) for event in events} <= {TextDelta, ThinkingDelta, InputDelta, *frame}
    assert completion(reply)["choices"][0]["finish_reason"] in ("stop", "tool_calls")


def metadata(sent: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = next((one["metadata"] for one in sent if "metadata" in one), {})
    return found


def check_end(events: list[domain.Event], stop: dict[str, Any], told: dict[str, Any]) -> None:
    """Assert the reason, the tokens, and what else the API told."""
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.provider_reason == stop["stopReason"]
    assert finished.details.get("additionalModelResponseFields") == stop.get("additionalModelResponseFields")
    usages = [event for event in events if isinstance(event, domain.Usage)]
    assert [(one.input_tokens, one.output_tokens, one.extra) for one in usages] == (
        [(told["usage"]["inputTokens"], told["usage"]["outputTokens"], {})] if "usage" in told else []
    )
    fields = [event.fields for event in events if isinstance(event, ExtraFields)]
    assert fields == ([{"metrics": told["metrics"]}] if "metrics" in told else [])


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_cut_stream(lines: str) -> None:
    """Before its stop and within a message there is no clean end, wherever it is cut; only the tokens may be missing."""
    sent = events_in(lines)
    data = stream(*sent)
    stopped = next(at for at, one in enumerate(sent) if "messageStop" in one) + 1
    clean = {len(stream(*sent[:at])) for at in range(stopped, len(sent) + 1)}
    for at in range(len(data)):
        reader = BedrockReader(REQUEST, "p")
        reader.feed(data[:at])
        if at in clean:
            assert isinstance(reader.end()[-1], Finished)
        else:
            with pytest.raises(ProviderProtocolError):
                reader.end()


@pytest.mark.parametrize("text", list(recorded("*.json")))
def test_a_whole_reply(text: str) -> None:
    """Sent back, it is the content that was received, but for a `type` that the API does not have."""
    body = json.loads(text)
    events = BedrockReader(REQUEST, "p").read_object(text.encode())
    check(events)
    reply = fold(events)
    content = [{name: value for name, value in block.items() if name != "type"} for block in body["output"]["message"]["content"]]
    assert written(reply.message()) == content
    check_end(events, body, body)
    blocks = reply.message().blocks
    assert {type(block) for block in blocks} <= {Text, Thinking, ToolCall}
