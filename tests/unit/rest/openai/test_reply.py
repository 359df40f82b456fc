"""Tests of whole replies in the form of the OpenAI dialect."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.rest.openai import reply as module
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion, written_origin
from antiphon.rest.shared.json import dumps
from antiphon.rest.shared.message_json import message_json
from tests.unit.framing import folded
from tests.unit.scripted import ORIGIN, START, STOP


def message(*events: domain.Event) -> dict[str, Any]:
    """Return the message of the first choice."""
    found: dict[str, Any] = completion(folded(START, *events, STOP))["choices"][0]["message"]
    return found


def call(block: int, **fields: Any) -> list[domain.Event]:
    return [domain.BlockStarted(block, 0, domain.ToolCall(f"c{block}", "f", "", **fields)), domain.InputDelta(block, "{}")]


CALL = {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_whole_reply_is_a_completion_object() -> None:
    """A whole reply is a completion object with the documented nulls and with unknown fields."""
    found = completion(
        folded(
            domain.Started("id", "model", ORIGIN, 1, {"service_tier": "default"}),
            *call(0),
            domain.ExtraFields(0, {"annotations": []}),
            domain.Usage(7, 5, 12, 3, reasoning_tokens=2, extra={"cost": 1}),
            domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
        )
    )
    expected = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL], "annotations": []}
    assert found["choices"] == [{"index": 0, "message": expected, "logprobs": None, "finish_reason": "tool_calls"}]
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 3, "audio_tokens": 0}
    assert (found["object"], found["service_tier"], found["usage"]["cost"]) == ("chat.completion", "default", 1)


def test_texts_are_one_and_thoughts_are_one() -> None:
    """All texts are joined, and all thoughts, which are also in the provider's own field."""
    thought = domain.Thinking("", "reasoning")
    found = message(
        domain.BlockStarted(0, 0, thought),
        domain.ThinkingDelta(0, "h"),
        domain.TextDelta(1, "a"),
        *call(2),
        domain.BlockStarted(3, 0, thought),
        domain.ThinkingDelta(3, "m"),
        domain.TextDelta(4, "b"),
    )
    assert found["content"] == "ab"
    assert (found["reasoning_content"], found["reasoning"]) == ("hm", "hm")
    assert "reasoning_details" not in found


def test_values_of_the_only_provider_are_not_wrapped() -> None:
    """They can go nowhere else. Those of another, which answered before, are wrapped, and so are those of another protocol."""
    assert written_origin(START.origin, "scripted") == domain.Origin("openai-chat")
    for origin in (replace(START.origin, provider="old"), replace(START.origin, protocol="gemini")):
        assert written_origin(origin, "scripted") == origin
    assert written_origin(START.origin, "") == START.origin
    call = domain.ToolCall("c", "f", "{}", state=domain.State("AbC+/=="))
    events: domain.Batch = [START, domain.BlockStarted(0, 0, call), domain.BlockFinished(0), STOP]
    google = {"google": {"thought_signature": "AbC+/=="}}
    assert completion(folded(*events), "scripted")["choices"][0]["message"]["tool_calls"][0]["extra_content"] == google
    chunk = ChunkWriter(include_usage=False, sole="scripted").write(events).decode().split("\n\n")[1]
    assert json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"]["tool_calls"][0]["extra_content"] == google


def test_opaque_values_are_wrapped() -> None:
    """Signatures and encrypted thoughts are wrapped with their origin."""
    rest = {"reasoning_details": {"type": "reasoning.text", "format": "f"}}
    found = message(
        domain.BlockStarted(0, 0, domain.Thinking("", state=domain.State(fields=rest))),
        domain.ThinkingDelta(0, "hm"),
        domain.BlockFinished(0, domain.State("a", rest)),
        domain.BlockStarted(1, 0, domain.RedactedThinking(state=domain.State("b"))),
        domain.TextDelta(2, "Hi"),
        domain.BlockFinished(2, domain.State("c")),
        *call(3, state=domain.State("d", origin=domain.Origin(provider="else"))),
    )
    assert found["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "format": "f", "text": "hm", "signature": "ap1.scripted:openai-chat:model-1.a"},
        {"type": "reasoning.encrypted", "index": 1, "data": "ap1.scripted:openai-chat:model-1.b"},
    ]
    assert found["extra_content"] == {"google": {"thought_signature": "ap1.scripted:openai-chat:model-1.c"}}
    assert found["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "ap1.else.d"}}


def test_parts_that_are_not_known_stand_among_the_text() -> None:
    """Unknown content parts stay in order among the text."""
    part, other = {"type": "reasoning", "summary": []}, {"type": "odd"}
    events = [
        domain.BlockStarted(0, 0, domain.Opaque(state=domain.State(fields=part))),
        domain.TextDelta(1, "Hi"),
        domain.TextDelta(2, "!"),
        domain.BlockStarted(3, 0, domain.Opaque(state=domain.State(fields=other))),
    ]
    assert message(*events)["content"] == [part, {"type": "text", "text": "Hi!"}, other]
    assert message(*events[1:])["content"] == [{"type": "text", "text": "Hi!"}, other]


def test_blocks_of_another_protocol() -> None:
    """An unknown one has no place in this API, an image has an index, and a citation its place in the content."""
    reply = Reply()
    reply.add(
        replace(START, origin=domain.Origin("anthropic", "up", "m", "up")),
        domain.BlockStarted(0, 0, domain.Opaque(state=domain.State(fields={"type": "fallback"}))),
        domain.BlockStarted(1, 0, domain.Text("")),
        domain.TextDelta(1, "a"),
        domain.BlockStarted(2, 0, domain.Image(domain.Media("x"))),
        domain.BlockStarted(3, 0, domain.Text("")),
        domain.TextDelta(3, "bcd"),
        domain.CitationDelta(3, domain.Citation("u")),
        domain.CitationDelta(3, domain.Citation("v", "t", start=1, end=2)),
        STOP,
    )
    written = completion(reply)["choices"][0]["message"]
    assert written["content"] == "abcd"
    cited = [
        {"type": "url_citation", "url_citation": {"url": "u", "title": "", "start_index": 1, "end_index": 4}},
        {"type": "url_citation", "url_citation": {"url": "v", "title": "t", "start_index": 2, "end_index": 3}},
    ]
    assert written["annotations"] == cited
    assert message_json(reply.message())["annotations"] == cited
    assert written["images"] == [{"index": 0, "type": "image_url", "image_url": {"url": "x"}}]
    assert message_json(reply.message())["content"] == "abcd"


def test_sources_pictures_and_sound() -> None:
    """Citations, images and sound have the form of the API."""
    found = message(
        domain.TextDelta(0, "Hi"),
        domain.CitationDelta(0, domain.Citation("u", "t", start=0, end=2, fields={"url_citation": {"x": 1}})),
        domain.BlockStarted(1, 0, domain.Image(domain.Media("u"), state=domain.State("sig", {"index": 0}))),
        domain.BlockStarted(2, 0, domain.Audio(domain.Media(), "a")),
        domain.MediaDelta(2, "AAAA", "la", expires=7),
        domain.MediaDelta(2, "BBBB"),
    )
    cited = {"url": "u", "title": "t", "start_index": 0, "end_index": 2, "x": 1}
    assert found["annotations"] == [{"type": "url_citation", "url_citation": cited}]
    (image,) = found["images"]
    assert image.pop("extra_content")["google"]["thought_signature"].endswith(".sig")
    assert image == {"type": "image_url", "image_url": {"url": "u"}, "index": 0}
    assert found["audio"] == {"id": "a", "data": "AAAABBBB", "expires_at": 7, "transcript": "la"}


@pytest.mark.parametrize(
    ("block", "given", "field", "expected"),
    [
        (
            domain.ToolCall("c", "f", "", "custom"),
            "x",
            "tool_calls",
            [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}],
        ),
        (domain.ToolCall("", "f", "", "function_call"), "{}", "function_call", {"name": "f", "arguments": "{}"}),
        (
            domain.ToolCall("c", "", "", "odd", state=domain.State(fields={"note": 1})),
            '{"a":1}',
            "tool_calls",
            [{"id": "c", "type": "odd", "odd": {"a": 1}, "note": 1}],
        ),
    ],
)
def test_calls_of_other_kinds(block: domain.Block, given: str, field: str, expected: object) -> None:
    """Custom calls, function calls of 2023 and calls of unknown types have their own forms."""
    assert message(domain.BlockStarted(0, 0, block), domain.InputDelta(0, given))[field] == expected


TEXTS = st.text(max_size=3)
FIELDS = st.sampled_from([{}, {"annotations": []}, {"content": "x"}, {"refusal": None}, {"x": {"y": 1}}])
VALUES = st.sampled_from(
    [
        *[domain.Text("")] * 4,
        domain.Text("", state=domain.State("sig")),
        domain.Text("", state=domain.State(fields={"extra_content": {"x": 1}})),
        domain.Text("", citations=(domain.Citation(url="https://x.test/"),)),
        domain.Thinking(""),
        domain.Refusal(""),
    ]
)


@st.composite
def replies(draw: st.DrawFn) -> list[domain.Event]:
    """Draw the events of a reply, of which most are one text."""
    origin = draw(st.sampled_from([ORIGIN, domain.Origin("openai", "host", "m", "host"), domain.Origin("gemini", "g", "m", "g")]))
    events: list[domain.Event] = [domain.Started("id", "m", origin, 1)]
    for block in range(draw(st.sampled_from([1, 1, 1, 0, 2]))):
        value = draw(VALUES)
        events.append(domain.BlockStarted(block, 0, value))
        logprobs = draw(st.sampled_from([(), (), ({"token": "a"},)]))
        match value:
            case domain.Text():
                events += [domain.TextDelta(block, text, logprobs) for text in draw(st.lists(TEXTS, max_size=2))]
                if draw(st.sampled_from([False, False, True])):
                    events.append(domain.CitationDelta(block, domain.Citation(url="https://y.test/")))
            case domain.Thinking():
                events.append(domain.ThinkingDelta(block, draw(TEXTS)))
            case _:
                events.append(domain.RefusalDelta(block, draw(TEXTS)))
        events.append(domain.BlockFinished(block, draw(st.sampled_from([None, None, domain.State("late")]))))
    for place in (domain.Place.MESSAGE, domain.Place.CHOICE):
        if fields := draw(FIELDS):
            events.append(domain.ExtraFields(0, fields, place))
    reason = draw(st.sampled_from(domain.FinishReason))
    return [*events, domain.Usage(1, 2, 3), domain.Finished(0, reason, draw(st.sampled_from(["", "stop", "function_call"])))]


@given(replies())
def test_plain_choices_are_the_same_by_both_ways(events: list[domain.Event]) -> None:
    """The short way for one plain text writes, byte for byte, what the way of all replies does."""
    reply = folded(*events)
    short = dumps(completion(reply))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_plain_choice", lambda *_: None)
        assert short == dumps(completion(reply))


@pytest.mark.parametrize("fields", [(), (domain.ExtraFields(0, {"annotations": []}),)])
def test_one_plain_text_is_written_the_short_way(fields: tuple[domain.Event, ...]) -> None:
    reply = folded(START, domain.BlockStarted(0, 0, domain.Text("")), domain.TextDelta(0, "Hi"), *fields, STOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(module, "_choice")
        assert completion(reply)["choices"][0]["message"]["content"] == "Hi"
