"""Tests of one choice of the OpenAI API: its deltas, and what a complete message adds to a stream."""

from typing import Any

import pytest

from antiphon.domain.content import Citation, Image, Media, Opaque, RedactedThinking, State, Text, Thinking, ToolCall
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    DeltaGroup,
    Event,
    ExtraFields,
    InputDelta,
    Place,
    TextDelta,
    ThinkingDelta,
)
from antiphon.providers.codec.blocks import BlockNumbers
from antiphon.providers.codec.values import StreamedText
from antiphon.providers.openai.choice import ChoiceReader
from tests.unit.framing import without_frames

Json = dict[str, Any]


def read(*choices: Json, is_object: bool = False) -> Batch:
    """Return the events of these pieces of a choice. A key "object" in a piece is that of its chunk."""
    reader = ChoiceReader(0, frozenset({"f"}), BlockNumbers(), is_object=is_object)
    events: Batch = []
    for choice in choices:
        reader.read({name: value for name, value in choice.items() if name != "object"}, choice, events)
    reader.end(events)
    return events


def deltas(*found: Json) -> Batch:
    """Return the events of these deltas."""
    return read(*({"delta": delta} for delta in found))


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}


def signed(block: int, call_id: str = "c1") -> Event:
    return BlockStarted(block, 0, ToolCall(call_id, "f", "", state=State(fields={"extra_content": {"x": 1}})))


def test_several_things_in_one_delta_are_a_group() -> None:
    """Several things in one delta form a group, unknown fields included. One thing alone, or a whole reply, forms none."""
    token = {"token": "a", "logprob": -1.0}
    delta = {"content": "a", "reasoning": "hm", "tool_calls": [CALL, {**CALL, "index": 1, "id": "c2"}], "x": 1}
    choice = {"delta": delta, "logprobs": {"content": [token], "refusal": [token]}, "found": 2}
    events: list[Event] = [
        ExtraFields(0, {"found": 2}, Place.CHOICE),
        BlockStarted(0, 0, Thinking("", "reasoning")),
        ThinkingDelta(0, "hm"),
        BlockFinished(0),
        BlockStarted(1, 0, Text("")),
        TextDelta(1, "a", (token,)),
        signed(2),
        InputDelta(2, "{}"),
        signed(3, "c2"),
        InputDelta(3, "{}"),
        ExtraFields(0, {"x": 1}),
        ExtraFields(0, {"logprobs": {"refusal": [token]}}, Place.CHOICE),
    ]
    assert read(choice) == [DeltaGroup(0, 12), *events, BlockFinished(1), BlockFinished(2), BlockFinished(3)]
    assert deltas({"content": "a"}) == [BlockStarted(0, 0, Text("")), TextDelta(0, "a"), BlockFinished(0)]
    group = deltas({"content": "a", "tool_calls": [CALL]})[0]
    assert group == DeltaGroup(0, 4)
    assert deltas({"tool_calls": [CALL]})[:2] == [DeltaGroup(0, 2), signed(0)]
    empty = {**CALL, "function": {"name": "f", "arguments": ""}}
    assert deltas({"tool_calls": [empty]}, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}) == [
        signed(0),
        InputDelta(0, "{}"),
        BlockFinished(0),
    ]
    assert read({"message": delta, "found": 2}, is_object=True)[0] == ExtraFields(0, {"found": 2}, Place.CHOICE)


def test_another_kind_begins_another_block() -> None:
    """A change between thoughts and text ends the block and begins another. Calls stay open until the choice ends."""
    plain = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    thought, text = {"reasoning_content": "h"}, {"content": "a"}
    found = deltas(thought, thought, text, {"tool_calls": [plain]}, thought, text, text)
    kinds = [(event.block, type(event.value)) for event in found if isinstance(event, BlockStarted)]
    assert kinds == [(0, Thinking), (1, Text), (2, ToolCall), (3, Thinking), (4, Text)]
    assert [event.block for event in found if isinstance(event, BlockFinished)] == [0, 1, 3, 4, 2]
    assert [event.block for event in found if isinstance(event, ThinkingDelta)] == [0, 0, 3]


def test_a_signature_over_text_ends_its_block() -> None:
    """Google's signature of a text ends the text's block, whether it comes with the text, after it or alone."""
    google = {"extra_content": {"google": {"thought_signature": "s"}}}
    for pieces in ([{"content": "Hi"}, google], [{"content": "H"}, {"content": "i", **google}]):
        assert deltas(*pieces)[-1] == BlockFinished(0, State("s"))
    assert deltas({"content": "Hi", **google}, {"content": "!"})[-2:] == [TextDelta(1, "!"), BlockFinished(1)]
    assert deltas(google) == [BlockStarted(0, 0, Text("")), BlockFinished(0, State("s"))]
    more = {"content": "Hi", "extra_content": {"google": {"thought_signature": "s", "thought": True}}}
    assert deltas(more)[-1] == BlockFinished(0, State("s", {"extra_content": {"google": {"thought": True}}}))
    other = {"reasoning_content": "hm", "extra_content": {"x": 1}}
    assert deltas(other)[-2:] == [ExtraFields(0, {"extra_content": {"x": 1}}), BlockFinished(0)]


def detail(index: int = 0, **fields: Any) -> Json:
    return {"type": "reasoning.text", "index": index, "format": "f", **fields}


def test_thoughts_in_details_keep_their_signatures() -> None:
    """Each entry of `reasoning_details` becomes a block with its signature; an encrypted entry becomes a block without text."""
    rest = {"reasoning_details": {"type": "reasoning.text", "index": 0, "format": "f"}}
    found = deltas(
        {"reasoning": "h", "reasoning_details": [detail(text="h")]},
        {"reasoning": "m", "reasoning_details": [detail(text="m")]},
        {"reasoning_details": [detail(signature="s")]},
        {"reasoning_details": [detail(1, text="so")]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "d", "id": "r"}]},
        {"content": "a"},
    )
    second = {"reasoning_details": {"type": "reasoning.text", "index": 1, "format": "f"}}
    assert [event for event in found if not isinstance(event, DeltaGroup)] == [
        BlockStarted(0, 0, Thinking("", "reasoning", state=State(fields=rest))),
        ThinkingDelta(0, "h"),
        ThinkingDelta(0, "m"),
        BlockFinished(0, State("s", rest)),
        BlockStarted(1, 0, Thinking("", state=State(fields=second))),
        ThinkingDelta(1, "so"),
        BlockFinished(1),
        BlockStarted(2, 0, RedactedThinking(state=State("d", {"reasoning_details": {"type": "reasoning.encrypted", "id": "r"}}))),
        BlockFinished(2),
        BlockStarted(3, 0, Text("")),
        TextDelta(3, "a"),
        BlockFinished(3),
    ]
    odd = {"reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]}
    assert deltas(odd)[-2:] == [ExtraFields(0, {"reasoning_details": [{"text": "hm"}]}), BlockFinished(0)]


def test_sources_and_pictures() -> None:
    """Citations and images in the documented form become citations and blocks; other forms stay unknown fields."""
    source = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 2, "x": 1}}
    found = deltas({"content": "Hi"}, {"annotations": [source]})
    assert CitationDelta(0, Citation("u", "t", start=0, end=2, fields={"url_citation": {"x": 1}})) in found
    for annotations in ([], [{"type": "odd"}], [source, 7]):
        assert ExtraFields(0, {"annotations": annotations}) in deltas({"content": "Hi"}, {"annotations": annotations})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}, "index": 0}
    assert deltas({"images": [image]}) == [
        BlockStarted(0, 0, Image(Media("data:image/png;base64,AA"), state=State(fields={"index": 0}))),
        BlockFinished(0),
    ]
    assert deltas({"images": ["u"]}) == [ExtraFields(0, {"images": ["u"]})]


def test_parts_of_unknown_kinds_keep_their_place() -> None:
    """Content parts of unknown types become blocks at their place among the text."""
    part = {"type": "reasoning", "summary": []}
    assert deltas({"content": [part, {"type": "text", "text": "Hi"}]})[1:] == [
        BlockStarted(0, 0, Opaque(state=State(fields=part))),
        BlockFinished(0),
        BlockStarted(1, 0, Text("")),
        TextDelta(1, "Hi"),
        BlockFinished(1),
    ]


STREAMED: dict[str, list[Json]] = {
    "text": [{"content": "Hel"}, {"content": "lo"}],
    "thoughts": [{"reasoning_content": "h"}, {"reasoning_content": "m"}],
    "thoughts under another name": [{"reasoning": "hm"}],
    "a refusal": [{"refusal": "no"}],
    "calls": [{"tool_calls": [CALL]}, {"tool_calls": [{**CALL, "index": 1, "id": "c2"}]}],
    "parts": [{"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}]}],
    "parts that are not known": [{"content": [{"type": "odd", "x": 1}]}],
    "sound": [{"audio": {"id": "a", "data": "QUJD", "transcript": "x"}}],
    "fields": [{"content": "a", "name": "M", "annotations": [1]}],
    "a function call of 2023": [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}],
    "details": [{"reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}]}],
    "a call of no function": [{"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}]}],
}
WHOLE: dict[str, Json] = {
    "text": {"content": "Hello"},
    "thoughts": {"reasoning_content": "hm", "reasoning": "hm"},
    "thoughts under another name": {"reasoning": "hm", "reasoning_content": "hm"},
    "a refusal": {"refusal": "no", "content": None},
    "calls": {"content": None, "tool_calls": [CALL, {**CALL, "index": 1, "id": "c2"}]},
    "parts": STREAMED["parts"][0],
    "parts that are not known": STREAMED["parts that are not known"][0],
    "sound": STREAMED["sound"][0],
    "fields": STREAMED["fields"][0],
    "a function call of 2023": {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
    "details": STREAMED["details"][0],
    "a call of no function": STREAMED["a call of no function"][0],
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_whole_message_that_repeats_a_stream(name: str) -> None:
    """A complete message that repeats the stream adds nothing, however often it comes."""
    pieces = [{"delta": delta} for delta in STREAMED[name]]
    whole = {"message": {"role": "assistant", **WHOLE[name]}, "finish_reason": "stop", "object": "chat.completion"}
    assert read(*pieces, whole, whole) == read(*pieces)
    chunk = {**whole, "object": "chat.completion.chunk"}
    assert read(*pieces, chunk) == read(*pieces)


def test_a_whole_message_that_goes_on() -> None:
    """A complete message adds, once, what did not stream: the rest of a text, a text after thoughts, or everything."""
    whole = {"message": {"content": "Hello there", "reasoning_content": "hm", "x": 1}, "finish_reason": "stop"}
    rest = [TextDelta(0, "Hello"), ThinkingDelta(1, "hm"), TextDelta(2, " there"), ExtraFields(0, {"x": 1})]
    assert without_frames(read({"delta": {"content": "Hello"}}, whole)) == rest
    thought = {"delta": {"reasoning_content": "hm"}}
    assert without_frames(read(thought, whole))[1:] == [TextDelta(1, "Hello there"), ExtraFields(0, {"x": 1})]
    assert read({"delta": {"role": "assistant", "content": ""}}, whole) == read(whole)
    assert read({"delta": {}, **whole}) == read(whole)
    assert [type(event) for event in without_frames(read(whole))] == [ThinkingDelta, TextDelta, ExtraFields]


def test_a_whole_message_that_contradicts() -> None:
    """A complete message that contradicts the streamed text is ignored, because sent text cannot be taken back."""
    for other in ("Bye now, friend", "Hel", "", None, 7):
        whole = {"message": {"content": other}, "finish_reason": "stop"}
        assert without_frames(read({"delta": {"content": "Hello"}}, whole)) == [TextDelta(0, "Hello")]


def test_a_host_that_streams_messages() -> None:
    """A host that streams its pieces as `message` is read as if they were deltas."""
    pieces = [{"message": {"content": "Hel"}}, {"message": {"content": "lo"}, "finish_reason": "stop"}]
    for kind in ("chat.completion.chunk", "chat.completion"):
        found = without_frames(read(*({**piece, "object": kind} for piece in pieces)))
        assert found == [TextDelta(0, "Hel"), TextDelta(0, "lo")]


def test_the_rest_of_a_text_that_is_not_kept() -> None:
    """The rest of a text is found by the length and the last piece of the streamed text, which is not kept itself."""
    text = StreamedText()
    assert text.rest("Hello") == "Hello"
    text.add("Hel")
    text.add("lo")
    assert [text.rest(whole) for whole in ("Hello", "Hello!", "Hel", "Hallo!", "Herzo!", None, ["Hello!"])] == [
        *("", "!", "", "!", "", "", ""),
    ]
