"""A reply that is put together from events."""

from antiphon.domain import messages as m
from antiphon.domain.reply import Reply
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


def test_calls_add_up_with_their_fields() -> None:
    """Names and texts in pieces are joined; groups and what is repeated add nothing."""
    reply = Reply()
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    for event in (
        m.Started("id", "m", "p", 1, {"fp": "x"}),
        m.DeltaGroup(0, 2),
        m.ToolCallDelta(0, 0, "a", "get_", "{", extra=signed),
        m.ReplyExtra({"fp": "x"}, repeats=True),
        m.ToolCallDelta(0, 0, name="weather", arguments="}", extra={"x": 1}),
    ):
        reply.add(event)
    assert reply.choices[0].calls() == [m.ToolCall("a", "get_weather", "{}", extra={**signed, "x": 1})]
    assert reply.started == m.Started("id", "m", "p", 1, {"fp": "x"})
    assert not Reply().choices


def merged(*fields: m.JsonObject, beside: bool = False) -> m.JsonObject:
    reply = Reply()
    for one in fields:
        reply.add(m.ExtraDelta(0, {}, one) if beside else m.ExtraDelta(0, one))
    (choice,) = reply.choices
    return choice.choice_extra if beside else choice.extra


def test_fields_that_only_the_provider_knows_add_up() -> None:
    """Texts grow and names do not; objects join, in lists by index and type; null ends nothing; the events are left as they are."""
    first = {"x": {"id": "a", "type": "t", "name": "n", "input": "1"}, "n": 1, "b": True, "s": "a", "l": [1], "z": None}
    second = {"x": {"id": "a", "type": None, "name": "", "input": "2"}, "n": None, "b": False, "s": None, "l": None, "z": "z"}
    assert merged(first, second) == {
        "x": {"id": "a", "type": "t", "name": "n", "input": "12"},
        "n": None,
        "b": False,
        "s": "a",
        "l": [1],
        "z": "z",
    }
    assert merged({"channel": "analysis"}, {"channel": "final"}) == {"channel": "final"}
    assert first["x"] == {"id": "a", "type": "t", "name": "n", "input": "1"}
    details = [
        {"d": [{"index": 0, "type": "text", "text": "a", "format": "f"}, {"index": 1, "text": "x"}]},
        {"d": [{"index": 0, "type": "text", "text": "b", "format": "f"}, {"index": 0, "type": "sealed", "data": "s"}]},
        {"d": [{"index": 1, "text": "y"}, {"text": "none"}, 7]},
    ]
    assert merged(*details)["d"] == [
        {"index": 0, "type": "text", "text": "ab", "format": "f"},
        {"index": 1, "text": "xy"},
        {"index": 0, "type": "sealed", "data": "s"},
        {"text": "none"},
        7,
    ]


def test_what_is_told_of_a_choice_takes_the_place_of_what_was() -> None:
    """But lists grow, and objects join."""
    told = ({"reason": "a", "found": {"x": {"is": "safe"}}, "ids": [1]}, {"reason": "b", "found": {"x": {"n": 1}}, "ids": [2]})
    assert merged(*told, beside=True) == {"reason": "b", "found": {"x": {"is": "safe", "n": 1}}, "ids": [1, 2]}
    reply = Reply()
    reply.add(m.ExtraDelta(0, {"nothing": None}, {"found": {}}))
    assert not reply.said
    reply.add(m.ExtraDelta(0, {"function_call": {}}))
    assert reply.said
