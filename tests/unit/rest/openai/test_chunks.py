"""Tests of streams in the form of the OpenAI dialect."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from antiphon import domain
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.shared.carried import item_entry
from antiphon.rest.shared.json import DONE
from tests.unit.framing import Frames, framed
from tests.unit.scripted import ORIGIN, START, STOP, USAGE


def chunks(*batches: domain.Batch, include_usage: bool = False) -> list[dict[str, Any]]:
    writer, frames = ChunkWriter(include_usage=include_usage), Frames()
    data = b"".join(writer.write(frames.batch(batch)) for batch in batches) + writer.end().removesuffix(DONE)
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def deltas(*events: domain.Event) -> list[dict[str, Any]]:
    """Return the deltas of the first choice, without the first and the last chunk."""
    return [chunk["choices"][0]["delta"] for chunk in chunks([START, *events, STOP])][1:-1]


def call(block: int, name: str = "f", choice: int = 0, **fields: Any) -> domain.Event:
    return domain.BlockStarted(block, choice, domain.ToolCall(f"c{block}", name, "", **fields))


FIRST = {"role": "assistant", "content": "", "refusal": None}
ENTRY = {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}


def test_chunks_are_those_of_the_api() -> None:
    """A stream has a first chunk with the role, then the deltas, then the finish reason."""
    found = chunks([START, domain.TextDelta(0, "Hel")], [domain.TextDelta(0, "lo")], [USAGE, STOP])
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        FIRST,
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in found} == {
        ("chatcmpl-1", "chat.completion.chunk", 1_700_000_000, "model-1")
    }
    assert all("usage" not in chunk for chunk in found)


def test_usage_comes_last_and_only_if_asked_for() -> None:
    """If asked for, usage is in a last chunk without choices, and null in all others."""
    found = chunks([START, domain.TextDelta(0, "x")], [USAGE], [STOP], include_usage=True)
    assert [chunk["usage"] is None for chunk in found] == [True, True, True, False]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 5


def test_thoughts_have_the_name_that_their_provider_gives_them_too() -> None:
    """Thoughts are in `reasoning_content`, and also in the provider's own field."""
    thought = domain.BlockStarted(0, 0, domain.Thinking("", "reasoning"))
    assert deltas(thought, domain.ThinkingDelta(0, "hm"), domain.ThinkingDelta(0, "m")) == [
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"reasoning_content": "m", "reasoning": "m"},
    ]
    assert deltas(domain.ThinkingDelta(0, "a"), domain.ThinkingDelta(0, "b")) == [
        {"reasoning_content": "a"},
        {"reasoning_content": "b"},
    ]


def test_thoughts_with_a_state_are_in_details_too() -> None:
    """Thoughts with a state are in `reasoning_details` too, with the wrapped signature at the end.

    Encrypted ones have their own entry.
    """
    rest = {"reasoning_details": {"type": "reasoning.text", "format": "f", "index": 0}}
    found = deltas(
        domain.BlockStarted(0, 0, domain.Thinking("", state=domain.State(fields=rest))),
        domain.ThinkingDelta(0, "hm"),
        domain.BlockFinished(0, domain.State("sig", rest)),
        domain.BlockStarted(1, 0, domain.RedactedThinking(state=domain.State("d"))),
        domain.BlockFinished(1),
        domain.ThinkingDelta(2, "m"),
        domain.BlockFinished(2, domain.State("late")),
    )
    entry = {"type": "reasoning.text", "index": 0, "format": "f"}
    assert found == [
        {"reasoning_content": "hm", "reasoning_details": [{**entry, "text": "hm"}]},
        {"reasoning_details": [{**entry, "signature": "ap1.scripted:openai-chat:model-1.sig"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "ap1.scripted:openai-chat:model-1.d"}]},
        {"reasoning_content": "m"},
        {"reasoning_details": [{"type": "reasoning.text", "index": 2, "signature": "ap1.scripted:openai-chat:model-1.late"}]},
    ]


def test_the_item_of_a_call_that_only_one_api_has() -> None:
    """It comes with the call, in the form in which `item_entry` has it, so that the call goes back as it was."""
    origin = domain.Origin("responses", "up", "m", "up")
    started = replace(START, origin=origin)
    item = domain.State(fields={"item": {"type": "shell_call", "id": "sh_1"}}, item=1)
    value = domain.ToolCall("c0", "", "", "shell_call")
    found = chunks(
        [
            started,
            domain.BlockStarted(0, 0, domain.RedactedThinking(state=domain.State("e", item=0))),
            domain.BlockFinished(0),
            domain.BlockStarted(1, 0, value),
            domain.InputDelta(1, '{"a":1}'),
            domain.BlockFinished(1, item),
            STOP,
        ]
    )
    made = [chunk["choices"][0]["delta"] for chunk in found][-2]
    assert made["tool_calls"] == [{"index": 0, "id": "c0", "type": "shell_call", "shell_call": {"a": 1}}]
    assert made["reasoning_details"] == [item_entry(replace(value, state=item), origin, 1)]


OTHER = replace(START, origin=domain.Origin("anthropic", "up", "m", "up"))
"""The start of a reply of a provider with another protocol."""


def test_deltas_that_the_sdk_adds_up() -> None:
    """Of a provider with another protocol, OpenAI's SDK gets citations in one delta at the end, and images with an index.

    Citations have all fields, and their offsets are those in the content.
    """

    def source(url: str, title: str, start: int, end: int) -> dict[str, Any]:
        return {"type": "url_citation", "url_citation": {"url": url, "title": title, "start_index": start, "end_index": end}}

    found = chunks(
        [
            OTHER,
            domain.BlockStarted(0, 0, domain.Text("")),
            domain.TextDelta(0, "ab"),
            domain.CitationDelta(0, domain.Citation("u")),
            domain.BlockFinished(0),
            domain.BlockStarted(1, 0, domain.Image(domain.Media("x"))),
            domain.BlockFinished(1),
            domain.BlockStarted(2, 0, domain.Image(domain.Media("y"))),
            domain.BlockFinished(2),
            domain.BlockStarted(3, 0, domain.Text("")),
            domain.TextDelta(3, "cde"),
            domain.CitationDelta(3, domain.Citation("v", "t", start=1, end=2)),
            domain.BlockFinished(3),
            STOP,
        ]
    )
    state = ChatCompletionStreamState()
    for chunk in found:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.get_final_completion().choices[0].message.model_dump()
    assert [one["url_citation"]["url"] for one in message["annotations"]] == ["u", "v"]
    assert [(one["index"], one["image_url"]["url"]) for one in message["images"]] == [(0, "x"), (1, "y")]
    assert found[-2]["choices"][0]["delta"] == {"annotations": [source("u", "", 0, 2), source("v", "t", 3, 4)]}


def test_an_unknown_block_of_another_protocol() -> None:
    """It has no place in this API: the content stays a text."""
    block = domain.Opaque(state=domain.State(fields={"type": "fallback"}))
    opaque = [domain.BlockStarted(0, 0, block), domain.BlockFinished(0)]
    text = [domain.BlockStarted(1, 0, domain.Text("")), domain.TextDelta(1, "a"), domain.BlockFinished(1)]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks([OTHER, *opaque, *text, STOP])] == ["", "a", None]


def test_the_signature_of_an_image() -> None:
    """It is beside the image, wrapped, in the form of Google's hosts."""
    google = {"google": {"thought_signature": "ap1.scripted:openai-chat:model-1.sig"}}
    image = {"type": "image_url", "image_url": {"url": "u"}, "extra_content": google}
    block = domain.BlockStarted(0, 0, domain.Image(domain.Media("u"), state=domain.State("sig")))
    assert deltas(block, domain.BlockFinished(0)) == [{"images": [image]}]


def test_every_kind_of_block_has_its_chunks() -> None:
    """Every kind of block has its chunks, for each of two choices."""
    token = {"token": "x", "logprob": -1}
    found = chunks(
        [
            domain.Started("id", "model", ORIGIN, 1, {"system_fingerprint": "fp"}),
            domain.ThinkingDelta(0, "hm"),
            call(1),
            domain.InputDelta(1, "{"),
            domain.InputDelta(1, "}"),
            domain.BlockStarted(2, 1, domain.Refusal("")),
            domain.RefusalDelta(2, "no"),
            domain.BlockStarted(3, 1, domain.Audio(domain.Media(), "a1")),
            domain.MediaDelta(3, "AAEC", "la", expires=5),
            domain.MediaDelta(3, "AAEC"),
            domain.BlockStarted(4, 1, domain.Text("")),
            domain.TextDelta(4, "x", (token,)),
            domain.CitationDelta(4, domain.Citation("u", "t", start=0, end=1)),
            domain.BlockStarted(5, 1, domain.Image(domain.Media("data:image/png;base64,AA"))),
            domain.ExtraFields(1, {"note": 1}),
            domain.BlockStarted(6, 1, domain.ServerToolCall("w", "web_search")),
            domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
            domain.Finished(1, domain.FinishReason.OTHER, "eos"),
        ]
    )
    deltas = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in found]
    source = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    assert deltas == [
        (0, {"role": "assistant", "content": None, "refusal": None}),
        (0, {"reasoning_content": "hm"}),
        (0, {"tool_calls": [{**ENTRY, "id": "c1"}]}),
        (0, {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}),
        (0, {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        (1, {"role": "assistant", "content": None, "refusal": None}),
        (1, {"refusal": "no"}),
        (1, {"audio": {"id": "a1", "data": "AAEC", "transcript": "la", "expires_at": 5}}),
        (1, {"audio": {"data": "AAEC"}}),
        (1, {"content": "x"}),
        (1, {"annotations": [source]}),
        (1, {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}),
        (1, {"note": 1}),
        (0, {}),
        (1, {}),
    ]
    assert found[9]["choices"][0]["logprobs"]["content"] == [token]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[-2:]] == ["tool_calls", "eos"]
    assert [chunk.get("system_fingerprint") for chunk in found] == ["fp", *[None] * (len(found) - 1)]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (domain.FinishReason.REFUSAL, "content_filter"),
        (domain.FinishReason.PAUSE, "length"),
        (domain.FinishReason.CONTEXT_WINDOW, "length"),
    ],
)
def test_reasons_that_the_api_has_another_word_for(reason: domain.FinishReason, expected: str) -> None:
    """Finish reasons that the API does not have are replaced by those that its clients read."""
    found = chunks([START, domain.TextDelta(0, "x"), domain.Finished(0, reason, "odd")])
    assert found[-1]["choices"][0]["finish_reason"] == expected


def test_the_first_chunk_of_a_recorded_stream_has_its_session() -> None:
    """Only the first chunk of a recorded stream has `session_id`."""
    events = [domain.TextDelta(0, "a"), domain.TextDelta(0, "b"), domain.Finished(0, domain.FinishReason.STOP, "stop")]
    found = chunks([domain.Started("id", "model", ORIGIN, 1, {"fp": "x"}, conversation_id="chat-1"), *events])
    assert [chunk.get("session_id") for chunk in found] == ["chat-1", None, None, None]
    assert found[0]["fp"] == "x"
    assert not any("session_id" in chunk for chunk in chunks([domain.Started("id", "model", ORIGIN, 1), *events]))


def test_a_delta_group_is_one_chunk() -> None:
    """A group of deltas becomes one chunk with text, thoughts, calls and unknown fields. Every call has a function."""
    token = {"token": "x", "logprob": -1}
    google = {"extra_content": {"google": {"thought_signature": "ap1.scripted:openai-chat:model-1.s"}}}
    found = chunks(
        [
            START,
            domain.DeltaGroup(0, 12),
            domain.ExtraFields(0, {"found": 1}, domain.Place.CHOICE),
            domain.BlockStarted(0, 0, domain.Thinking("", "reasoning")),
            domain.ThinkingDelta(0, "hm"),
            domain.BlockFinished(0),
            domain.BlockStarted(1, 0, domain.Text("")),
            domain.TextDelta(1, "x", (token,)),
            domain.TextDelta(1, "y"),
            call(2, type="builtin_function", state=domain.State(fields={"function": {"a": 1}})),
            domain.InputDelta(2, "{}"),
            call(3, "g", state=domain.State("s")),
            domain.ExtraFields(0, {"x": 2}),
            domain.ExtraFields(0, {"logprobs": {"refusal": [token]}}, domain.Place.CHOICE),
            domain.BlockFinished(2, domain.State("s", {"function": {"a": 1}})),
            STOP,
        ]
    )
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        FIRST,
        {
            "reasoning_content": "hm",
            "reasoning": "hm",
            "content": "xy",
            "tool_calls": [
                {"index": 0, "id": "c2", "type": "builtin_function", "function": {"name": "f", "arguments": "{}", "a": 1}},
                {"index": 1, "id": "c3", "type": "function", "function": {"name": "g", "arguments": ""}, **google},
            ],
            "x": 2,
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ""}, **google}]},
        {},
    ]
    choice = found[1]["choices"][0]
    assert (choice["found"], choice["logprobs"]) == (1, {"content": [token], "refusal": [token]})
    assert found[-1]["choices"][0]["found"] == 1


def test_calls_of_other_kinds() -> None:
    """Custom calls and function calls of 2023 stream; a call of an unknown type comes when it is complete."""
    found = chunks(
        [
            START,
            call(0, type="custom"),
            domain.InputDelta(0, "x"),
            call(1, "", type="odd"),
            domain.InputDelta(1, '{"a":1}'),
            domain.BlockFinished(1, domain.State(fields={"note": "y"})),
            domain.BlockStarted(2, 0, domain.ToolCall("", "g", "", "function_call")),
            domain.InputDelta(2, "{}"),
            domain.Finished(0, domain.FinishReason.TOOL_CALLS, "stop"),
        ]
    )
    assert [chunk["choices"][0]["delta"] for chunk in found][1:] == [
        {"tool_calls": [{"index": 0, "id": "c0", "type": "custom", "custom": {"name": "f", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]},
        {"tool_calls": [{"index": 1, "id": "c1", "type": "odd", "odd": {"a": 1}, "note": "y"}]},
        {"function_call": {"name": "g", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    assert found[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_signature_over_a_text_comes_with_its_end() -> None:
    """The signature of a text comes with the block's end, in the same chunk if both came in one delta."""
    text = [domain.BlockStarted(0, 0, domain.Text("")), domain.TextDelta(0, "Hi"), domain.BlockFinished(0, domain.State("s"))]
    google = {"extra_content": {"google": {"thought_signature": "ap1.scripted:openai-chat:model-1.s"}}}
    assert deltas(*text) == [{"content": "Hi"}, google]
    assert deltas(domain.DeltaGroup(0, 3), *text) == [{"content": "Hi", **google}]


def test_parts_that_are_not_known_stand_among_the_text() -> None:
    """Unknown content parts of a group stay in order among the text."""
    part, other = {"type": "reasoning", "summary": []}, {"type": "odd"}
    events: domain.Batch = [
        domain.BlockStarted(0, 0, domain.Opaque(state=domain.State(fields=part))),
        domain.BlockFinished(0),
        domain.BlockStarted(1, 0, domain.Text("")),
        domain.TextDelta(1, "Hi"),
        domain.TextDelta(1, "!"),
        domain.BlockFinished(1),
        domain.BlockStarted(2, 0, domain.Opaque(state=domain.State(fields=other))),
        domain.BlockFinished(2),
    ]
    content = [part, {"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}, other]
    assert deltas(domain.DeltaGroup(0, 8), *events) == [{"content": content}]


def test_unknown_fields_of_a_reply_are_sent_once() -> None:
    """Unknown fields of the reply are in the next chunk, or in the last one. Those that the provider repeats are in every chunk."""
    found = chunks(
        [
            domain.Started("id", "model", ORIGIN, 1, {"ids": [1, 2], "fp": "a"}),
            domain.TextDelta(0, "a"),
            domain.TextDelta(0, "b"),
        ],
        [
            domain.ExtraFields(None, {"fp": "a"}, domain.Place.REPLY, repeats=True),
            domain.ExtraFields(None, {"more": 1}, domain.Place.REPLY),
            domain.TextDelta(0, "c"),
            domain.TextDelta(0, "d"),
        ],
        [
            domain.ExtraFields(None, {"more": 2}, domain.Place.REPLY),
            domain.ExtraFields(None, {"fp": "b"}, domain.Place.REPLY),
            domain.ExtraFields(None, {}, domain.Place.REPLY, repeats=True),
        ],
        [domain.TextDelta(0, "e"), domain.ExtraFields(None, {"fp": "b"}, domain.Place.REPLY, repeats=True)],
        [domain.ExtraFields(None, {"citations": []}, domain.Place.REPLY), domain.Usage(1, 1, 2), STOP],
        [domain.ExtraFields(None, {"last": True}, domain.Place.REPLY)],
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


def test_tokens_written_to_a_cache_are_reported() -> None:
    """Tokens written to a cache are in the prompt's details if the provider counts them, 0 included."""
    for usage, expected in (
        (domain.Usage(7, 5, 12, cache_write_tokens=6), 6),
        (domain.Usage(7, 5, 12, cache_write_tokens=0), 0),
        (USAGE, None),
    ):
        details = chunks([START, usage, STOP], include_usage=True)[-1]["usage"]["prompt_tokens_details"]
        assert details.get("cache_write_tokens") == expected


@pytest.mark.parametrize("text", ["\n\ndata: [DONE]\n\n", "\r", "\u2028\u2029\x85\x0b\x0c", "\"'\\", "שלום 🎼", "\ud83d\ude00"])
def test_text_cannot_forge_an_event(text: str) -> None:
    """Text of the model stays inside its JSON string, also for readers that split at any kind of line end."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    writer = ChunkWriter(include_usage=False)
    data = writer.write(framed(START, domain.TextDelta(0, text))).decode()
    lines = [line for line in data.splitlines() if line]
    assert len(lines) == 2
    assert json.loads(lines[1].removeprefix("data: "))["choices"][0]["delta"]["content"] == text


TEXTS = st.sampled_from(["", "a", '",', '","', "\\", "\n\n", "data: ", "[DONE]", "\u2028\x85", "é😀", "\x00"]) | st.text(max_size=3)


TOLD = st.tuples(st.sampled_from(["text", "thought", "argument", "scored", "end"]), TEXTS)


@given(st.lists(TOLD, max_size=30), st.integers(0, 30))
def test_many_deltas_at_once_are_the_same_chunks_as_one_by_one(told: list[tuple[str, str]], cut: int) -> None:
    """Chunks of texts that arrive together are those that each would have by itself, whatever is in the texts and between them."""
    of = {
        "text": lambda text: domain.TextDelta(0, text),
        "thought": lambda text: domain.ThinkingDelta(1, text),
        "argument": lambda text: domain.InputDelta(2, text),
        "scored": lambda text: domain.TextDelta(0, text, ({"token": text},)),
        "end": lambda text: domain.ExtraFields(0, {"x": text}),
    }
    blocks = domain.BlockStarted(0, 0, domain.Text("")), domain.BlockStarted(1, 0, domain.Thinking("")), call(2)
    before: domain.Batch = [START, *blocks]
    events = [of[kind](text) for kind, text in told]
    alone = ChunkWriter(include_usage=False)
    expected = b"".join(alone.write([event]) for event in [*before, *events])
    together = ChunkWriter(include_usage=False)
    assert together.write([*before, *events[:cut]]) + together.write(events[cut:]) == expected
    assert all(event == b"" or json.loads(event.removeprefix(b"data: ")) for event in expected.split(b"\n\n"))
