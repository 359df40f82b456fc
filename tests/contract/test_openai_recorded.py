"""Recorded replies of real hosts, from the folder `ANTIPHON_RECORDED` if set: none is cut, changed or doubled."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.providers.openai.response import OpenAIReader
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion, usage_json
from tests.unit.framing import check

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = domain.ChatRequest("m", (), stream=True)


def recorded(pattern: str) -> Iterator[Any]:
    """Yield the chat completions in the files, streams as lists of their chunks."""
    for path in sorted(Path(FOLDER).rglob(pattern)) if FOLDER else ():
        try:
            lines = path.read_text().strip()
            found = (
                json.loads(lines)
                if pattern.endswith("json")
                else [json.loads(line) for line in lines.split("\n") if line[:1] == "{"]
            )
        except ValueError:
            continue
        first = found[0] if isinstance(found, list) and found else found
        if isinstance(first, dict) and "choices" in first:
            yield pytest.param(found, id=str(path.relative_to(str(FOLDER))))


def folded(events: list[domain.Event]) -> Reply:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply


def read(data: bytes, size: int) -> list[domain.Event]:
    reader = OpenAIReader(REQUEST, "p")
    events: list[domain.Event] = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        assert reader.failure is None
    return [*events, *reader.end()]


def text_of(delta: dict[str, Any]) -> str:
    """Return the text of a delta in either form."""
    content = delta.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content if part["type"] == "text")


@pytest.mark.parametrize("chunks", list(recorded("*.chunks.txt")))
def test_a_stream(chunks: list[dict[str, Any]]) -> None:
    """A recorded stream is complete however it is cut, and a caller's stream of it reads the same."""
    data = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    events = read(data, len(data))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    choice = folded(events).choices[0]
    check(events)
    assert choice.text == "".join(text_of(one.get("delta") or {"content": one.get("text")}) for one in choices)
    assert choice.provider_reason
    for call in choice.calls():
        json.loads(call.arguments)
    assert folded(read(data, 7)).choices[0].message() == choice.message()
    writer = ChunkWriter(include_usage=True)
    again = folded(read(writer.write(events) + writer.end(), 1000))
    whole = folded(events)
    assert completion(again)["choices"] == completion(whole)["choices"]
    assert again.usage is not None
    assert whole.usage is not None
    assert usage_json(again.usage) == usage_json(whole.usage)


@pytest.mark.parametrize("body", list(recorded("*.json")))
def test_a_whole_reply(body: dict[str, Any]) -> None:
    """A recorded reply keeps its text, finish reason and tokens."""
    events = OpenAIReader(REQUEST, "p").read_object(json.dumps(body).encode())
    check(events)
    reply = folded(events)
    (choice,) = body["choices"]
    found = completion(reply)["choices"][0]
    content = text_of(choice.get("message") or {"content": choice.get("text")})
    assert (text_of(found["message"]), found["finish_reason"]) == (content, choice["finish_reason"])
    assert reply.usage is not None
    assert reply.usage.total_tokens == body["usage"]["total_tokens"]
