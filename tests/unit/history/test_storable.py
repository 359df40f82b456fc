"""Tests of making the events of a reply storable."""

import pytest

from antiphon.domain.content import State, Text, ToolCall
from antiphon.domain.events import (
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from antiphon.history.storable import storable


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (TextDelta(0, "a\0b"), TextDelta(0, "a\ufffdb")),
        (RefusalDelta(1, "\0"), RefusalDelta(1, "\ufffd")),
        (ThinkingDelta(0, "\0\0"), ThinkingDelta(0, "\ufffd\ufffd")),
        (InputDelta(0, '"\0'), InputDelta(0, '"\ufffd')),
        (
            BlockStarted(0, 0, ToolCall("c", "f", "", state=State("s", {"x": "\0"}))),
            BlockStarted(0, 0, ToolCall("c", "f", "", state=State("s", {"x": "\ufffd"}))),
        ),
        (BlockFinished(0, State(fields={"x": "\0"})), BlockFinished(0, State(fields={"x": "\ufffd"}))),
        (MediaDelta(0, transcript="\0"), MediaDelta(0, transcript="\ufffd")),
        (ExtraFields(0, {"a\0": ["\0", {"b": 1}]}), ExtraFields(0, {"a\ufffd": ["\ufffd", {"b": 1}]})),
    ],
)
def test_a_nul_is_replaced(event: Event, expected: Event) -> None:
    """A NUL in any text or field of an event is replaced by U+FFFD."""
    assert storable(event) == expected


@pytest.mark.parametrize(
    "event",
    [
        TextDelta(0, "a\ufffd \\u0000"),
        ExtraFields(0, {"a": "\\u0000"}),
        Finished(0, FinishReason.STOP, "stop"),
        BlockStarted(0, 0, Text("", state=State("s", {"x": 1}))),
        BlockFinished(0, State("s")),
        InputDelta(0, "i"),
    ],
)
def test_all_else_is_left_alone(event: Event) -> None:
    """An event without a NUL is returned as the same object."""
    assert storable(event) is event
