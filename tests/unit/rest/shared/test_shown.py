"""What is shown of a reply where there is room for one text."""

import pytest

from antiphon.domain import messages as m
from antiphon.domain.reply import Reply
from antiphon.rest.shared.shown import Shown, shown, shown_or_called

CALLED = [m.ToolCallDelta(0, 3, "c", "f"), m.ToolCallDelta(0, 3, arguments="{}"), m.ToolCallDelta(0, 4, "d", "g", "[]")]
REPLAYED = {
    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}, {"id": "d", "custom": {"input": "y"}}]
}


@pytest.mark.parametrize(
    ("events", "text", "output"),
    [
        ([m.TextDelta(0, "a"), m.RefusalDelta(0, "b")], "ab", "ab"),
        ([m.AudioDelta(0, data="AAAA"), m.AudioDelta(0, transcript="c")], "c", "c"),
        ([m.RefusalDelta(0, "b"), m.TextDelta(0, "a"), m.TextDelta(0, "d"), m.RefusalDelta(0, "e")], "bade", "bade"),
        ([m.TextDelta(0, "a"), m.AudioDelta(0, transcript="c"), *CALLED], "a", "a"),
        ([m.AudioDelta(0, transcript="c"), m.TextDelta(0, "a"), m.AudioDelta(0, transcript="d")], "ca", "ca"),
        ([m.TextDelta(0, ""), m.AudioDelta(0, transcript="c"), m.TextDelta(0, "a")], "ca", "ca"),
        ([*CALLED, m.TextDelta(0, "a"), m.ToolCallDelta(0, 3, arguments=" ")], "a", "{}a"),
        ([m.ExtraDelta(0, {"function_call": {"name": "f", "arguments": "{}"}}), m.TextDelta(0, "a")], "a", "{}a"),
        ([m.AudioDelta(0, transcript="c"), *CALLED], "c", "c"),
        ([m.TextDelta(0, ""), m.ThinkingDelta(0, "hm"), *CALLED], "", "{}"),
        ([m.ExtraDelta(0, REPLAYED)], "", "x"),
        ([m.ExtraDelta(0, {"annotations": []})], "", ""),
        ([m.Finished(0, m.FinishReason.STOP, "stop")], "", ""),
    ],
)
def test_pieces_are_those_of_the_whole(events: list[m.Event], text: str, output: str) -> None:
    """With and without a place for tool calls."""
    reply = Reply()
    for event in events:
        reply.add(event)
    assert (shown(reply.choices[0]), shown_or_called(reply.choices[0])) == (text, output)
    pieces, more = Shown(), Shown()
    assert "".join(map(pieces.text, events)) == text
    assert "".join(map(more.text_or_arguments, events)) == output
