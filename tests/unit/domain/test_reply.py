"""Tests of putting a reply together from its events."""

from antiphon import domain
from antiphon.domain.reply import Reply
from tests.unit.framing import folded
from tests.unit.scripted import ORIGIN, START, STOP, USAGE


def test_deltas_add_up() -> None:
    """Deltas of all kinds add up to blocks by their block number, whatever order they come in."""
    reply = folded(
        START,
        domain.ThinkingDelta(0, "I "),
        domain.BlockStarted(1, 1, domain.ToolCall("call-b", "b", "")),
        domain.TextDelta(2, "Hel", ({"token": "Hel", "logprob": -1},)),
        domain.ThinkingDelta(0, "think"),
        domain.BlockFinished(0, domain.State("sig")),
        domain.BlockStarted(3, 1, domain.ToolCall("call-a", "a", "")),
        domain.InputDelta(3, '{"x"'),
        domain.TextDelta(2, "lo"),
        domain.CitationDelta(2, domain.Citation("u")),
        domain.InputDelta(3, ": 1}"),
        domain.BlockFinished(3, call_id="call-c"),
        domain.BlockStarted(4, 1, domain.Refusal("")),
        domain.RefusalDelta(4, "no"),
        domain.BlockStarted(5, 0, domain.Audio(domain.Media(), "audio-1")),
        domain.MediaDelta(5, "AAAA", "la"),
        domain.MediaDelta(5, "BBBB", "la", expires=17),
        domain.BlockProgress(5, "sounding"),
        domain.ExtraFields(0, {"annotations": [1], "note": "a", "n": 1}),
        domain.ExtraFields(0, {"annotations": [2], "note": "b", "n": 2}),
        domain.ExtraFields(0, {"stop_reason": 7}, domain.Place.CHOICE),
        domain.ExtraFields(None, {"fp": "x"}, domain.Place.REPLY),
        USAGE,
        STOP,
        domain.Finished(1, domain.FinishReason.TOOL_CALLS, "tool_calls", {"x": 1}),
    )
    first, second = reply.choices
    assert first.message(ORIGIN) == domain.Message(
        domain.Role.ASSISTANT,
        (
            domain.Thinking("I think", state=domain.State("sig")),
            domain.Text("Hello", (domain.Citation("u"),)),
            domain.Audio(domain.Media(), "audio-1", "lala", 17),
        ),
        origin=ORIGIN,
        fields={"annotations": [1, 2], "note": "ab", "n": 2},
    )
    assert (first.text, first.logprobs, first.choice_fields) == ("Hello", [{"token": "Hel", "logprob": -1}], {"stop_reason": 7})
    assert first.blocks[2].data == ["AAAA", "BBBB"]
    assert second.calls() == [domain.ToolCall("call-b", "b", ""), domain.ToolCall("call-c", "a", '{"x": 1}')]
    assert second.message().blocks[2] == domain.Refusal("no")
    assert (second.reason, second.details) == (domain.FinishReason.TOOL_CALLS, {"x": 1})
    assert reply.usage == USAGE
    assert reply.started is not None
    assert reply.started.fields == {"fp": "x"}
    assert reply.message() == first.message(ORIGIN)


def test_groups_and_repeated_fields_add_nothing() -> None:
    """Delta groups and repeated fields add nothing to a reply."""
    reply = folded(START, domain.DeltaGroup(0, 2), domain.ExtraFields(None, {"fp": "x"}, domain.Place.REPLY, repeats=True))
    assert (reply.started, reply.choices) == (START, [])
    assert reply.message() == domain.Message(domain.Role.ASSISTANT, ())


def test_blocks_have_the_order_of_their_numbers() -> None:
    """Blocks are ordered by their number and not by the order of their events, because a guard sends tool calls last."""
    call = domain.ToolCall("c", "f", "")
    reply = folded(START, domain.TextDelta(0, "a"), domain.TextDelta(2, "b"), domain.BlockStarted(1, 0, call), STOP)
    assert reply.message().blocks == (domain.Text("a"), call, domain.Text("b"))


def test_an_empty_text_alone_is_left_out() -> None:
    """An empty text alone is left out of the message. It is kept beside a call or unknown fields, or if it has a signature."""
    text, call = domain.TextDelta(0, ""), domain.BlockStarted(1, 0, domain.ToolCall("c", "f", ""))
    assert folded(START, text, STOP).message() == domain.Message(domain.Role.ASSISTANT, ())
    assert folded(START, domain.ThinkingDelta(1, "hm"), text, STOP).message().blocks == (domain.Thinking("hm"),)
    assert len(folded(START, text, call, STOP).message().blocks) == 2
    assert folded(START, text, domain.ExtraFields(0, {"x": 1}), STOP).message().blocks == (domain.Text(""),)
    signed = folded(START, text, domain.BlockFinished(0, domain.State("s")), STOP)
    assert signed.message().blocks == (domain.Text("", state=domain.State("s")),)


def test_unknown_fields_of_a_choice_are_no_output() -> None:
    """Unknown fields of a choice are no output; unknown fields of the message are."""
    reply = Reply()
    reply.add(domain.ExtraFields(0, {"nothing": None}))
    reply.add(domain.ExtraFields(0, {"found": {}}, domain.Place.CHOICE))
    assert not reply.has_output
    reply.add(domain.ExtraFields(0, {"x": 1}))
    assert reply.has_output
