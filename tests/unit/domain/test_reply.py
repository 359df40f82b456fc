"""A reply that is put together from events."""

from antiphon import domain
from antiphon.domain.reply import Reply
from tests.unit.scripted import START, STOP, USAGE


def test_deltas_add_up() -> None:
    """Text, thought, refusal, sound, tool calls and unknown fields, in whatever order they come."""
    reply = Reply()
    events: list[domain.Event] = [
        START,
        domain.ThinkingDelta(0, "I "),
        domain.ToolCallDelta(1, 1, "call-b", "b", ""),
        domain.TextDelta(0, "Hel", ({"token": "Hel", "logprob": -1},)),
        domain.ThinkingDelta(0, "think", signature="sig"),
        domain.ToolCallDelta(1, 0, "call-a", "a", '{"x"'),
        domain.TextDelta(0, "lo"),
        domain.ToolCallDelta(1, 0, arguments=": 1}"),
        domain.RefusalDelta(1, "no"),
        domain.AudioDelta(0, "audio-1", "AAAA", "la"),
        domain.AudioDelta(0, None, "BBBB", "la", 17),
        domain.ExtraDelta(0, {"annotations": [1], "note": "a", "n": 1}),
        domain.ExtraDelta(0, {"annotations": [2], "note": "b", "n": 2}),
        USAGE,
        STOP,
        domain.Finished(1, domain.FinishReason.TOOL_CALLS, "tool_calls"),
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
    assert calls == [domain.ToolCall("call-a", "a", '{"x": 1}'), domain.ToolCall("call-b", "b", "")]
    assert (second.refusal, second.reason) == (["no"], domain.FinishReason.TOOL_CALLS)
    assert (reply.started, reply.usage) == (START, USAGE)


def test_calls_add_up_with_their_fields() -> None:
    """Names and texts in pieces are joined; groups and what is repeated add nothing."""
    reply = Reply()
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    for event in (
        domain.Started("id", "m", "p", 1, {"fp": "x"}),
        domain.DeltaGroup(0, 2),
        domain.ToolCallDelta(0, 0, "a", "get_", "{", extra=signed),
        domain.ReplyExtra({"fp": "x"}, repeats=True),
        domain.ToolCallDelta(0, 0, name="weather", arguments="}", extra={"x": 1}),
    ):
        reply.add(event)
    assert reply.choices[0].calls() == [domain.ToolCall("a", "get_weather", "{}", extra={**signed, "x": 1})]
    assert reply.started == domain.Started("id", "m", "p", 1, {"fp": "x"})
    assert not Reply().choices


def merged(*fields: domain.JsonObject, beside: bool = False) -> domain.JsonObject:
    reply = Reply()
    for one in fields:
        reply.add(domain.ExtraDelta(0, {}, one) if beside else domain.ExtraDelta(0, one))
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
    reply.add(domain.ExtraDelta(0, {"nothing": None}, {"found": {}}))
    assert not reply.said
    reply.add(domain.ExtraDelta(0, {"function_call": {}}))
    assert reply.said
