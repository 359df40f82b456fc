"""Replies that Gemini sent, where a folder of them is given by `ANTIPHON_RECORDED`: none is cut, changed or doubled."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.content import Message, Role, Text, ToolCall, ToolResult
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.reply import Reply
from antiphon.providers.gemini.capabilities import capabilities_of
from antiphon.providers.gemini.messages import GeminiEncoder
from antiphon.providers.gemini.response import GeminiReader
from antiphon.rest.openai.reply import completion
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
MODEL = "gemini-3-pro"
REQUEST = domain.ChatRequest(MODEL, (), stream=True)


def recorded(pattern: str) -> Iterator[Any]:
    """Files of Gemini's replies, as their text."""
    for path in sorted(Path(FOLDER, "google").glob(pattern)) if FOLDER else ():
        yield pytest.param(path.read_text(), id=path.name)


def folded(events: list[domain.Event]) -> Reply:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply


def read(*pieces: bytes) -> list[domain.Event]:
    reader = GeminiReader(REQUEST, "p")
    events: list[domain.Event] = []
    for piece in pieces:
        events += reader.feed(piece)
        assert reader.failure is None
    return [*events, *reader.end()]


def written(message: Message) -> list[dict[str, Any]]:
    """Write the reply as it is sent back, with a result for each call."""
    results = tuple(ToolResult(block.id, ()) for block in message.blocks if isinstance(block, ToolCall))
    ask = Message(Role.USER, (Text("q"),))
    contents = GeminiEncoder("p", MODEL, capabilities_of(MODEL)).encode((ask, message, Message(Role.TOOL, results)))
    parts: list[dict[str, Any]] = json.loads(json.dumps(contents[1]["parts"]))
    return parts


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values of a chunk that hold no others, and where they are."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


STRUCTURE = {"role", "index", "responseId", "modelVersion", "createTime", "jsonPath", "willContinue", "finishReason"}
"""Fields that say where and when something is, and are read."""


def account_for(chunks: list[dict[str, Any]], reply: Reply) -> None:
    """Assert that each value of the chunks is in the reply, is structure, or is replaced by a later one."""
    message = reply.message()
    text = "".join(getattr(block, "text", "") for block in message.blocks)
    arguments = "".join(block.arguments for block in message.blocks if isinstance(block, ToolCall))
    opaque = [block.state.opaque for block in message.blocks if block.state is not None]
    names = [block.name for block in message.blocks if isinstance(block, ToolCall)]
    fields = [value for _, value in leaves(reply.choices[0].choice_fields)]
    for chunk in chunks:
        for path, value in leaves(chunk):
            match path[-1]:
                case name if name in STRUCTURE or path[0] == "usageMetadata":
                    pass
                case "text":
                    assert value in text
                case "thought":
                    assert value is True
                case "thoughtSignature":
                    assert value in opaque
                case "name" if path[-2] == "functionCall":
                    assert value in names
                case "stringValue":
                    assert json.dumps(value, ensure_ascii=False)[1:-1] in arguments
                case "numberValue" | "boolValue":
                    assert json.dumps(value) in arguments
                case _ if "args" in path:
                    assert json.dumps(value, ensure_ascii=False) in arguments
                case _:
                    assert value in fields, path


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_stream(lines: str) -> None:
    """It is whole however it is cut, each of its values is accounted for, and it is sent back part by part."""
    payloads = [line for line in lines.split("\n") if line[:1] == "{"]
    data = b"".join(b"data: %b\r\n\r\n" % line.encode() for line in payloads)
    events = read(data)
    check(events)
    for at in range(0, len(data), 1 + len(data) // 1000):
        assert read(data[:at], data[at:])[1:] == events[1:], "all but the start, which may have the time of the test"
    assert read(*(data[at : at + 7] for at in range(0, len(data), 7)))[1:] == events[1:]
    reply, sent = folded(events), [json.loads(line) for line in payloads]
    account_for(sent, reply)
    parts = [part for chunk in sent for part in chunk["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts if "text" in part and not part.get("thought")) == reply.choices[0].text
    signatures = [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
    assert [part["thoughtSignature"] for part in written(reply.message()) if "thoughtSignature" in part] == signatures
    counts = {name: value for chunk in sent for name, value in chunk.get("usageMetadata", {}).items()}
    check_usage(events, counts)
    assert isinstance(events[-1], domain.Finished)
    assert events[-1].provider_reason == sent[-1]["candidates"][0]["finishReason"]


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_stream_that_is_cut(lines: str) -> None:
    """Wherever it is cut before its end, it is a failure."""
    data = b"".join(b"data: %b\n\n" % line.encode() for line in lines.split("\n") if line[:1] == "{")
    end = data.index(b'"finishReason"')
    for at in range(0, end, 1 + end // 1000):
        with pytest.raises(ProviderProtocolError):
            read(data[:at])


@pytest.mark.parametrize("text", list(recorded("*.json")))
def test_a_whole_reply(text: str) -> None:
    """Sent back, it is the content that was received."""
    body = json.loads(text)
    events = GeminiReader(REQUEST, "p").read_object(text.encode())
    check(events)
    reply = folded(events)
    account_for([body], reply)
    assert written(reply.message()) == body["candidates"][0]["content"]["parts"]
    check_usage(events, body["usageMetadata"])
    assert completion(reply)["choices"][0]["finish_reason"] in ("stop", "tool_calls")


def check_usage(events: list[domain.Event], counts: dict[str, Any]) -> None:
    *early, usage = (event for event in events if isinstance(event, domain.Usage))
    assert all(one.output_tokens <= usage.output_tokens for one in early)
    assert usage.input_tokens == counts["promptTokenCount"]
    assert usage.output_tokens == counts["candidatesTokenCount"] + counts["thoughtsTokenCount"]
    assert usage.reasoning_tokens == counts["thoughtsTokenCount"]
    assert usage.total_tokens == counts["totalTokenCount"]
    places = {"promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"}
    assert usage.extra == {name: value for name, value in counts.items() if name not in places}
