"""Tests of typed requests as values of the domain."""

import base64
import json

import msgspec
import pytest
from google.protobuf import json_format

from antiphon import domain
from antiphon.domain.errors import InvalidRequest
from antiphon.rpc.convert.reply import reply_to_proto
from antiphon.rpc.convert.request import messages_from_proto, record_from_proto, request_from_proto
from antiphon.v1 import chat_pb2, message_pb2
from tests.unit.framing import folded


def bytes_of(value: object) -> str:
    """Return the value as compact JSON in base64, as a `bytes` field has it in JSON."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


REQUEST = {
    "model": "gpt-4o",
    "messages": [
        {
            "role": "ROLE_SYSTEM",
            "blocks": [{"text": {"text": "Be brief."}, "extra": {"cache_control": {"type": "ephemeral", "ttl": 300}}}],
        },
        {
            "role": "ROLE_USER",
            "name": "ann",
            "blocks": [
                {"image": {"media": {"data": "AAEC", "mediaType": "image/png"}, "detail": "low"}},
                {"audio": {"media": {"url": "https://x.test/a.wav"}}},
                {"video": {"media": {"url": "https://x.test/a.mp4"}}},
                {"document": {"media": {"fileId": "file-1"}, "filename": "a.pdf"}},
                {"opaque": {"fields": bytes_of({"type": "odd", "n": 1.5})}},
            ],
        },
        {
            "role": "ROLE_ASSISTANT",
            "extra": {"prefix": True},
            "origin": {"protocol": "openai-chat", "provider": "p", "model": "m"},
            "fields": bytes_of({"large": 2**70}),
            "blocks": [
                {"thinking": {"text": "Hm"}, "state": {"opaque": "sig", "fields": bytes_of({"n": 1.0}), "item": 0}},
                {"redactedThinking": {}, "state": {"opaque": "d", "origin": {"provider": "q"}}},
                {"text": {"text": "Hi", "citations": [{"url": "u", "start": 0, "fields": bytes_of({"x": 1})}]}},
                {"toolCall": {"id": "c1", "name": "f", "arguments": "{}", "type": "function"}},
                {"toolCall": {"name": "g", "arguments": "{}", "type": "function_call"}},
                {"serverToolCall": {"id": "w", "type": "web_search", "input": ""}},
                {"serverToolResult": {"callId": "w", "type": "web_search", "isError": True}},
                {"refusal": {"text": "no"}},
                {"compaction": {"text": "short"}},
                {"audio": {"id": "a1", "transcript": "la", "expires": "7"}},
                {"opaque": {}, "state": {"fields": bytes_of({"type": "odd"})}},
            ],
        },
        {
            "role": "ROLE_TOOL",
            "blocks": [
                {"toolResult": {"toolCallId": "c1", "blocks": [{"text": {"text": "7"}}], "isError": True, "type": "function"}},
                {"toolResult": {"blocks": [{"text": {"text": "8"}}], "type": "function_call"}},
            ],
        },
    ],
    "sampling": {"temperature": 0, "choices": 2, "stop": ["x"], "seed": "7", "logitBias": {"5": -1}, "topLogprobs": 3},
    "tools": [
        {"name": "f", "description": "F", "parameters": {"type": "object", "maxProperties": 2}, "strict": True},
        {"native": {"type": "web_search"}},
    ],
    "toolChoice": {"mode": "MODE_TOOL", "name": "f"},
    "parallelToolCalls": False,
    "responseFormat": {"jsonSchema": {"name": "s", "schema": {"type": "object"}, "strict": False}},
    "reasoning": {"effort": "low"},
    "modalities": ["text", "audio"],
    "audioOutput": {"voice": "alloy", "format": "wav"},
    "endUser": "u1",
    "extra": {"store": True, "top_a": 0.5, "n_probs": 3},
}


def test_every_field_of_a_request_reaches_the_domain() -> None:
    """Every field is read: zeros and false are kept, integers stay integers, bytes become a data URL."""
    proto = json_format.ParseDict(REQUEST, chat_pb2.GenerateRequest())
    assert request_from_proto(proto, stream=True) == domain.ChatRequest(
        model="gpt-4o",
        stream=True,
        messages=(
            domain.Message(
                domain.Role.SYSTEM, (domain.Text("Be brief.", extra={"cache_control": {"type": "ephemeral", "ttl": 300}}),)
            ),
            domain.Message(
                domain.Role.USER,
                (
                    domain.Image(domain.Media(url="data:image/png;base64,AAEC"), "low"),
                    domain.Audio(domain.Media(url="https://x.test/a.wav")),
                    domain.Video(domain.Media(url="https://x.test/a.mp4")),
                    domain.Document(domain.Media(file_id="file-1"), "a.pdf"),
                    domain.Opaque({"type": "odd", "n": 1.5}),
                ),
                name="ann",
            ),
            domain.Message(
                domain.Role.ASSISTANT,
                (
                    domain.Thinking("Hm", state=domain.State("sig", {"n": 1.0}, 0)),
                    domain.RedactedThinking(state=domain.State("d", origin=domain.Origin(provider="q"))),
                    domain.Text("Hi", (domain.Citation("u", start=0, fields={"x": 1}),)),
                    domain.ToolCall("c1", "f", "{}"),
                    domain.ToolCall("", "g", "{}", "function_call"),
                    domain.ServerToolCall("w", "web_search", input=""),
                    domain.ServerToolResult("w", "web_search", is_error=True),
                    domain.Refusal("no"),
                    domain.Compaction("short"),
                    domain.Audio(domain.Media(), "a1", "la", 7),
                    domain.Opaque(state=domain.State(fields={"type": "odd"})),
                ),
                extra={"prefix": True},
                origin=domain.Origin("openai-chat", "p", "m"),
                fields={"large": 2**70},
            ),
            domain.Message(
                domain.Role.TOOL,
                (
                    domain.ToolResult("c1", (domain.Text("7"),), is_error=True),
                    domain.ToolResult("", (domain.Text("8"),), type="function_call"),
                ),
            ),
        ),
        sampling=domain.Sampling(temperature=0, choices=2, stop=("x",), seed=7, logit_bias={"5": -1}, top_logprobs=3),
        tools=(
            domain.Tool("f", "F", {"type": "object", "maxProperties": 2}, strict=True),
            domain.NativeTool({"type": "web_search"}),
        ),
        tool_choice=domain.ToolChoice(domain.ToolChoiceMode.TOOL, "f"),
        parallel_tool_calls=False,
        response_format=domain.JsonSchemaFormat("s", {"type": "object"}, None, strict=False),
        reasoning=domain.Reasoning("low"),
        modalities=("text", "audio"),
        audio_output=domain.AudioOutput("alloy", "wav"),
        end_user="u1",
        extra={"store": True, "top_a": 0.5, "n_probs": 3},
    )
    assert isinstance(request_from_proto(proto, stream=True).extra["n_probs"], int)


def test_every_sampling_parameter_is_read() -> None:
    """Each field of `Sampling` becomes the domain's field of the same name, and there are no others."""
    given = domain.Sampling(0.5, 0.25, 3, 4, 5, ("x", "y"), 0.75, -0.5, 6, 2, True, 7, {"5": -1.0})
    values = msgspec.structs.asdict(given)
    assert None not in values.values()
    assert set(chat_pb2.Sampling.DESCRIPTOR.fields_by_name) == set(values)
    read = request_from_proto(chat_pb2.GenerateRequest(sampling=chat_pb2.Sampling(**values)), stream=False).sampling
    assert read == given
    assert (type(read.stop), type(read.logit_bias)) == (tuple, dict)


def test_an_empty_request_is_all_defaults() -> None:
    """Unset fields stay unset, so that the provider decides."""
    assert request_from_proto(chat_pb2.GenerateRequest(), stream=False) == domain.ChatRequest("", (), stream=False)


def test_every_wrong_field_is_reported_at_once() -> None:
    """Every wrong field is reported by its path, all at once."""
    proto = json_format.ParseDict(
        {
            "messages": [
                {"blocks": [{}, {"image": {}}, {"image": {"media": {"data": "AA=="}}}], "fields": bytes_of([1])},
                {
                    "role": 99,
                    "blocks": [
                        {"toolCall": {"id": "x"}},
                        {"toolResult": {}},
                        {"opaque": {"fields": "e30="}, "state": {"fields": "ew=="}},
                    ],
                },
            ],
            "sampling": {"temperature": 3, "choices": 0},
            "tools": [{}],
            "toolChoice": {"mode": "MODE_TOOL"},
        },
        chat_pb2.GenerateRequest(),
    )
    with pytest.raises(InvalidRequest) as caught:
        request_from_proto(proto, stream=False)
    assert {".".join(map(str, violation.path)) for violation in caught.value.violations} == {
        "messages.0.role",
        "messages.0.blocks.0",
        "messages.0.blocks.1.image.media",
        "messages.0.blocks.2.image.media.media_type",
        "messages.0.fields",
        "messages.1.role",
        "messages.1.blocks.2.state.fields",
        "messages.1.blocks.0.tool_call",
        "messages.1.blocks.1.tool_result.tool_call_id",
        "sampling.temperature",
        "sampling.choices",
        "tools.0.name",
        "tool_choice.name",
    }


@pytest.mark.parametrize("name", ["model", "messages", "stream", "temperature"])
def test_a_parameter_that_has_a_field_may_not_come_as_extra_too(name: str) -> None:
    """A parameter that has a field is refused in `extra`, because it would be unclear which one counts."""
    proto = json_format.ParseDict({"messages": [{"role": "ROLE_USER"}], "extra": {name: 1}}, chat_pb2.GenerateRequest())
    with pytest.raises(InvalidRequest) as caught:
        request_from_proto(proto, stream=False)
    assert caught.value.violations[0].path == ("extra", name)


def test_numbers_that_are_no_json_are_refused_and_large_ones_kept() -> None:
    """NaN and Infinity are refused; a number beyond 64 bits stays as it is."""
    proto = chat_pb2.GenerateRequest()
    proto.extra.update({"maximum": 1e30, "n_probs": 3.0})
    assert request_from_proto(proto, stream=False).extra == {"maximum": 1e30, "n_probs": 3}
    proto.extra.update({"x": float("nan")})
    with pytest.raises(InvalidRequest):
        request_from_proto(proto, stream=False)


def test_a_wrapped_value_goes_back_to_where_it_is_from() -> None:
    """A value from a REST dialect is wrapped and has no origin beside it: it is unwrapped."""
    message = {"role": "ROLE_ASSISTANT", "blocks": [{"thinking": {}, "state": {"opaque": "ap1.up.sig"}}]}
    (read,) = messages_from_proto([json_format.ParseDict(message, message_pb2.Message())])
    assert read.blocks[0].state == domain.State("sig", origin=domain.Origin(provider="up", deployment="up"))


def test_a_value_with_an_origin_is_not_unwrapped() -> None:
    """A value with an origin is the original, even if it looks wrapped: the provider may be a gateway that wraps its values."""
    state = {"opaque": "ap1.up.sig"}
    within = {"tool_result": {"tool_call_id": "c", "blocks": [{"text": {}, "state": state}]}}
    of_message = {"origin": {"provider": "p"}, "blocks": [{"thinking": {}, "state": state}, within]}
    of_block = {"blocks": [{"thinking": {}, "state": {**state, "origin": {"provider": "q"}}}]}
    first, second = messages_from_proto(
        json_format.ParseDict({"role": "ROLE_ASSISTANT", **message}, message_pb2.Message()) for message in (of_message, of_block)
    )
    assert first.blocks == (
        domain.Thinking("", state=domain.State("ap1.up.sig")),
        domain.ToolResult("c", (domain.Text("", state=domain.State("ap1.up.sig")),)),
    )
    assert second.blocks[0].state == domain.State("ap1.up.sig", origin=domain.Origin(provider="q"))


def test_a_recording_from_a_reply_is_read_without_its_bytes() -> None:
    """A client may send a reply back as it came: the bytes of its recording have no media type, and the provider has them."""
    provider = domain.Started("r", "m", domain.Origin("openai-chat", "p"), 5)
    sound = domain.BlockStarted(0, 0, domain.Audio(domain.Media(), "a1"))
    events = (provider, sound, domain.MediaDelta(0, "QUJD", "La", expires=9), domain.BlockFinished(0))
    reply = reply_to_proto(folded(*events, domain.Finished(0, domain.FinishReason.STOP, "stop")))
    assert reply.choices[0].message.blocks[0].audio.media.data == b"ABC"
    (message,) = messages_from_proto([reply.choices[0].message])
    assert message.blocks == (domain.Audio(domain.Media(), "a1", "La", 9),)
    callers = {"role": "ROLE_USER", "blocks": [{"audio": {"media": {"data": "QUJD", "mediaType": "audio/wav"}, "id": "a1"}}]}
    (message,) = messages_from_proto([json_format.ParseDict(callers, message_pb2.Message())])
    assert message.blocks == (domain.Audio(domain.Media("data:audio/wav;base64,QUJD"), "a1"),)


def test_a_message_to_go_on_from_needs_its_conversation() -> None:
    """A parent message without its conversation is refused, because it would be ignored."""
    with pytest.raises(InvalidRequest) as caught:
        record_from_proto(chat_pb2.Recording(parent_message_id="m"), "ann")
    assert [violation.path for violation in caught.value.violations] == [("recording", "parent_message_id")]
    assert record_from_proto(chat_pb2.Recording(conversation_id="c", parent_message_id="m"), "ann").parent_id == "m"


def test_a_recorded_turn_has_one_reply() -> None:
    """A recorded turn with several choices is refused, because only one would be stored."""
    for choices in (0, 1):
        record_from_proto(chat_pb2.Recording(), "ann", choices=choices)
    with pytest.raises(InvalidRequest) as caught:
        record_from_proto(chat_pb2.Recording(), "ann", choices=2)
    assert [violation.path for violation in caught.value.violations] == [("sampling", "choices")]


FAILED = domain.Image(domain.Media(), state=domain.State(fields={"error": {}}))


@pytest.mark.parametrize("value", [domain.Audio(domain.Media()), FAILED])
def test_media_of_a_reply_without_bytes_come_back(value: domain.Audio | domain.Image) -> None:
    """Sound without an id, and a picture that failed, are read in a reply that a client sends back, and in no other message."""
    provider = domain.Started("r", "m", domain.Origin("gemini", "p"), 5)
    sound = [domain.MediaDelta(0, "QUJD")] if isinstance(value, domain.Audio) else []
    stop = domain.Finished(0, domain.FinishReason.STOP, "STOP")
    reply = reply_to_proto(folded(provider, domain.BlockStarted(0, 0, value), *sound, domain.BlockFinished(0), stop))
    message = reply.choices[0].message
    (returned,) = messages_from_proto([message])
    assert returned.blocks == (value,)
    message.ClearField("origin")
    message.blocks[0].ClearField("state")
    with pytest.raises(InvalidRequest):
        messages_from_proto([message])
