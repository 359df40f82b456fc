"""Typed messages to domain values, and back."""

import pytest
from google.protobuf import json_format

from antiphon import messages as m
from antiphon.errors import InvalidRequest
from antiphon.reply import Reply
from antiphon.rpc import convert
from antiphon.v1 import chat_pb2, message_pb2
from tests.unit.scripted import START, STOP, USAGE

REQUEST = {
    "model": "gpt-4o",
    "messages": [
        {"role": "ROLE_SYSTEM", "parts": [{"text": "Be brief.", "extra": {"cache_control": {"type": "ephemeral", "ttl": 300}}}]},
        {
            "role": "ROLE_USER",
            "name": "ann",
            "parts": [
                {"image": {"media": {"data": "AAEC", "mediaType": "image/png"}, "detail": "low"}},
                {"audio": {"media": {"url": "https://x.test/a.wav"}}},
                {"video": {"media": {"url": "https://x.test/a.mp4"}}},
                {"file": {"media": {"fileId": "file-1"}, "filename": "a.pdf"}},
                {"other": {"type": "odd", "n": 1.5}},
            ],
        },
        {
            "role": "ROLE_ASSISTANT",
            "extra": {"prefix": True},
            "parts": [
                {"thinking": {"text": "Hm", "signature": "sig"}},
                {"toolCall": {"id": "c1", "name": "f", "arguments": "{}"}},
                {"refusal": "no"},
            ],
        },
        {"role": "ROLE_TOOL", "parts": [{"toolResult": {"toolCallId": "c1", "parts": [{"text": "7"}], "isError": True}}]},
    ],
    "sampling": {"temperature": 0, "choices": 2, "stop": ["x"], "seed": "7", "logitBias": {"5": -1}, "topLogprobs": 3},
    "tools": [
        {"name": "f", "description": "F", "parameters": {"type": "object", "maxProperties": 2}, "strict": True},
        {"native": {"type": "web_search"}},
    ],
    "toolChoice": {"mode": "MODE_TOOL", "name": "f"},
    "parallelToolCalls": False,
    "responseFormat": {"jsonSchema": {"name": "s", "schema": {"type": "object"}, "strict": False}},
    "reasoning": {"effort": "low", "maxTokens": 0},
    "modalities": ["text", "audio"],
    "audioOutput": {"voice": "alloy", "format": "wav"},
    "endUser": "u1",
    "extra": {"store": True, "top_a": 0.5, "n_probs": 3},
}


def test_every_field_of_a_request_reaches_the_domain() -> None:
    """Zeros and false are not lost, whole numbers stay whole, bytes become a data URL."""
    proto = json_format.ParseDict(REQUEST, chat_pb2.GenerateRequest())
    assert convert.request_from_proto(proto, stream=True) == m.ChatRequest(
        model="gpt-4o",
        stream=True,
        messages=(
            m.Message(m.Role.SYSTEM, (m.Text("Be brief.", {"cache_control": {"type": "ephemeral", "ttl": 300}}),)),
            m.Message(
                m.Role.USER,
                (
                    m.Image(m.Media(url="data:image/png;base64,AAEC"), "low"),
                    m.Audio(m.Media(url="https://x.test/a.wav")),
                    m.Video(m.Media(url="https://x.test/a.mp4")),
                    m.File(m.Media(file_id="file-1"), "a.pdf"),
                    m.Other({"type": "odd", "n": 1.5}),
                ),
                name="ann",
            ),
            m.Message(
                m.Role.ASSISTANT,
                (m.Thinking("Hm", "sig"), m.ToolCall("c1", "f", "{}"), m.Refusal("no")),
                extra={"prefix": True},
            ),
            m.Message(m.Role.TOOL, (m.ToolResult("c1", (m.Text("7"),), is_error=True),)),
        ),
        sampling=m.Sampling(temperature=0, choices=2, stop=("x",), seed=7, logit_bias={"5": -1}, top_logprobs=3),
        tools=(
            m.Tool("f", "F", {"type": "object", "maxProperties": 2}, strict=True),
            m.NativeTool({"type": "web_search"}),
        ),
        tool_choice=m.ToolChoice(m.ToolChoiceMode.TOOL, "f"),
        parallel_tool_calls=False,
        response_format=m.JsonSchemaFormat("s", {"type": "object"}, None, strict=False),
        reasoning=m.Reasoning("low", 0),
        modalities=("text", "audio"),
        audio_output=m.AudioOutput("alloy", "wav"),
        end_user="u1",
        extra={"store": True, "top_a": 0.5, "n_probs": 3},
    )
    assert isinstance(convert.request_from_proto(proto, stream=True).extra["n_probs"], int)


def test_an_empty_request_is_all_defaults() -> None:
    """What is unset stays unset: the provider decides."""
    assert convert.request_from_proto(chat_pb2.GenerateRequest(), stream=False) == m.ChatRequest("", (), stream=False)


def test_every_field_at_fault_is_told_at_once() -> None:
    """By its path."""
    proto = json_format.ParseDict(
        {
            "messages": [
                {"parts": [{}, {"image": {}}, {"image": {"media": {"data": "AA=="}}}]},
                {"role": 99, "parts": [{"toolCall": {"id": "x"}}, {"toolResult": {}}]},
            ],
            "sampling": {"temperature": 3, "choices": 0},
            "tools": [{}],
            "toolChoice": {"mode": "MODE_TOOL"},
        },
        chat_pb2.GenerateRequest(),
    )
    with pytest.raises(InvalidRequest) as caught:
        convert.request_from_proto(proto, stream=False)
    assert {".".join(map(str, violation.path)) for violation in caught.value.violations} == {
        "messages.0.role",
        "messages.0.parts.0",
        "messages.0.parts.1.image.media",
        "messages.0.parts.2.image.media.media_type",
        "messages.1.role",
        "messages.1.parts.0.tool_call",
        "messages.1.parts.1.tool_result.tool_call_id",
        "sampling.temperature",
        "sampling.choices",
        "tools.0.name",
        "tool_choice.name",
    }


LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2, "bytes": None}]}
EVENTS: m.Batch = [
    m.Started("id", "model", "p", 1_700_000_000, {"service_tier": "default"}),
    m.ThinkingDelta(0, "Hm", "sig", "red"),
    m.TextDelta(0, "a", (LOGPROB,)),
    m.ToolCallDelta(0, 1, "c1", "f", "{}", "sig"),
    m.RefusalDelta(0, "no"),
    m.AudioDelta(0, "a1", "AAEC", "la", 1_700_000_100),
    m.ExtraDelta(0, {"annotations": [{"n": 1}], "large": 10**400}, {"stop_reason": 7}),
    m.ReplyExtra({"citations": ["u"]}),
    m.Usage(7, 5, 12, 3, 1, 2, 4, 6, {"cost": 0.5}),
    m.Finished(0, m.FinishReason.OTHER, "odd"),
]


def test_every_kind_of_event_has_a_typed_form() -> None:
    """With its sequence number."""
    proto = convert.batch_to_proto(EVENTS, 5)
    assert [event.sequence for event in proto.events] == list(range(5, 15))
    kinds = [event.WhichOneof("event") for event in proto.events]
    assert kinds == ["started", "thinking", "text", "tool_call", "refusal", "audio", "extra", "reply_extra", "usage", "finished"]
    text = proto.events[2].text.logprobs[0]
    assert (text.token, text.token_bytes, text.alternatives[0].token) == ("a", b"a", "b")
    assert proto.events[5].audio.data == b"\0\1\2"
    assert (proto.events[6].extra.choice_fields["stop_reason"], proto.events[7].reply_extra.fields["citations"][0]) == (7, "u")
    assert (proto.events[8].usage.cached_prompt_tokens, proto.events[8].usage.reasoning_tokens) == (3, 2)
    assert proto.events[9].finished.provider_reason == "odd"


def test_a_whole_reply_holds_what_its_events_held() -> None:
    """Parts in the order thought, text, sound, refusal, calls."""
    reply = Reply()
    for event in EVENTS:
        reply.add(event)
    proto = convert.reply_to_proto(reply)
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
    for event in (START, m.TextDelta(0, "x"), STOP):
        reply.add(event)
    assert not convert.reply_to_proto(reply).HasField("usage")
    reply.add(USAGE)
    assert convert.reply_to_proto(reply).usage.total_tokens == 5


@pytest.mark.parametrize("name", ["model", "messages", "stream", "temperature"])
def test_a_parameter_that_has_a_field_may_not_come_as_extra_too(name: str) -> None:
    """It would be unclear which one holds."""
    proto = json_format.ParseDict({"messages": [{"role": "ROLE_USER"}], "extra": {name: 1}}, chat_pb2.GenerateRequest())
    with pytest.raises(InvalidRequest) as caught:
        convert.request_from_proto(proto, stream=False)
    assert caught.value.violations[0].path == ("extra", name)


def test_numbers_that_are_no_json_are_refused_and_large_ones_kept() -> None:
    """NaN and Infinity; a whole number that no integer of 64 bits holds stays what it is."""
    proto = chat_pb2.GenerateRequest()
    proto.extra.update({"maximum": 1e30, "n_probs": 3.0})
    assert convert.request_from_proto(proto, stream=False).extra == {"maximum": 1e30, "n_probs": 3}
    proto.extra.update({"x": float("nan")})
    with pytest.raises(InvalidRequest):
        convert.request_from_proto(proto, stream=False)


def test_a_message_to_go_on_from_needs_its_conversation() -> None:
    """Alone it would be ignored, so it is refused."""
    with pytest.raises(InvalidRequest) as caught:
        convert.record_from_proto(chat_pb2.Recording(parent_message_id="m"), "ann")
    assert [violation.path for violation in caught.value.violations] == [("recording", "parent_message_id")]
    assert convert.record_from_proto(chat_pb2.Recording(conversation_id="c", parent_message_id="m"), "ann").parent_id == "m"


def test_tool_calls_keep_what_only_the_provider_knows() -> None:
    """Of a function's beside it; those that are of no function are fields of the message."""
    reply = Reply()
    for event in (
        START,
        m.ToolCallDelta(0, 0, "c1", "f", "{}"),
        m.ExtraDelta(0, {"tool_calls": [{"index": 0, "signed": 1}, {"index": 1, "id": "c2", "custom": {"name": "g"}}]}),
        STOP,
    ):
        reply.add(event)
    message = convert.reply_to_proto(reply).choices[0].message
    (part,) = message.parts
    assert (part.tool_call.id, dict(part.extra)) == ("c1", {"signed": 1})
    assert message.extra["tool_calls"][0]["custom"]["name"] == "g"
