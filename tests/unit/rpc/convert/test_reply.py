"""Replies and their events as typed messages."""

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.rpc.convert.reply import batch_to_proto, reply_to_proto
from antiphon.v1 import message_pb2
from tests.unit.scripted import START, STOP, USAGE

LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2, "bytes": None}]}
EVENTS: domain.Batch = [
    domain.Started("id", "model", "p", 1_700_000_000, {"service_tier": "default"}),
    domain.ThinkingDelta(0, "Hm", "sig", "red"),
    domain.TextDelta(0, "a", (LOGPROB,)),
    domain.ToolCallDelta(0, 1, "c1", "f", "{}", "sig", {"signed": 1}),
    domain.RefusalDelta(0, "no"),
    domain.AudioDelta(0, "a1", "AAEC", "la", 1_700_000_100),
    domain.ExtraDelta(0, {"annotations": [{"n": 1}], "large": 10**400}, {"stop_reason": 7}),
    domain.ReplyExtra({"citations": ["u"]}),
    domain.Usage(7, 5, 12, 3, 1, 2, 4, 6, {"cost": 0.5}),
    domain.Finished(0, domain.FinishReason.OTHER, "odd"),
]


def test_every_kind_of_event_has_a_typed_form() -> None:
    """With its sequence number."""
    proto = batch_to_proto(EVENTS, 5)
    assert [event.sequence for event in proto.events] == list(range(5, 15))
    kinds = [event.WhichOneof("event") for event in proto.events]
    assert kinds == ["started", "thinking", "text", "tool_call", "refusal", "audio", "extra", "reply_extra", "usage", "finished"]
    text = proto.events[2].text.logprobs[0]
    assert (text.token, text.token_bytes, text.alternatives[0].token) == ("a", b"a", "b")
    assert proto.events[5].audio.data == b"\0\1\2"
    assert (proto.events[6].extra.choice_fields["stop_reason"], proto.events[7].reply_extra.fields["citations"][0]) == (7, "u")
    assert (proto.events[8].usage.cached_prompt_tokens, proto.events[8].usage.reasoning_tokens) == (3, 2)
    assert proto.events[9].finished.provider_reason == "odd"
    assert (proto.events[3].tool_call.name, proto.events[3].tool_call.extra["signed"]) == ("f", 1)


def test_what_only_tells_how_deltas_came_has_no_typed_form() -> None:
    """Numbers go on without it."""
    group, again = domain.DeltaGroup(0, 2), domain.ReplyExtra({"fp": "x"}, repeats=True)
    proto = batch_to_proto([START, again, group, domain.ThinkingDelta(0, "a"), domain.TextDelta(0, "b")], 1)
    assert [(event.sequence, event.WhichOneof("event")) for event in proto.events] == [(1, "started"), (2, "thinking"), (3, "text")]
    assert not batch_to_proto([again], 4).events


def test_a_whole_reply_holds_what_its_events_held() -> None:
    """Parts in the order thought, text, sound, refusal, calls."""
    reply = Reply()
    for event in EVENTS:
        reply.add(event)
    proto = reply_to_proto(reply)
    (choice,) = proto.choices
    kinds = [part.WhichOneof("kind") for part in choice.message.parts]
    assert kinds == ["thinking", "text", "audio", "refusal", "tool_call"]
    assert choice.message.role == message_pb2.ROLE_ASSISTANT
    assert choice.message.extra["annotations"][0]["n"] == 1
    assert (choice.extra["stop_reason"], proto.extra["citations"][0]) == (7, "u")
    assert (proto.id, proto.provider, proto.create_time.seconds) == ("id", "p", 1_700_000_000)
    assert proto.usage.extra["cost"] == 0.5


def test_a_reply_without_usage_has_none() -> None:
    """Unset, and not zero."""
    reply = Reply()
    for event in (START, domain.TextDelta(0, "x"), STOP):
        reply.add(event)
    assert not reply_to_proto(reply).HasField("usage")
    reply.add(USAGE)
    assert reply_to_proto(reply).usage.total_tokens == 5


def test_tool_calls_keep_what_only_the_provider_knows() -> None:
    """Of a function's beside it; those that are of no function are fields of the message."""
    reply = Reply()
    for event in (
        START,
        domain.ToolCallDelta(0, 0, "c1", "f", "{}"),
        domain.ExtraDelta(0, {"tool_calls": [{"index": 0, "signed": 1}, {"index": 1, "id": "c2", "custom": {"name": "g"}}]}),
        STOP,
    ):
        reply.add(event)
    message = reply_to_proto(reply).choices[0].message
    (part,) = message.parts
    assert (part.tool_call.id, dict(part.extra)) == ("c1", {"signed": 1})
    assert message.extra["tool_calls"][0]["custom"]["name"] == "g"
