"""Replies that Cohere sent, where a folder of them is given by `ANTIPHON_RECORDED`: none is cut, changed or doubled."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.content import Message, Text, Thinking, ToolCall
from antiphon.domain.reply import Reply
from antiphon.providers.cohere.messages import CohereEncoder
from antiphon.providers.cohere.response import CohereReader
from antiphon.rest.openai.reply import completion
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = domain.ChatRequest("m", (), stream=True)


def recorded(pattern: str) -> Iterator[Any]:
    """Files of Cohere's replies, as their lines."""
    for path in sorted(Path(FOLDER, "cohere").glob(pattern)) if FOLDER else ():
        yield pytest.param(path.read_text(), id=path.name)


def message(events: list[domain.Event]) -> Message:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply.choices[0].message()


def read(data: bytes, size: int) -> list[domain.Event]:
    reader = CohereReader(REQUEST, "p")
    events: list[domain.Event] = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        assert reader.failure is None
        if reader.ending.done:
            break
    return [*events, *reader.end()]


def written(reply: Message) -> dict[str, Any]:
    """Write the reply as it is sent back, in the form of a whole reply."""
    (body,) = json.loads(json.dumps(CohereEncoder("p").encode([reply])))
    assert isinstance(body, dict)
    return body


def usage_of(events: list[domain.Event]) -> tuple[int, int, int | None, Any]:
    (usage,) = (event for event in events if isinstance(event, domain.Usage))
    return usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.extra["billed_units"]


def told(usage: dict[str, Any]) -> tuple[int, int, int | None, Any]:
    return usage["tokens"]["input_tokens"], usage["tokens"]["output_tokens"], usage["cached_tokens"], usage["billed_units"]


@pytest.mark.parametrize("lines", list(recorded("*.chunks.txt")))
def test_a_stream(lines: str) -> None:
    """It is whole however it is cut, and each of its deltas is one event with the same text."""
    payloads = [line for line in lines.split("\n") if line[:1] == "{"]
    data = b"".join(b"event: x\ndata: %b\n\n" % line.encode() for line in payloads)
    events = read(data, len(data))
    check(events)
    reply = message(events)
    assert message(read(data, 7)) == reply
    sent = [json.loads(line) for line in payloads]
    inner = [(event["type"], (event.get("delta") or {}).get("message") or {}) for event in sent]
    texts = "".join(one["content"]["text"] for kind, one in inner if kind == "content-delta")
    plan = "".join(one["tool_plan"] for kind, one in inner if kind == "tool-plan-delta")
    calls = [one["tool_calls"] for kind, one in inner if kind == "tool-call-start"]
    assert "".join(block.text for block in reply.blocks if isinstance(block, Text)) == texts
    assert "".join(block.text for block in reply.blocks if isinstance(block, Thinking)) == plan
    found = [block for block in reply.blocks if isinstance(block, ToolCall)]
    assert [(call.id, call.name) for call in found] == [(call["id"], call["function"]["name"]) for call in calls]
    assert all(isinstance(json.loads(call.arguments), dict) for call in found)
    end = sent[-1]["delta"]
    assert usage_of(events) == told(end["usage"])
    assert isinstance(events[-1], domain.Finished)
    assert events[-1].provider_reason == end["finish_reason"]


@pytest.mark.parametrize("text", list(recorded("*.json")))
def test_a_whole_reply(text: str) -> None:
    """Sent back, it is the message that was received, but for null as arguments and for citations."""
    body = json.loads(text)
    events = CohereReader(REQUEST, "p").read_object(text.encode())
    check(events)
    reply = message(events)
    expected = body["message"]
    citations = expected.pop("citations", [])
    for call in expected.get("tool_calls", ()):
        if call["function"]["arguments"] == "null":
            call["function"]["arguments"] = "{}"
    assert written(reply) == expected
    cited = [citation for block in reply.blocks if isinstance(block, Text) for citation in block.citations]
    assert [(one.start, one.end, one.text, one.fields["sources"]) for one in cited] == [
        (one["start"], one["end"], one["text"], one["sources"]) for one in citations
    ]
    assert usage_of(events) == told(body["usage"])
    whole = Reply()
    for event in events:
        whole.add(event)
    assert completion(whole)["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
