"""A reply that is put together from events."""

from antiphon import messages as m
from antiphon.reply import Reply
from tests.unit.scripted import START, STOP, USAGE


def test_deltas_add_up() -> None:
    """Text, thought, refusal, sound, tool calls and unknown fields, in whatever order they come."""
    reply = Reply()
    events: list[m.Event] = [
        START,
        m.ThinkingDelta(0, "I "),
        m.ToolCallDelta(1, 1, "call-b", "b", ""),
        m.TextDelta(0, "Hel", ({"token": "Hel", "logprob": -1},)),
        m.ThinkingDelta(0, "think", signature="sig"),
        m.ToolCallDelta(1, 0, "call-a", "a", '{"x"'),
        m.TextDelta(0, "lo"),
        m.ToolCallDelta(1, 0, arguments=": 1}"),
        m.RefusalDelta(1, "no"),
        m.AudioDelta(0, "audio-1", "AAAA", "la"),
        m.AudioDelta(0, None, "BBBB", "la", 17),
        m.ExtraDelta(0, {"annotations": [1], "note": "a", "n": 1}),
        m.ExtraDelta(0, {"annotations": [2], "note": "b", "n": 2}),
        USAGE,
        STOP,
        m.Finished(1, m.FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    for event in events:
        reply.add(event)
    first, second = reply.choices
    assert ("".join(first.text), "".join(first.thinking), first.signature) == ("Hello", "I think", "sig")
    assert first.logprobs == [{"token": "Hel", "logprob": -1}]
    assert first.audio is not None
    assert (first.audio.id, first.audio.data, first.audio.expires) == ("audio-1", ["AAAA", "BBBB"], 17)
    assert first.extra == {"annotations": [1, 2], "note": "ab", "n": 2}
    calls = [second.tool_calls[index].value() for index in sorted(second.tool_calls)]
    assert calls == [m.ToolCall("call-a", "a", '{"x": 1}'), m.ToolCall("call-b", "b", "")]
    assert (second.refusal, second.reason) == (["no"], m.FinishReason.TOOL_CALLS)
    assert (reply.started, reply.usage) == (START, USAGE)
