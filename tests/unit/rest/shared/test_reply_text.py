"""Tests of the single text that stands for a reply."""

import pytest

from antiphon import domain
from antiphon.rest.shared.reply_text import ReplyTextStream, reply_text, reply_text_or_arguments
from tests.unit.framing import folded, framed

CALLED = [
    domain.BlockStarted(3, 0, domain.ToolCall("c", "f", "")),
    domain.InputDelta(3, "{}"),
    domain.BlockStarted(4, 0, domain.ToolCall("d", "g", "")),
    domain.InputDelta(4, "[]"),
]
CUSTOM = domain.ToolCall("c", "f", "", "custom")


@pytest.mark.parametrize(
    ("events", "text", "output"),
    [
        ([domain.TextDelta(0, "a"), domain.RefusalDelta(1, "b")], "ab", "ab"),
        ([domain.MediaDelta(0, "AAAA"), domain.MediaDelta(0, transcript="c")], "c", "c"),
        (
            [domain.RefusalDelta(0, "b"), domain.TextDelta(1, "a"), domain.TextDelta(1, "d"), domain.RefusalDelta(2, "e")],
            "bade",
            "bade",
        ),
        ([domain.TextDelta(0, "a"), domain.MediaDelta(1, transcript="c"), *CALLED], "a", "a"),
        ([domain.MediaDelta(0, transcript="c"), domain.TextDelta(1, "a"), domain.MediaDelta(0, transcript="d")], "ca", "ca"),
        ([domain.MediaDelta(0, transcript="c"), domain.TextDelta(1, ""), domain.TextDelta(1, "a")], "ca", "ca"),
        ([*CALLED, domain.TextDelta(5, "a"), domain.InputDelta(3, " ")], "a", "{}a"),
        ([domain.MediaDelta(0, transcript="c"), *CALLED], "c", "c"),
        ([domain.ThinkingDelta(0, "hm"), *CALLED, domain.TextDelta(5, "")], "", "{}"),
        ([domain.BlockStarted(0, 0, CUSTOM), domain.InputDelta(0, "x")], "", "x"),
        ([domain.ExtraFields(0, {"annotations": []})], "", ""),
        ([domain.Finished(0, domain.FinishReason.STOP, "stop")], "", ""),
    ],
)
def test_pieces_are_those_of_the_whole(events: list[domain.Event], text: str, output: str) -> None:
    """The streamed pieces add up to the text of the whole reply, with and without arguments of tool calls."""
    reply = folded(*events)
    assert (reply_text(reply.choices[0]), reply_text_or_arguments(reply.choices[0])) == (text, output)
    pieces, more = ReplyTextStream(), ReplyTextStream()
    assert "".join(map(pieces.text, framed(*events))) == text
    assert "".join(map(more.text_or_arguments, framed(*events))) == output
