"""Tests of the times and token counts of a call."""

import pytest

from antiphon.chat import stopwatch
from antiphon.chat.stopwatch import Stopwatch, closing
from antiphon.domain.content import (
    Image,
    Media,
    Message,
    Opaque,
    RedactedThinking,
    Role,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.events import (
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Metrics,
    Place,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest
from tests.unit.scripted import START, STOP, USAGE

CALL = BlockStarted(0, 0, ToolCall("c", "f", ""))
REQUEST = ChatRequest("m", (Message(Role.USER, (Text("x" * 8),)),), stream=True)


class Clock:
    """A clock that a test sets by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch, "time", made)
    return made


def test_the_times_of_a_stream(clock: Clock) -> None:
    """Metrics have the latency, the time to the first token and the mean time between chunks.

    Chunks of one batch have no time between them.
    """
    watch = Stopwatch(REQUEST)
    clock.now = 100.5
    watch.see([START])
    clock.now = 101.0
    watch.see([ThinkingDelta(0, "hm")])
    clock.now = 102.0
    watch.see([TextDelta(0, "a"), CALL])
    clock.now = 104.0
    watch.see([TextDelta(0, "b"), ExtraFields(0, {"x": 1}), USAGE, STOP])
    clock.now = 105.0
    assert watch.metrics(0.5) == Metrics(4.0, 1.0, 1.0, 4, 0.5)


def test_a_call_and_its_first_arguments_are_one_chunk(clock: Clock) -> None:
    """The start of a tool call and its first arguments count as one chunk; every other delta is one."""
    watch = Stopwatch(REQUEST)
    watch.see([START, CALL, InputDelta(0, "{"), InputDelta(0, "}"), BlockFinished(0)])
    watch.see([BlockStarted(1, 0, ToolCall("d", "g", "")), BlockStarted(2, 0, Text("")), TextDelta(2, "x"), TextDelta(2, "")])
    assert watch.metrics(None).chunks == 4


def test_times_without_deltas_are_none(clock: Clock) -> None:
    """Without a delta there is no time to the first token, and with one chunk no time between chunks."""
    watch = Stopwatch(REQUEST)
    clock.now = 101.0
    watch.see([START])
    assert watch.metrics(None) == Metrics(1.0, None, None, 0, None)
    watch.see([TextDelta(0, "a")])
    assert watch.metrics(None) == Metrics(1.0, 1.0, None, 1, None)


def test_the_providers_count_is_the_count() -> None:
    """The provider's last usage is returned as it is, even if all its counts are 0."""
    watch = Stopwatch(REQUEST)
    watch.see([USAGE, STOP])
    assert watch.usage() is USAGE
    nothing = Usage(0, 0, 0)
    watch.see([nothing])
    assert watch.usage() is nothing


def test_a_count_from_before_the_output() -> None:
    """A provider may count the prompt at the start of a reply: of one that breaks off, only the output is estimated."""
    watch = Stopwatch(REQUEST)
    watch.see([START, Usage(500, 1, 501, cached_tokens=400, estimated=True)])
    assert watch.usage() == Usage(500, 1, 501, cached_tokens=400, estimated=True)
    watch.see([TextDelta(0, "x" * 40)])
    assert watch.usage() == Usage(500, 10, 510, cached_tokens=400, estimated=True)
    watch.see([Usage(500, 12, 512)])
    assert watch.usage() == Usage(500, 12, 512)


def test_an_estimate_says_that_it_is_one() -> None:
    """Missing usage is estimated and marked so: a token for four characters, rounded up, and four tokens for each message."""
    messages = (Message(Role.SYSTEM, (Text("x" * 9),)), Message(Role.TOOL, (ToolResult("c", (Text("x" * 4),)),)))
    watch = Stopwatch(ChatRequest("m", messages, stream=True))
    watch.see([START, TextDelta(0, "abcde")])
    assert watch.usage() == Usage(12, 2, 14, estimated=True)


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([TextDelta(0, "x" * 40)], 10),
        ([BlockStarted(0, 0, Thinking("")), ThinkingDelta(0, "x" * 40), BlockFinished(0, State("s" * 400))], 10),
        ([BlockStarted(0, 0, RedactedThinking(state=State("x" * 40)))], 10),
        ([BlockStarted(0, 0, ToolCall("call_1", "look_up_", "")), InputDelta(0, "x" * 40)], 12),
        ([BlockStarted(0, 0, ToolCall("call_1", "look_up_", "", state=State("s" * 40, {"custom": "x" * 32})))], 10),
        ([RefusalDelta(0, "x" * 40)], 10),
        ([MediaDelta(0, "A" * 4000, "x" * 40)], 960 + 10),
        ([ExtraFields(0, {"note": "x" * 40}), ExtraFields(0, {"filter": "x" * 400}, Place.CHOICE)], 10),
        ([BlockStarted(0, 0, Opaque(state=State(fields={"n": 1, "text": "xxxx"})))], 1),
        ([BlockStarted(0, 0, Image(Media("A" * 4000)))], 2000),
    ],
)
def test_all_that_a_model_says_counts(events: list[Event], tokens: int) -> None:
    """The estimate counts every kind of delta, unknown fields included, but neither signatures nor fields of a content filter."""
    watch = Stopwatch(REQUEST)
    watch.see([START, *events])
    assert watch.usage().output_tokens == tokens


def test_a_recording_counts_once() -> None:
    """Sound counts once for each block, however many pieces it comes in."""
    watch = Stopwatch(REQUEST)
    for block in (0, 1, 0):
        watch.see([MediaDelta(block, "AAAA")])
    assert watch.usage().output_tokens == 2 * 960


def test_the_estimate_of_a_cut_call_counts_the_text_so_far() -> None:
    """The estimate of a call that was cut counts what came until then."""
    watch = Stopwatch(REQUEST)
    watch.see([START, CALL, InputDelta(0, "x" * 39)])
    assert watch.usage() == Usage(6, 10, 16, estimated=True)


def test_usage_and_metrics_stand_before_what_ends_a_choice() -> None:
    """The last batch has usage and metrics once, after all deltas and before the finished choices."""
    second = Finished(1, FinishReason.STOP, "stop")
    counted = Usage(1, 1, 2)
    took = Metrics(1.0, None, None, 0, None)
    assert closing([TextDelta(0, "a"), USAGE, STOP, second], counted, took) == [TextDelta(0, "a"), counted, took, STOP, second]
