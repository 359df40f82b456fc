"""Times and counts of a call."""

import pytest

from antiphon import measure
from antiphon.measure import Stopwatch, closing
from antiphon.messages import (
    ChatRequest,
    ExtraDelta,
    Finished,
    FinishReason,
    Image,
    Media,
    Message,
    Metrics,
    Role,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
)
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
    """Four characters a token, rounded up, and four for each message; pictures are not counted."""
    messages = (
        Message(Role.SYSTEM, (Text("x" * 9),)),
        Message(Role.USER, (Image(Media(url="https://x.test/a.png")),)),
        Message(Role.TOOL, (ToolResult("c", (Text("x" * 4),)),)),
    )
    watch = Stopwatch(ChatRequest("m", messages, stream=True))
    watch.see([START, TextDelta(0, "abcde")])
    assert watch.usage([STOP]) == Usage(16, 2, 18, estimated=True)


def test_usage_and_metrics_stand_before_what_ends_a_choice() -> None:
    """Once each, and after everything that is said."""
    second = Finished(1, FinishReason.STOP, "stop")
    counted = Usage(1, 1, 2)
    took = Metrics(1.0, None, None, 0, None)
    assert closing([TextDelta(0, "a"), USAGE, STOP, second], counted, took) == [TextDelta(0, "a"), counted, took, STOP, second]
