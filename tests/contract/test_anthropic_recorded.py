"""Replies that Anthropic sent, where a folder of them is given by `ANTIPHON_RECORDED`: none is cut, changed or doubled."""

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.content import Message, Role, Text, ToolCall, ToolResult
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import CitationDelta, InputDelta, TextDelta, ThinkingDelta
from antiphon.domain.reply import Reply
from antiphon.providers.anthropic.messages import AnthropicEncoder
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.rest.openai.reply import completion
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = domain.ChatRequest("m", (), stream=True)
DELTAS = {
    "text_delta": TextDelta,
    "thinking_delta": ThinkingDelta,
    "input_json_delta": InputDelta,
    "citations_delta": CitationDelta,
}
PIECES = ("text", "thinking", "partial_json")


def recorded(pattern: str) -> Iterator[Any]:
    """Files of Anthropic's replies."""
    for path in sorted(Path(FOLDER, "anthropic").glob(pattern)) if FOLDER else ():
        yield pytest.param(path.read_text(), id=path.name)


def streams() -> Iterator[Any]:
    """Each stream as its events, and those of the streams before it; a file holds those of several turns."""
    for path in sorted(Path(FOLDER, "anthropic").glob("*.chunks.txt")) if FOLDER else ():
        events = [json.loads(line) for line in path.read_text().split("\n") if line[:1] == "{"]
        ends = [0, *(at for at, event in enumerate(events, 1) if event["type"] == "message_stop")]
        for number, (begin, end) in enumerate(pairwise(ends)):
            yield pytest.param(events[begin:end], events[:begin], id=f"{path.name} {number}")


def as_sse(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events)


def fold(events: list[domain.Event]) -> Reply:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply


def read(data: bytes, size: int) -> list[domain.Event]:
    reader = AnthropicReader(REQUEST, "p")
    events: list[domain.Event] = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        assert reader.failure is None
        if reader.ending.done:
            break
    return [*events, *reader.end()]


def added_up(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the content, added up as Anthropic's SDKs do."""
    content: list[dict[str, Any]] = []
    for event in events:
        match event:
            case {"type": "message_start", "message": message}:
                content += message["content"]
            case {"type": "content_block_start", "content_block": block}:
                content.append(dict(block))
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                add_delta(content[index], delta)
            case _:
                pass
    for block in content:
        if "partial" in block:
            block["input"] = json.loads(block.pop("partial") or "{}")
    return content


def add_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block["citations"] = [*block.get("citations", ()), delta["citation"]]
        case "compaction_delta":
            block |= {name: value for name, value in delta.items() if name != "type"}
        case "input_json_delta":
            block["partial"] = block.get("partial", "") + delta["partial_json"]
        case kind:
            pytest.fail(f"unknown: {kind}")


def written(*replies: Message) -> list[dict[str, Any]]:
    """Return the content of the last reply as it is sent back, in the form of a whole reply. Its calls have results."""
    results = tuple(ToolResult(block.id, (Text("y"),)) for block in replies[-1].blocks if isinstance(block, ToolCall))
    encoder = AnthropicEncoder("p", system_turns=False)
    turns = [message for reply in replies for message in (Message(Role.USER, (Text("x"),)), reply)]
    encoder.encode([*turns, Message(Role.TOOL, results)] if results else turns)
    sent = encoder.messages[-2 if results else -1]
    return json.loads(json.dumps(sent["content"])) if sent["role"] == "assistant" else []


def accepted(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the content without blank texts, which are joined to the text before."""
    kept: list[dict[str, Any]] = []
    for block in content:
        if block["type"] != "text" or block["text"].strip():
            kept.append(block)
        elif kept and kept[-1]["type"] == "text":
            kept[-1]["text"] += block["text"]
    return kept


def messages(events: list[dict[str, Any]]) -> Iterator[Message]:
    """Yield the replies of some streams."""
    ends = [0, *(at for at, event in enumerate(events, 1) if event["type"] == "message_stop")]
    for begin, end in pairwise(ends):
        data = as_sse(events[begin:end])
        yield fold(read(data, len(data))).message()


def check_usage(events: list[domain.Event], usages: list[dict[str, Any]]) -> None:
    """Assert the counts against the last word on each."""
    *early, usage = (event for event in events if isinstance(event, domain.Usage))
    assert all(one.output_tokens <= usage.output_tokens for one in early)
    told: dict[str, Any] = {}
    for one in usages:
        told |= {name: value for name, value in one.items() if value is not None}
    more = [one for one in told.get("iterations", ()) if one["type"] in ("compaction", "advisor_message")]
    kinds = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert usage.input_tokens == sum(one.get(kind) or 0 for one in (told, *more) for kind in kinds)
    assert usage.output_tokens == sum(one["output_tokens"] for one in (told, *more))
    assert usage.cache_write_tokens == told.get("cache_creation_input_tokens")
    assert not usage.cache_write_1h_tokens
    if len(told.get("iterations", ())) > 1:
        assert sum(part.output_tokens for part in usage.parts) == sum(one["output_tokens"] for one in told["iterations"])


@pytest.mark.parametrize(("sent", "before"), list(streams()))
def test_a_stream(sent: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    """It is whole however it is cut, each delta is one event, and sent back it is what was received."""
    data = as_sse(sent)
    events = read(data, len(data))
    check(events)
    reply = fold(events)
    message = reply.message()
    assert fold(read(data, 7)).message() == message
    deltas = [event["delta"] for event in sent if event["type"] == "content_block_delta"]
    for kind, made in DELTAS.items():
        pieces = [delta for delta in deltas if delta["type"] == kind]
        expected = sum(kind in ("text_delta", "citations_delta") or any(map(piece.get, PIECES)) for piece in pieces)
        found = sum(isinstance(event, made) for event in events)
        assert found == expected or (kind == "input_json_delta" and found > expected)  # an input that was not streamed is one delta
    assert written(*messages(before), message) == accepted(added_up(sent))
    last = {**sent[0]["message"], **next((one["delta"] for one in sent if one["type"] == "message_delta"), {})}
    (end,) = reply.choices
    assert end.provider_reason == last["stop_reason"]
    assert end.details.get("container") == last.get("container")
    frame = {domain.Started, domain.BlockStarted, domain.BlockFinished, domain.Usage, domain.Finished}
    more = [event for event in events if type(event) not in (*DELTAS.values(), *frame)]
    assert more == ([domain.ExtraFields(0, {"container": last["container"]})] if last.get("container") else [])
    check_usage(events, [sent[0]["message"]["usage"], *(one["usage"] for one in sent if one["type"] == "message_delta")])
    assert completion(reply)["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls", "content_filter")


@pytest.mark.parametrize("sent", [pytest.param(one.values[0], id=one.id) for one in streams()])
def test_a_cut_stream(sent: list[dict[str, Any]]) -> None:
    """It has no clean end, wherever it is cut."""
    data = as_sse(sent)
    whole = data.rindex(b"}") + 1
    for at in {1, whole - 1, *range(1, whole, max(1, whole // 60))}:
        reader = AnthropicReader(REQUEST, "p")
        reader.feed(data[:at])
        with pytest.raises(ProviderProtocolError):
            reader.end()


@pytest.mark.parametrize("text", list(recorded("*.json")))
def test_a_whole_reply(text: str) -> None:
    """Sent back, it is the content that was received."""
    body = json.loads(text)
    events = AnthropicReader(REQUEST, "p").read_object(text.encode())
    check(events)
    reply = fold(events)
    assert written(reply.message()) == body["content"]
    check_usage(events, [body["usage"]])
    assert reply.choices == [] or reply.choices[0].provider_reason == body["stop_reason"]
    assert completion(reply)["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls", "content_filter")
