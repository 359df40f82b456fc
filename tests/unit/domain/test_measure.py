"""Times and counts of a call."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.domain import measure
from antiphon.domain.content import (
    Audio,
    File,
    Image,
    Media,
    Message,
    Other,
    Part,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.events import (
    AudioDelta,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    Metrics,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from antiphon.domain.measure import Stopwatch, _long_base64, closing, prompt_tokens
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NativeFormat, NativeTool, Tool
from tests.unit.scripted import START, STOP, USAGE

ASKED = ChatRequest("m", (Message(Role.USER, (Text("x" * 8),)),), stream=True)


class Clock:
    """Says what time it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    return made


def test_the_times_of_a_stream(clock: Clock) -> None:
    """Latency to the last batch; the first token; the mean of the times between chunks, those of one batch having none between."""
    watch = Stopwatch(ASKED)
    clock.now = 100.5
    watch.see([START])
    clock.now = 101.0
    watch.see([ThinkingDelta(0, "hm")])
    clock.now = 102.0
    watch.see([TextDelta(0, "a"), ToolCallDelta(0, 0, "c", "f")])
    clock.now = 104.0
    watch.see([TextDelta(0, "b"), ExtraDelta(0, {"x": 1}), USAGE, STOP])
    clock.now = 105.0
    assert watch.metrics(0.5) == Metrics(4.0, 1.0, 1.0, 4, 0.5)


def test_times_that_there_are_none_of(clock: Clock) -> None:
    """Nothing said has no first token, and one chunk nothing between."""
    watch = Stopwatch(ASKED)
    clock.now = 101.0
    watch.see([START])
    assert watch.metrics(None) == Metrics(1.0, None, None, 0, None)
    watch.see([TextDelta(0, "a")])
    assert watch.metrics(None) == Metrics(1.0, 1.0, None, 1, None)


def test_the_providers_count_is_the_count() -> None:
    """Also where it is nothing."""
    watch = Stopwatch(ASKED)
    assert watch.usage([USAGE, STOP]) is USAGE
    nothing = Usage(0, 0, 0)
    assert watch.usage([nothing, STOP]) is nothing


def test_an_estimate_says_that_it_is_one() -> None:
    """Four characters a token, rounded up, and four tokens for each message."""
    messages = (Message(Role.SYSTEM, (Text("x" * 9),)), Message(Role.TOOL, (ToolResult("c", (Text("x" * 4),)),)))
    watch = Stopwatch(ChatRequest("m", messages, stream=True))
    watch.see([START, TextDelta(0, "abcde")])
    assert watch.usage([STOP]) == Usage(12, 2, 14, estimated=True)


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        (TextDelta(0, "x" * 40), 10),
        (ThinkingDelta(0, "x" * 40, signature="s" * 400), 10),
        (ThinkingDelta(0, "", redacted="x" * 40), 10),
        (ToolCallDelta(0, 0, "call_1", "look_up_", "x" * 40), 12),
        (ToolCallDelta(0, 0, "call_1", "look_up_", extra={"custom": {"input": "x" * 32}}), 10),
        (RefusalDelta(0, "x" * 40), 10),
        (AudioDelta(0, "a", data="A" * 4000, transcript="x" * 40), 960 + 10),
        (ExtraDelta(0, {"function_call": {"name": "look_up_", "arguments": "x" * 32}}, {"filter": "x" * 400}), 10),
        (ExtraDelta(0, {"content": [{"n": 1, "text": "xxxx"}, {"url": "A" * 4000}]}), 2001),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_a_model_says_counts(event: Event, tokens: int) -> None:
    """Each kind of delta, those of fields that only the provider knows too; neither signatures nor what a filter found."""
    watch = Stopwatch(ASKED)
    watch.see([START, event])
    assert watch.usage([STOP]).completion_tokens == tokens


def test_a_recording_counts_once() -> None:
    """In however many pieces it comes; each choice has its own."""
    watch = Stopwatch(ASKED)
    for choice in (0, 1, 0):
        watch.see([AudioDelta(choice, data="AAAA")])
    assert watch.usage([STOP]).completion_tokens == 2 * 960


def test_a_call_that_is_broken_off_has_what_had_come() -> None:
    """The estimate needs no last batch."""
    watch = Stopwatch(ASKED)
    watch.see([START, ToolCallDelta(0, 0, "c", "f", "x" * 39)])
    assert watch.usage([]) == Usage(6, 10, 16, estimated=True)


DATA = "A" * 100_000
"""Base64 that would be 25,000 tokens as text."""


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (Text("x" * 40), 10),
        (Text("x" * 40, {"cache_control": {}}), 15),
        (Thinking("x" * 40, signature="s" * 400), 10),
        (Refusal("x" * 40), 10),
        (ToolCall("call_1", "look_up_", "x" * 40), 12),
        (ToolCall("call_1", "f", "xxx", extra={"x": "1"}), 4),
        (ToolResult("call_1", (Text("x" * 40), Image(Media(file_id="f")))), 775),
        (Image(Media(url="https://x.test/a.png")), 765),
        (Image(Media(url=f"data:image/png;base64,{DATA}"), "high"), 765),
        (Image(Media(url=f"data:image/png;base64,{DATA}"), "low"), 85),
        (Audio(Media(url=f"data:audio/wav;base64,{DATA}")), 960),
        (Video(Media(url=f"data:video/mp4;base64,{DATA}")), 7890),
        (File(Media(file_id="f")), 2000),
        (File(Media(url="https://x.test/a.pdf"), "four"), 2001),
        (File(Media(url="data:application/pdf;base64,AAAA")), 2000),
        (File(Media(url=f"data:application/pdf;base64,{DATA}")), 4000),
        (File(Media(url=f"data:text/plain;base64,{DATA}")), 18_750),
        (File(Media(url="data:text/plain," + "x" * 40)), 10),
        (Other({"type": "x", "content": "x" * 12}), 10),
        (Other({"type": "image_url", "image_url": f"data:image/png;base64,{DATA}"}), 765 + 15),
        (Other({"type": "input_audio", "input_audio": DATA}), 960 + 10),
        (Other({"type": "document", "document": DATA}), 2000 + 9),
        (Other({"type": ["x"]}), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_a_message_holds_counts(part: Part, tokens: int) -> None:
    """Each kind of part; media by a flat figure, and never by the characters of their base64."""
    assert prompt_tokens(ChatRequest("m", (Message(Role.USER, (part,)),), stream=True)) == 4 + tokens


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"tools": (Tool("look_up_", "x" * 32),)}, 14),
        ({"tools": (Tool("f", None, {"type": "object"}),)}, 4 + 1 + 5),
        ({"tools": (Tool("f", extra={"function": {"x": 1}}),)}, 4 + 1 + 5),
        ({"tools": (NativeTool({"type": "web_search"}),)}, 4 + 6),
        ({"response_format": JsonObjectFormat()}, 0),
        ({"response_format": JsonSchemaFormat("name", {"type": "object"}, "x" * 40)}, 11 + 5),
        ({"response_format": NativeFormat({"type": "grammar"})}, 5),
        ({"extra": {"functions": [{"name": "f"}]}}, 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_a_request_holds_counts(fields: dict[str, Any], tokens: int) -> None:
    """Tools, schemas, and what only the provider knows, as JSON; each tool is four more, as a message is."""
    assert prompt_tokens(replace(ASKED, **fields)) == 6 + tokens


def test_what_is_beside_the_parts_counts() -> None:
    """A name, and calls of the form of 2023."""
    message = Message(Role.ASSISTANT, (), "anna", {"function_call": {"name": "f"}})
    assert prompt_tokens(ChatRequest("m", (message,), stream=True)) == 4 + 1 + 8


def test_usage_and_metrics_stand_before_what_ends_a_choice() -> None:
    """Once each, and after everything that is said."""
    second = Finished(1, FinishReason.STOP, "stop")
    counted = Usage(1, 1, 2)
    took = Metrics(1.0, None, None, 0, None)
    assert closing([TextDelta(0, "a"), USAGE, STOP, second], counted, took) == [TextDelta(0, "a"), counted, took, STOP, second]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("aZ9/="), st.sampled_from([1, 3, 499, 500, 501, 999, 1000, 1001, 2500]), st.sampled_from(["", " ", '"'])
        ),
        max_size=6,
    )
)
def test_base64_is_found_wherever_it_begins(runs: list[tuple[str, int, str]]) -> None:
    """As a regular expression finds it, which would take too long."""
    text = "".join(letter * length + end for letter, length, end in runs)
    rest, found = re.subn("[A-Za-z0-9+/=]{1000,}", "", text)
    assert _long_base64(text.encode()) == (found, len(text) - len(rest))
