"""Replies in the formats of different hosts: streamed and whole they give the same blocks, and go back as they came."""

import json
from typing import Any, Final

import pytest
from msgspec import Struct

from antiphon import domain
from antiphon.domain import Citation, Opaque, State, Text, Thinking, ToolCall
from antiphon.domain.reply import Reply
from antiphon.providers.openai.capabilities import capabilities_of
from antiphon.providers.openai.messages import OpenAIEncoder
from antiphon.providers.openai.response import OpenAIReader
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion
from antiphon.rest.shared.content import MessageBody, message_of
from tests.odd_upstream import delta, sse
from tests.unit.framing import check, folded

Json = dict[str, Any]
CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
OSLO: Final = ToolCall("call_1", "get_weather", '{"city":"Oslo"}')
SIGNED: Final = {"extra_content": {"google": {"thought_signature": "SIG"}}}
CITATION: Final = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 5, "title": "t", "url": "https://u"}}
ENTRY: Final = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
SIGNED_ENTRY: Final = {**ENTRY, "text": "Hm", "signature": "SIG"}
SUMMARY: Final = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}


class Shape(Struct, frozen=True):
    """A reply in one host's format, as deltas and as a message, and its expected blocks."""

    host: str
    deltas: tuple[Json, ...]
    whole: Json
    blocks: tuple[domain.Block, ...]
    back: Json
    """What the host is sent when a client of the chat API sends the reply back."""
    fields: Json = {}  # it is frozen
    """The message's fields besides its blocks."""


SHAPES: Final[dict[str, Shape]] = {
    "openai": Shape(
        "openai",
        ({"role": "assistant", "content": "", "refusal": None}, {"content": "Hello"}, {"content": " there"}),
        {"role": "assistant", "content": "Hello there", "refusal": None, "annotations": []},
        (Text("Hello there"),),
        {"content": "Hello there"},
    ),
    "sources": Shape(
        "openai",
        ({"role": "assistant", "content": ""}, {"content": "Hello there"}, {"annotations": [CITATION]}),
        {"role": "assistant", "content": "Hello there", "annotations": [CITATION]},
        (Text("Hello there", (Citation("https://u", "t", start=0, end=5),)),),
        {"content": "Hello there", "annotations": [CITATION]},
    ),
    "groq": Shape(
        "groq",
        (
            {"role": "assistant", "content": "", "channel": "analysis"},
            {"reasoning": "Thinking", "channel": "analysis"},
            {"reasoning": " hard", "channel": "analysis"},
            {"content": "Hello", "channel": "final"},
            {"content": " there", "channel": "final"},
        ),
        {"role": "assistant", "content": "Hello there", "reasoning": "Thinking hard"},
        (Thinking("Thinking hard", "reasoning"), Text("Hello there")),
        {"content": "Hello there", "reasoning": "Thinking hard"},
    ),
    "groq, a call": Shape(
        "groq",
        ({"role": "assistant", "content": None}, {"reasoning": "Hm"}, {"tool_calls": [{**CALL, "index": 0}]}),
        {"role": "assistant", "reasoning": "Hm", "tool_calls": [CALL]},
        (Thinking("Hm", "reasoning"), OSLO),
        {"content": None, "reasoning": "Hm", "tool_calls": [CALL]},
    ),
    "mistral, a call": Shape(
        "mistral",
        ({"role": "assistant", "content": ""}, {"content": "", "tool_calls": [{**CALL, "id": "D681PevKs", "index": 0}]}),
        {"role": "assistant", "tool_calls": [{**CALL, "id": "D681PevKs"}]},
        (ToolCall("D681PevKs", "get_weather", '{"city":"Oslo"}'),),
        {"content": None, "tool_calls": [{**CALL, "id": "D681PevKs"}]},
    ),
    "mistral, a thinking model": Shape(
        "mistral",
        (
            {"role": "assistant", "content": ""},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]},
            {"content": [{"type": "text", "text": "Hello"}]},
            {"content": " there"},
        ),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                {"type": "text", "text": "Hello there"},
            ],
        },
        (Thinking("Hm"), Text("Hello there")),
        {"content": "Hello there"},
    ),
    "gemini, a signed text": Shape(
        "gemini",
        ({"role": "assistant", "content": "Hello"}, {"content": " there", **SIGNED}),
        {"role": "assistant", "content": "Hello there", **SIGNED},
        (Text("Hello there", state=State("SIG")),),
        {"content": "Hello there", **SIGNED},
    ),
    "gemini, calls without an index": Shape(
        "gemini",
        ({"tool_calls": [{**CALL, **SIGNED}]}, {"tool_calls": [{**CALL, "id": "call_2"}]}),
        {"role": "assistant", "tool_calls": [{**CALL, **SIGNED}, {**CALL, "id": "call_2"}]},
        (
            ToolCall("call_1", "get_weather", '{"city":"Oslo"}', state=State("SIG")),
            ToolCall("call_2", "get_weather", '{"city":"Oslo"}'),
        ),
        {"tool_calls": [{**CALL, **SIGNED}, {**CALL, "id": "call_2"}]},
    ),
    "openrouter": Shape(
        "openrouter",
        (
            {"role": "assistant", "content": "", "reasoning": "H", "reasoning_details": [{**ENTRY, "text": "H"}]},
            {"content": "", "reasoning": "m", "reasoning_details": [{**ENTRY, "text": "m"}]},
            {"content": "", "reasoning": None, "reasoning_details": [{**ENTRY, "signature": "SIG"}]},
            {"content": "Hello"},
        ),
        {
            "role": "assistant",
            "content": "Hello",
            "reasoning": "Hm",
            "reasoning_details": [SIGNED_ENTRY],
        },
        (Thinking("Hm", "reasoning", state=State("SIG", {"reasoning_details": ENTRY})), Text("Hello")),
        {"content": "Hello", "reasoning_details": [SIGNED_ENTRY]},
    ),
    "deepseek": Shape(
        "deepseek",
        ({"role": "assistant", "content": None, "reasoning_content": ""}, {"reasoning_content": "Hm"}, {"content": "Hello"}),
        {"role": "assistant", "content": "Hello", "reasoning_content": "Hm"},
        (Thinking("Hm"), Text("Hello")),
        {"content": "Hello", "reasoning_content": "Hm"},
    ),
    "databricks": Shape(
        "unknown",
        ({"role": "assistant", "content": [SUMMARY]}, {"content": "Hello"}, {"content": " there"}),
        {"role": "assistant", "content": [SUMMARY, {"type": "text", "text": "Hello there"}]},
        (Opaque(state=State(fields=SUMMARY)), Text("Hello there")),
        {"content": [SUMMARY, {"type": "text", "text": "Hello there"}]},
    ),
}

END: Final = delta(finish="stop")


def streamed(shape: Shape) -> list[domain.Event]:
    reader = OpenAIReader(domain.ChatRequest("m", (), stream=True), shape.host)
    first = delta()
    data = sse(*({**first, "choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in shape.deltas), END, "[DONE]")
    return [*reader.feed(data), *reader.end()]


def whole(shape: Shape) -> list[domain.Event]:
    body = {**delta(), "object": "chat.completion", "choices": [{"index": 0, "message": shape.whole, "finish_reason": "stop"}]}
    return OpenAIReader(domain.ChatRequest("m", (), stream=False), shape.host).read_object(json.dumps(body).encode())


def reply_of(events: list[domain.Event]) -> Reply:
    return folded(*events)


@pytest.mark.parametrize("name", SHAPES)
def test_streamed_and_whole_are_the_same_blocks(name: str) -> None:
    """A streamed and a whole reply give the same blocks and valid events."""
    shape = SHAPES[name]
    check(streamed(shape))
    check(whole(shape))
    assert reply_of(streamed(shape)).choices[0].message().blocks == shape.blocks
    assert reply_of(whole(shape)).choices[0].message().blocks == shape.blocks


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_caller_streams_is_what_it_would_get_whole(name: str) -> None:
    """The chunks for a caller read back as the same reply."""
    shape = SHAPES[name]
    events = streamed(shape)
    writer = ChunkWriter(include_usage=True)
    reader = OpenAIReader(domain.ChatRequest("m", (), stream=True), "p")
    again = reply_of([*reader.feed(writer.write(events) + writer.end()), *reader.end()])
    assert json.dumps(completion(again)["choices"]).replace("ap1.p:openai-chat:m.", "") == json.dumps(
        completion(reply_of(events))["choices"]
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_host_is_sent_back_what_it_takes(name: str) -> None:
    """A reply goes back to its host in a form that it accepts, from the history and from a client."""
    shape = SHAPES[name]
    reply = reply_of(streamed(shape))
    stored = reply.message()
    sent = message_of(MessageBody.model_validate(completion(reply)["choices"][0]["message"]), ())
    takes = capabilities_of(shape.host, None)
    (from_client,) = OpenAIEncoder(shape.host, takes, "gpt-oss-120b", known_fields=False).encode([sent])
    from_client = {name: value for name, value in from_client.items() if name != "channel"}
    assert from_client == {"role": "assistant", **shape.back}
    if "thinking model" not in name:  # for which a client has only the text
        (from_history,) = OpenAIEncoder(shape.host, takes, "gpt-oss-120b", known_fields=False).encode([stored])
        assert {name: value for name, value in from_history.items() if name != "channel"} == {"role": "assistant", **shape.back}
