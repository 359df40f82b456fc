"""What is shown of a reply where there is room for one text."""

import pytest

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.rest.shared.shown import Shown, shown, shown_or_called

CALLED = [
    domain.ToolCallDelta(0, 3, "c", "f"),
    domain.ToolCallDelta(0, 3, arguments="{}"),
    domain.ToolCallDelta(0, 4, "d", "g", "[]"),
]
REPLAYED = {
    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}, {"id": "d", "custom": {"input": "y"}}]
}


@pytest.mark.parametrize(
    ("events", "text", "output"),
    [
        ([domain.TextDelta(0, "a"), domain.RefusalDelta(0, "b")], "ab", "ab"),
        ([domain.AudioDelta(0, data="AAAA"), domain.AudioDelta(0, transcript="c")], "c", "c"),
        (
            [domain.RefusalDelta(0, "b"), domain.TextDelta(0, "a"), domain.TextDelta(0, "d"), domain.RefusalDelta(0, "e")],
            "bade",
            "bade",
        ),
        ([domain.TextDelta(0, "a"), domain.AudioDelta(0, transcript="c"), *CALLED], "a", "a"),
        ([domain.AudioDelta(0, transcript="c"), domain.TextDelta(0, "a"), domain.AudioDelta(0, transcript="d")], "ca", "ca"),
        ([domain.TextDelta(0, ""), domain.AudioDelta(0, transcript="c"), domain.TextDelta(0, "a")], "ca", "ca"),
        ([*CALLED, domain.TextDelta(0, "a"), domain.ToolCallDelta(0, 3, arguments=" ")], "a", "{}a"),
        ([domain.ExtraDelta(0, {"function_call": {"name": "f", "arguments": "{}"}}), domain.TextDelta(0, "a")], "a", "{}a"),
        ([domain.AudioDelta(0, transcript="c"), *CALLED], "c", "c"),
        ([domain.TextDelta(0, ""), domain.ThinkingDelta(0, "hm"), *CALLED], "", "{}"),
        ([domain.ExtraDelta(0, REPLAYED)], "", "x"),
        ([domain.ExtraDelta(0, {"annotations": []})], "", ""),
        ([domain.Finished(0, domain.FinishReason.STOP, "stop")], "", ""),
    ],
)
def test_pieces_are_those_of_the_whole(events: list[domain.Event], text: str, output: str) -> None:
    """With and without a place for tool calls."""
    reply = Reply()
    for event in events:
        reply.add(event)
    assert (shown(reply.choices[0]), shown_or_called(reply.choices[0])) == (text, output)
    pieces, more = Shown(), Shown()
    assert "".join(map(pieces.text, events)) == text
    assert "".join(map(more.text_or_arguments, events)) == output
