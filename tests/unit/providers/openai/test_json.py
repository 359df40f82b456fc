"""Tests of reading the JSON of hosts, which is not always valid."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import ToolCall
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import BlockStarted, Event, Finished, FinishReason, InputDelta, TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.net.json_bounds import MAX_VALUES, TooMuch
from antiphon.providers.openai.json import ChunkDecoder
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta
from tests.unit.framing import without_frames

STOP = Finished(0, FinishReason.STOP, "stop")


def streamed(*events: bytes | dict[str, Any]) -> list[Event]:
    """Return all events of a stream but its start."""
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
    data = b"".join(b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n\n" for one in events)
    batch = [*reader.feed(data), *reader.end()]
    assert reader.failure is None
    return without_frames(batch)[1:]


def text(*deltas: str, finish: str = "stop") -> str:
    """Return the text of the first choice of a stream with these deltas."""
    events = streamed(*(delta(one) for one in deltas), delta(finish=finish))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_numbers_are_read_exactly() -> None:
    """Integers of any length are read exactly, and Infinity is read too."""
    reader = ChunkDecoder()
    assert reader.read(b'{"a": 123456789012345678901234567890, "b": 1.5}') == {"a": 123456789012345678901234567890, "b": 1.5}
    assert reader.read(b"[-Infinity, Infinity]") == [-math.inf, math.inf]
    assert reader.read(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("bad", [b"", b"{", b"{]", b"nope", b'"\xff"', b"{'a': 1}", b"[1] [2]"])
def test_invalid_json_raises(bad: bytes) -> None:
    """Invalid JSON raises `ValueError`."""
    with pytest.raises(ValueError):  # noqa: PT011  # each parser raises its own subclass
        ChunkDecoder().read(bad)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.lists(st.integers(0, 16), max_size=3))
def test_a_text_may_be_cut_within_a_character(original: str, cuts: list[int]) -> None:
    """A text whose UTF-16 is cut between deltas at any place comes out unchanged."""
    halves = original.encode("utf-16-be", "surrogatepass")
    places = [0, *sorted(min(cut * 2, len(halves)) for cut in cuts), len(halves)]
    pieces = [halves[a:b].decode("utf-16-be", "surrogatepass") for a, b in itertools.pairwise(places)]
    assert text(*pieces) == original


def test_half_a_character_without_the_other_is_replaced() -> None:
    """Half a surrogate pair without its other half is replaced by U+FFFD."""
    assert text("a\ud83d") == "a\ufffd"
    assert text("a\ud83d", "b") == "a\ufffdb"
    assert text("\ude00a", "\ud83d\ud83d", "\ude00") == "\ufffda\ufffd\U0001f600"
    assert text("\ud83d", "", "\ude00") == "\U0001f600"
    body = {"id": "x", "choices": [{"message": {"content": "a\ud83d"}, "finish_reason": "stop"}]}
    events = OpenAIReader(ChatRequest("m", (), stream=True), "p").read_object(json.dumps(body).encode())
    assert without_frames(events)[1:] == [TextDelta(0, "a\ufffd"), STOP]


def test_each_text_waits_for_its_own_half() -> None:
    """Each choice and each tool call waits for the other half of its own surrogate pair."""

    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **more}}

    events = streamed(
        delta(tool_calls=[call(0, "\ud83d", name="f"), call(1, "\ud83c", name="g")]),
        delta("\ud83d", index=1),
        delta(tool_calls=[call(1, "\udfb5")]),
        delta("\ude00", index=1),
        delta(tool_calls=[call(0, "\ude00")]),
        delta(finish="tool_calls"),
        delta(finish="stop", index=1),
    )
    names = {
        event.block: event.value.name for event in events if isinstance(event, BlockStarted) and isinstance(event.value, ToolCall)
    }
    inputs = [(names[event.block], event.text) for event in events if isinstance(event, InputDelta)]
    assert sorted(inputs) == [("f", "\U0001f600"), ("g", "\U0001f3b5")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["\U0001f600"]
    cut = streamed(delta(tool_calls=[call(0, "x\ud83d", name="f")]), delta(finish="tool_calls"))
    assert "".join(event.text for event in cut if isinstance(event, InputDelta)) == "x\ufffd"


def test_log_probabilities_that_are_no_numbers() -> None:
    """A log probability of -Infinity becomes -9999, as the API writes it, and NaN becomes null."""
    token = b'{"token":"a","logprob":-Infinity,"top_logprobs":[{"token":"b","logprob":NaN}]}'
    choice = b'{"delta":{"content":"a"},"logprobs":{"content":[%b]},"finish_reason":"stop"}' % token
    event = b'{"id":"x","choices":[%b]}' % choice
    (first, _) = streamed(event)
    assert first == TextDelta(0, "a", ({"token": "a", "logprob": -9999.0, "top_logprobs": [{"token": "b", "logprob": None}]},))


def test_events_that_are_no_chunks() -> None:
    """Null, empty data and keep-alives are ignored, even as the first event, and spaces around [DONE] are allowed."""
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
    assert reader.feed(b'event: ping\ndata: {"type": "ping"}\n\ndata: {"type":"ping"}\n\ndata: null\n\ndata:   \n\n') == []
    batch = reader.feed(b"data:  " + json.dumps(delta("a", finish="stop")).encode() + b"\n\ndata:   [DONE]  \n\n")
    assert reader.ending.done
    assert [getattr(event, "fields", None) for event in batch[:1]] == [{}]
    assert without_frames([*batch[1:], *reader.end()]) == [TextDelta(0, "a"), STOP]


def test_too_many_values_are_refused() -> None:
    """A reply with more values than MAX_VALUES is handled as invalid JSON."""
    data = b'{"choices":[' + b"[]," * MAX_VALUES + b"0]}"
    with pytest.raises(TooMuch):
        ChunkDecoder().read(data)
    with pytest.raises(ProviderProtocolError):
        OpenAIReader(ChatRequest("m", (), stream=False), "p").read_object(data)
