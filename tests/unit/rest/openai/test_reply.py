"""Replies in the shape of the OpenAI dialect."""

import json
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.rest.openai import reply as openai_reply
from antiphon.rest.shared.json import DONE
from tests.unit.scripted import START, STOP, USAGE


def chunks(*batches: domain.Batch, include_usage: bool = False) -> list[dict[str, Any]]:
    writer = openai_reply.ChunkWriter(include_usage=include_usage)
    data = b"".join(map(writer.write, batches)) + writer.end().removesuffix(DONE)
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_chunks_are_those_of_the_api() -> None:
    """A first one with the role, then the deltas, then the reason."""
    found = chunks([START, domain.TextDelta(0, "Hel")], [domain.TextDelta(0, "lo")], [USAGE, STOP])
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in found} == {
        ("chatcmpl-1", "chat.completion.chunk", 1_700_000_000, "model-1")
    }
    assert all("usage" not in chunk for chunk in found)


def test_thoughts_have_the_name_that_their_provider_gives_them_too() -> None:
    """In a stream and in a whole reply: who knows the provider's own API finds them there."""
    thought = domain.ThinkingDelta(0, "hm", field="reasoning")
    writer = openai_reply.ChunkWriter(include_usage=False)
    assert b'{"reasoning_content":"hm","reasoning":"hm"}' in writer.write([START, thought])
    reply = Reply()
    for event in (START, thought, thought, STOP):
        reply.add(event)
    (choice,) = openai_reply.completion(reply)["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["reasoning"]) == ("hmhm", "hmhm")


def test_usage_comes_last_and_only_if_asked_for() -> None:
    """In a chunk without choices; null in all others."""
    found = chunks([START, domain.TextDelta(0, "x")], [USAGE], [STOP], include_usage=True)
    assert [chunk["usage"] is None for chunk in found] == [True, True, True, False]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 5


def test_every_kind_of_delta_has_a_chunk() -> None:
    """Thought, tool calls, refusal, sound, log probabilities, fields that are not known; a second choice of its own."""
    found = chunks(
        [
            domain.Started("id", "model", "p", 1, {"system_fingerprint": "fp"}),
            domain.ThinkingDelta(0, "hm"),
            domain.ToolCallDelta(0, 0, "c1", "f", ""),
            domain.ToolCallDelta(0, 0, arguments="{}"),
            domain.RefusalDelta(1, "no"),
            domain.AudioDelta(1, "a1", "AAEC", "la", 5),
            domain.TextDelta(1, "x", ({"token": "x", "logprob": -1},)),
            domain.ExtraDelta(1, {"annotations": [1]}),
            domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
            domain.Finished(1, domain.FinishReason.OTHER, "eos"),
        ]
    )
    deltas = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in found]
    assert deltas == [
        (0, {"role": "assistant", "content": None, "refusal": None}),
        (0, {"reasoning_content": "hm"}),
        (0, {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        (0, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        (1, {"role": "assistant", "content": None, "refusal": None}),
        (1, {"refusal": "no"}),
        (1, {"audio": {"id": "a1", "data": "AAEC", "transcript": "la", "expires_at": 5}}),
        (1, {"content": "x"}),
        (1, {"annotations": [1]}),
        (0, {}),
        (1, {}),
    ]
    assert found[7]["choices"][0]["logprobs"]["content"] == [{"token": "x", "logprob": -1}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[-2:]] == ["tool_calls", "eos"]
    assert [chunk.get("system_fingerprint") for chunk in found] == ["fp", *[None] * (len(found) - 1)]


def test_the_first_chunk_of_a_recorded_stream_has_its_session() -> None:
    """As a whole reply has it; no later chunk has it, nor any of a stream that is not recorded."""
    events = [domain.TextDelta(0, "a"), domain.TextDelta(0, "b"), domain.Finished(0, domain.FinishReason.STOP, "stop")]
    found = chunks([domain.Started("id", "model", "p", 1, {"fp": "x"}, conversation_id="chat-1"), *events])
    assert [chunk.get("session_id") for chunk in found] == ["chat-1", None, None, None]
    assert found[0]["fp"] == "x"
    assert not any("session_id" in chunk for chunk in chunks([domain.Started("id", "model", "p", 1), *events]))


def test_what_came_in_one_delta_is_one_chunk() -> None:
    """Text, thought, several calls and fields beside them; every call has a function, whatever it tells."""
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    token = {"token": "x", "logprob": -1}
    found = chunks(
        [
            START,
            domain.DeltaGroup(0, 7),
            domain.ExtraDelta(0, {}, {"found": 1}),
            domain.ThinkingDelta(0, "hm", field="reasoning"),
            domain.TextDelta(0, "x", (token,)),
            domain.TextDelta(0, "y"),
            domain.ToolCallDelta(0, 0, "c1", "f", "{}", extra={"type": "builtin_function", "function": {"a": 1}}),
            domain.ToolCallDelta(0, 1, extra=signed),
            domain.ExtraDelta(
                0, {"tool_calls": [{"index": 2, "id": "c", "custom": {}}], "x": 2}, {"logprobs": {"refusal": [token]}}
            ),
            domain.ToolCallDelta(0, 0, extra=signed),
            STOP,
        ]
    )
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": "", "refusal": None},
        {
            "reasoning_content": "hm",
            "reasoning": "hm",
            "content": "xy",
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "builtin_function", "function": {"name": "f", "arguments": "{}", "a": 1}},
                {"index": 1, "function": {"arguments": ""}, **signed},
                {"index": 2, "id": "c", "custom": {}},
            ],
            "x": 2,
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ""}, **signed}]},
        {},
    ]
    choice = found[1]["choices"][0]
    assert (choice["found"], choice["logprobs"]) == (1, {"content": [token], "refusal": [token]})
    assert found[-1]["choices"][0]["found"] == 1


def test_parts_that_are_not_known_stand_among_the_text() -> None:
    """In a whole reply, in a delta, and in what is stored: in the order in which they came."""
    part, other = {"type": "reasoning", "summary": []}, {"type": "odd"}
    events: domain.Batch = [
        domain.ExtraDelta(0, {"content": [part]}),
        domain.TextDelta(0, "Hi"),
        domain.TextDelta(0, "!"),
        domain.ExtraDelta(0, {"content": [other]}),
    ]
    reply = Reply()
    for event in [START, *events, STOP]:
        reply.add(event)
    content = [part, {"type": "text", "text": "Hi!"}, other]
    assert openai_reply.completion(reply)["choices"][0]["message"]["content"] == content
    assert reply.choices[0].message().parts == (domain.Other(part), domain.Text("Hi!"), domain.Other(other))
    content[1:2] = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
    assert chunks([START, domain.DeltaGroup(0, 4), *events])[1]["choices"][0]["delta"] == {"content": content}


def test_what_is_told_of_a_reply_is_told_once() -> None:
    """In the next chunk, and in the last where none follows; in every one what the provider tells with every one."""
    found = chunks(
        [domain.Started("id", "model", "p", 1, {"ids": [1, 2], "fp": "a"}), domain.TextDelta(0, "a"), domain.TextDelta(0, "b")],
        [
            domain.ReplyExtra({"fp": "a"}, repeats=True),
            domain.ReplyExtra({"more": 1}),
            domain.TextDelta(0, "c"),
            domain.TextDelta(0, "d"),
        ],
        [domain.ReplyExtra({"more": 2}), domain.ReplyExtra({"fp": "b"}), domain.ReplyExtra({}, repeats=True)],
        [domain.TextDelta(0, "e"), domain.ReplyExtra({"fp": "b"}, repeats=True)],
        [domain.ReplyExtra({"citations": []}), domain.Usage(1, 1, 2), STOP],
        [domain.ReplyExtra({"last": True})],
        include_usage=True,
    )
    assert [{name: chunk[name] for name in ("ids", "fp", "more", "citations", "last") if name in chunk} for chunk in found] == [
        {"ids": [1, 2], "fp": "a"},
        {},
        {},
        {"fp": "a", "more": 1},
        {"fp": "a"},
        {"fp": "b", "more": 2},
        {"fp": "b", "citations": []},
        {"fp": "b", "last": True},
    ]
    assert list(found[0])[4:6] == ["ids", "fp"]


def test_tokens_written_to_a_cache_are_told() -> None:
    """Among the details of the prompt, where the provider told of any."""
    for usage, expected in (
        (domain.Usage(7, 5, 12, cache_write_tokens=6), 6),
        (domain.Usage(7, 5, 12, extra={"prompt_tokens_details": {"cache_write_tokens": 0}}), 0),
        (USAGE, None),
    ):
        details = chunks([START, usage, STOP], include_usage=True)[-1]["usage"]["prompt_tokens_details"]
        assert details.get("cache_write_tokens") == expected


@pytest.mark.parametrize("text", ["\n\ndata: [DONE]\n\n", "\r", "\u2028\u2029\x85\x0b\x0c", "\"'\\", "שלום 🎼", "\ud83d\ude00"])
def test_text_cannot_forge_an_event(text: str) -> None:
    """Whatever the model writes stays inside its JSON string, for readers that split at any kind of line end."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    writer = openai_reply.ChunkWriter(include_usage=False)
    data = writer.write([START, domain.TextDelta(0, text)]).decode()
    lines = [line for line in data.splitlines() if line]
    assert len(lines) == 2
    assert json.loads(lines[1].removeprefix("data: "))["choices"][0]["delta"]["content"] == text


def test_a_whole_reply_is_a_completion_object() -> None:
    """With documented nulls, and with what only the provider knows."""
    reply = Reply()
    events: list[domain.Event] = [
        domain.Started("id", "model", "p", 1, {"service_tier": "default"}),
        domain.ToolCallDelta(0, 0, "c1", "f", "{}"),
        domain.ExtraDelta(0, {"annotations": []}),
        domain.Usage(7, 5, 12, 3, 0, 2, extra={"cost": 1}),
        domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    for event in events:
        reply.add(event)
    found = openai_reply.completion(reply)
    assert found["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 3, "audio_tokens": 0}
    assert (found["object"], found["service_tier"], found["usage"]["cost"]) == ("chat.completion", "default", 1)


def test_what_only_the_provider_knows_joins_what_is_known() -> None:
    """Of a tool call, and of the content: neither takes the place of the other."""
    reply = Reply()
    events: list[domain.Event] = [
        START,
        domain.TextDelta(0, "Hi"),
        domain.ToolCallDelta(0, 0, "a", "f", "{}"),
        domain.ExtraDelta(0, {"tool_calls": [{"index": 0, "id": "a", "extra_content": 1}, {"index": 1, "id": "b", "custom": {}}]}),
        domain.ExtraDelta(0, {"content": [{"type": "odd"}]}),
        STOP,
    ]
    for event in events:
        reply.add(event)
    message = openai_reply.completion(reply)["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": 1},
        {"id": "b", "custom": {}},
    ]
    assert message["content"] == [{"type": "text", "text": "Hi"}, {"type": "odd"}]
