"""What is told of a reply is what can be stored."""

import pytest

from antiphon.domain.events import (
    AudioDelta,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from antiphon.history.storable import storable


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (TextDelta(0, "a\0b"), TextDelta(0, "a\ufffdb")),
        (RefusalDelta(1, "\0"), RefusalDelta(1, "\ufffd")),
        (ThinkingDelta(0, "\0\0", "s"), ThinkingDelta(0, "\ufffd\ufffd", "s")),
        (ToolCallDelta(0, 0, "id", "f", '"\0'), ToolCallDelta(0, 0, "id", "f", '"\ufffd')),
        (ToolCallDelta(0, 0, "", extra={"x": "\0"}), ToolCallDelta(0, 0, "", extra={"x": "\ufffd"})),
        (ToolCallDelta(0, 0, "", "f", "\0", extra={"x": 1}), ToolCallDelta(0, 0, "", "f", "\ufffd", extra={"x": 1})),
        (AudioDelta(0, transcript="\0"), AudioDelta(0, transcript="\ufffd")),
        (ExtraDelta(0, {"a\0": ["\0", {"b": 1}]}), ExtraDelta(0, {"a\ufffd": ["\ufffd", {"b": 1}]})),
    ],
)
def test_a_nul_is_replaced(event: Event, told: Event) -> None:
    """Wherever a model may write one."""
    assert storable(event) == told


@pytest.mark.parametrize(
    "event",
    [
        TextDelta(0, "a\ufffd \\u0000"),
        ExtraDelta(0, {"a": "\\u0000"}),
        Finished(0, FinishReason.STOP, "stop"),
        ToolCallDelta(0, 0, "i"),
    ],
)
def test_all_else_is_left_alone(event: Event) -> None:
    """Also what only looks like one."""
    assert storable(event) == event
