"""Tests of replies and their events as typed messages."""

import json

from hypothesis import given
from msgspec.structs import astuple, replace

from antiphon import domain
from antiphon.rpc.convert.reply import batch_to_proto, fill_usage, reply_to_proto
from antiphon.v1 import chat_pb2, message_pb2
from tests.unit.blocks import usages
from tests.unit.framing import folded
from tests.unit.scripted import ORIGIN, START, STOP, USAGE

LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2, "bytes": None}]}
LARGE = 10**400
EVENTS: domain.Batch = [
    domain.Started("id", "model", ORIGIN, 1_700_000_000, {"service_tier": "default"}),
    domain.BlockStarted(0, 0, domain.Thinking("")),
    domain.ThinkingDelta(0, "Hm"),
    domain.BlockFinished(0, domain.State("sig", {"n": LARGE}, 1, ORIGIN)),
    domain.BlockStarted(1, 0, domain.Text("")),
    domain.TextDelta(1, "a", (LOGPROB,)),
    domain.CitationDelta(1, domain.Citation("u", "t", start=0)),
    domain.BlockStarted(2, 0, domain.ToolCall("c1", "f", "", state=domain.State("sig", {"signed": 1}))),
    domain.InputDelta(2, "{}"),
    domain.BlockProgress(2, "searching", {"n": 1}),
    domain.BlockFinished(2, call_id="c2"),
    domain.BlockStarted(3, 0, domain.Refusal("")),
    domain.RefusalDelta(3, "no"),
    domain.BlockStarted(4, 0, domain.Audio(domain.Media(), "a1")),
    domain.MediaDelta(4, "AAEC", "la", expires=1_700_000_100),
    domain.ExtraFields(0, {"annotations": [{"n": 1}], "large": LARGE}),
    domain.ExtraFields(0, {"stop_reason": 7}, domain.Place.CHOICE),
    domain.ExtraFields(None, {"citations": ["u"]}, domain.Place.REPLY),
    domain.Usage(7, 5, 12, 3, 1, reasoning_tokens=2, server_tools={"web_search": 2}, extra={"cost": 0.5}),
    domain.Finished(0, domain.FinishReason.OTHER, "odd", {"why": "x"}),
]


def test_every_kind_of_event_has_a_typed_form() -> None:
    """Every kind of event has a typed form, with zeros and integers of any length.

    The batch has the sequence number of its first event.
    """
    proto = batch_to_proto(EVENTS, 5)
    assert (proto.sequence, len(proto.events)) == (5, len(EVENTS))
    kinds = [event.WhichOneof("event") for event in proto.events]
    assert {kind for kind in kinds if kind} == {
        *("started", "block_started", "thinking", "block_finished", "text", "citation", "input", "progress", "refusal", "media"),
        *("extra", "usage", "finished"),
    }
    assert None not in kinds
    text = proto.events[5].text
    assert (text.block, text.logprobs[0].token_bytes, text.logprobs[0].alternatives[0].token) == (1, b"a", "b")
    state = proto.events[3].block_finished.state
    assert (state.opaque, json.loads(state.fields), state.item, state.origin.provider) == ("sig", {"n": LARGE}, 1, "scripted")
    call = proto.events[7].block_started.value
    assert (call.tool_call.name, call.state.opaque, call.state.fields) == ("f", "sig", b'{"signed":1}')
    assert proto.events[10].block_finished.call_id == "c2"
    assert proto.events[14].media.data == b"\0\1\2"
    fields = [(event.extra.place, json.loads(event.extra.fields)) for event in proto.events[15:18]]
    assert fields == [
        (chat_pb2.ExtraFields.PLACE_MESSAGE, {"annotations": [{"n": 1}], "large": LARGE}),
        (chat_pb2.ExtraFields.PLACE_CHOICE, {"stop_reason": 7}),
        (chat_pb2.ExtraFields.PLACE_REPLY, {"citations": ["u"]}),
    ]
    usage = proto.events[18].usage
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.HasField("audio_input_tokens")) == (3, 2, False)
    assert (proto.events[19].finished.provider_reason, json.loads(proto.events[19].finished.details)) == ("odd", {"why": "x"})


def test_the_provider_of_a_deployment_is_named_without_it() -> None:
    """`provider` is the name in the configuration, of a stream and of a whole reply; the origin has the deployment beside it."""
    started = replace(START, origin=domain.Origin("openai-chat", "openai/east", "m", "openai/east"))
    (event,) = batch_to_proto([started], 0).events
    whole = reply_to_proto(folded(started, STOP))
    for provider, origin in (
        (event.started.provider, event.started.origin),
        (whole.provider, whole.choices[0].message.origin),
    ):
        assert (provider, origin.provider, origin.deployment) == ("openai", "openai", "openai/east")


def test_an_empty_text_is_a_delta_all_the_same() -> None:
    """An empty text of block 0, with all fields at their defaults, is still a text event."""
    (event,) = batch_to_proto([domain.TextDelta(0, "")], 1).events
    assert event.WhichOneof("event") == "text"


def test_groups_and_repeated_fields_have_no_typed_form() -> None:
    """Delta groups and repeated fields have no typed form and no sequence number."""
    group, again = domain.DeltaGroup(0, 2), domain.ExtraFields(None, {"fp": "x"}, domain.Place.REPLY, repeats=True)
    proto = batch_to_proto([START, again, group, domain.ThinkingDelta(0, "a"), domain.TextDelta(1, "b")], 1)
    assert [event.WhichOneof("event") for event in proto.events] == ["started", "thinking", "text"]
    assert not batch_to_proto([again], 4).events


def test_a_whole_reply_holds_what_its_events_held() -> None:
    """A whole reply has all blocks in order, with states, sound and unknown fields."""
    proto = reply_to_proto(folded(*EVENTS))
    (choice,) = proto.choices
    kinds = [block.WhichOneof("kind") for block in choice.message.blocks]
    assert kinds == ["thinking", "text", "tool_call", "refusal", "audio"]
    thinking, text, call, _, audio = choice.message.blocks
    assert (thinking.state.opaque, text.text.citations[0].url, call.tool_call.id) == ("sig", "u", "c2")
    assert (audio.audio.media.data, audio.audio.transcript, audio.audio.expires) == (b"\0\1\2", "la", 1_700_000_100)
    assert choice.message.role == message_pb2.ROLE_ASSISTANT
    assert choice.message.origin.provider == "scripted"
    assert json.loads(choice.message.fields) == {"annotations": [{"n": 1}], "large": LARGE}
    assert (json.loads(choice.fields), json.loads(proto.fields)["citations"]) == ({"stop_reason": 7}, ["u"])
    assert (proto.id, proto.provider, proto.create_time.seconds) == ("id", "scripted", 1_700_000_000)
    assert json.loads(proto.usage.fields) == {"cost": 0.5}


@given(usages)
def test_tokens_are_told_one_by_one(usage: domain.Usage) -> None:
    """Each by its name; what was not told is not set, and whole numbers are exact, whatever their size."""
    made = chat_pb2.Usage()
    fill_usage(made, usage)
    for name in usage.__struct_fields__:
        match getattr(usage, name):
            case None:
                assert not made.HasField(name)  # type: ignore[arg-type]  # by the names of the domain
            case value if name == "extra":
                assert (json.loads(made.fields) if made.fields else {}) == value
            case value if name == "parts":
                assert [tuple(getattr(part, field.name) for field in part.DESCRIPTOR.fields) for part in made.parts] == [
                    astuple(part) for part in value
                ]
            case value:
                assert (dict(made.server_tools) if name == "server_tools" else getattr(made, name)) == value


def test_a_reply_without_usage_has_none() -> None:
    """Usage that is missing is unset and not zero."""
    reply = folded(START, domain.TextDelta(0, "x"), STOP)
    assert not reply_to_proto(reply).HasField("usage")
    reply.add(USAGE)
    assert reply_to_proto(reply).usage.total_tokens == 5
