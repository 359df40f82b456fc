"""One choice of the OpenAI API: what comes in one delta, and what a whole message adds to a stream."""

from typing import Any

import pytest

from antiphon.domain.events import Batch, DeltaGroup, Event, ExtraDelta, TextDelta, ThinkingDelta, ToolCallDelta
from antiphon.providers.openai.choice import ChoiceReader, Streamed

Json = dict[str, Any]


def read(*choices: Json, is_object: bool = False) -> Batch:
    """The events of the choice; "object" in one is that of its chunk."""
    reader = ChoiceReader(0, frozenset(), is_object=is_object)
    events: Batch = []
    for choice in choices:
        reader.read({name: value for name, value in choice.items() if name != "object"}, choice, events)
    return events + reader.end()


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}
SIGNED = ToolCallDelta(0, 0, "c1", "f", "{}", extra={"extra_content": {"x": 1}})


def test_what_came_in_one_delta_is_a_group() -> None:
    """All kinds of it, fields beside it included; what is one event alone is none, and neither is a whole reply."""
    token = {"token": "a", "logprob": -1.0}
    delta = {"content": "a", "reasoning": "hm", "tool_calls": [CALL, {**CALL, "index": 1, "id": "c2"}], "x": 1}
    choice = {"delta": delta, "logprobs": {"content": [token], "refusal": [token]}, "found": 2}
    events: list[Event] = [
        ExtraDelta(0, {}, {"found": 2}),
        ThinkingDelta(0, "hm", field="reasoning"),
        TextDelta(0, "a", (token,)),
        SIGNED,
        ToolCallDelta(0, 1, "c2", "f", "{}", extra={"extra_content": {"x": 1}}),
        ExtraDelta(0, {"x": 1}, {"logprobs": {"refusal": [token]}}),
    ]
    assert read(choice) == [DeltaGroup(0, 6), *events]
    assert read({"delta": {"content": "a", "tool_calls": [CALL]}}) == [DeltaGroup(0, 2), TextDelta(0, "a"), SIGNED]
    assert read({"delta": {"tool_calls": [CALL]}}) == [SIGNED]
    assert read({"message": delta, "found": 2}, is_object=True)[0] == ExtraDelta(0, {}, {"found": 2})


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
    "a call of no function": STREAMED["a call of no function"][0],
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_whole_message_that_repeats_a_stream(name: str) -> None:
    """Nothing of it is told again, however often it comes."""
    pieces = [{"delta": delta} for delta in STREAMED[name]]
    whole = {"message": {"role": "assistant", **WHOLE[name]}, "finish_reason": "stop", "object": "chat.completion"}
    assert read(*pieces, whole, whole) == read(*pieces)
    chunk = {**whole, "object": "chat.completion.chunk"}
    assert read(*pieces, chunk) == read(*pieces)


def test_a_whole_message_that_goes_on() -> None:
    """What did not stream is told, once: the rest of a text, a text behind thoughts, all of it."""
    whole = {"message": {"content": "Hello there", "reasoning_content": "hm", "x": 1}, "finish_reason": "stop"}
    rest = [DeltaGroup(0, 3), ThinkingDelta(0, "hm"), TextDelta(0, " there"), ExtraDelta(0, {"x": 1})]
    assert read({"delta": {"content": "Hello"}}, whole)[1:] == rest
    thought = {"delta": {"reasoning_content": "hm"}}
    assert read(thought, whole)[1:] == [DeltaGroup(0, 2), TextDelta(0, "Hello there"), ExtraDelta(0, {"x": 1})]
    assert read({"delta": {"role": "assistant", "content": ""}}, whole) == read(whole)
    assert read({"delta": {}, **whole}) == read(whole)
    assert [type(event) for event in read(whole)] == [DeltaGroup, ThinkingDelta, TextDelta, ExtraDelta]


def test_a_whole_message_that_contradicts() -> None:
    """What was told cannot be taken back: it stays, and the message is left."""
    for other in ("Bye now, friend", "Hel", "", None, 7):
        whole = {"message": {"content": other}, "finish_reason": "stop"}
        assert read({"delta": {"content": "Hello"}}, whole) == [TextDelta(0, "Hello")]


def test_a_host_that_streams_messages() -> None:
    """Its pieces are pieces, whatever it calls their chunks."""
    pieces = [{"message": {"content": "Hel"}}, {"message": {"content": "lo"}, "finish_reason": "stop"}]
    for kind in ("chat.completion.chunk", "chat.completion"):
        assert read(*({**piece, "object": kind} for piece in pieces)) == [TextDelta(0, "Hel"), TextDelta(0, "lo")]


def test_the_rest_of_a_text_that_is_not_kept() -> None:
    """Only its length and its last piece are known."""
    text = Streamed()
    assert text.rest("Hello") == "Hello"
    text.add("Hel")
    text.add("lo")
    assert [text.rest(whole) for whole in ("Hello", "Hello!", "Hel", "Hallo!", "Herzo!", None, ["Hello!"])] == [
        *("", "!", "", "!", "", "", ""),
    ]
