"""Tests of reading answers of the OpenAI API, and of hosts that differ from it, as events."""

import base64
import json
import time
from typing import Any

import pytest

from antiphon.domain.content import Audio, Media, Opaque, Origin, State, Thinking, ToolCall
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from antiphon.domain.events import (
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Place,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, NativeTool, Sampling, Tool
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta, sse
from tests.unit.framing import check, without_frames

STARTED = Started("chatcmpl-odd", "odd-model", Origin("openai-chat", "acme", "asked", "acme"), 1_700_000_000)
STOP = Finished(0, FinishReason.STOP, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


DEEP = deep(30)
VERY_DEEP = deep(300)


def reader(choices: int | None = None) -> OpenAIReader:
    return OpenAIReader(ChatRequest("asked", (), stream=True, sampling=Sampling(choices=choices)), "acme")


def fed(read: OpenAIReader, data: bytes) -> list[Event]:
    """Return the events of one read, without those that only frame blocks."""
    return without_frames(read.feed(data))


def ended(read: OpenAIReader) -> list[Event]:
    return without_frames(read.end())


def streamed(*events: dict[str, Any] | str, choices: int | None = None) -> list[Event]:
    """Return all events of a stream, without its start and without those that only frame blocks."""
    read = reader(choices)
    found = read.feed(sse(*events))
    if read.failure is not None:
        raise read.failure
    found += read.end()
    check(found)
    return [event for event in without_frames(found) if not isinstance(event, Started)]


def whole(body: Any) -> list[Event]:
    found = reader().read_object(json.dumps(body).encode())
    check(found)
    return without_frames(found)


def reply(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-odd",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "odd-model",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **fields,
    }


def test_stream_in_batches() -> None:
    """Each read returns the events that it completes; usage and finish come last."""
    read = reader()
    assert fed(read, sse(delta(role="assistant", content=""), delta("Hel"))) == [STARTED, TextDelta(0, "Hel")]
    assert fed(read, sse(delta("lo"), delta(finish="stop"))) == [TextDelta(0, "lo")]
    assert fed(read, sse({**delta(), "choices": [], "usage": USAGE}, "[DONE]")) == []
    assert read.ending.done
    assert ended(read) == [Usage(3, 2, 5), STOP]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_cut_anywhere(end: str) -> None:
    """Cutting the bytes at any place does not change the events."""
    events = (delta("größe "), delta("🦀"), delta(finish="stop"), {**delta(), "choices": [], "usage": USAGE}, "[DONE]")
    stream = b": keep-alive" + end.encode() + sse(*events, end=end)
    for at in range(len(stream) + 1):
        read = reader()
        found = fed(read, stream[:at]) + (fed(read, stream[at:]) if not read.ending.done else []) + ended(read)
        assert found == [STARTED, TextDelta(0, "größe "), TextDelta(0, "🦀"), Usage(3, 2, 5), STOP]


def test_whole_reply() -> None:
    """A whole reply gives the same events in one batch."""
    assert whole(reply({"role": "assistant", "content": "Hello"}, usage=USAGE)) == [
        STARTED,
        TextDelta(0, "Hello"),
        Usage(3, 2, 5),
        STOP,
    ]


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("stop", FinishReason.STOP),
        ("eos", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("model_length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("refusal", FinishReason.REFUSAL),
        ("pause_turn", FinishReason.PAUSE),
        ("model_context_window_exceeded", FinishReason.CONTEXT_WINDOW),
        ("brand_new", FinishReason.OTHER),
    ],
)
def test_finish_reasons(reason: str, meaning: FinishReason) -> None:
    """Every finish reason has its meaning, and keeps the provider's word."""
    assert streamed(delta("a", finish=reason))[-1] == Finished(0, meaning, reason)


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_finish_reasons_that_are_failures(reason: str) -> None:
    """A finish reason that means a failure raises `ProviderUnavailable`."""
    with pytest.raises(ProviderUnavailable):
        streamed(delta("a", finish=reason), "[DONE]")


def test_no_done() -> None:
    """Without [DONE], a finished reply is complete, even without its last blank line."""
    for stream in (sse(delta("a", finish="stop")), sse(delta("a", finish="stop"))[:-1], sse(delta("a", finish="stop"))[:-2]):
        read = reader()
        assert [*fed(read, stream), *ended(read)] == [STARTED, TextDelta(0, "a"), STOP]


@pytest.mark.parametrize("tail", [(), ("[DONE]",)], ids=["eof", "done"])
def test_not_finished_is_a_cut(tail: tuple[str, ...]) -> None:
    """An end before every choice is finished, or without any choice, raises `ProviderProtocolError`."""
    for events in ((), (delta("a"),), ({**delta(), "choices": []},), (delta("a", finish="stop"), delta("b", index=1))):
        with pytest.raises(ProviderProtocolError):
            streamed(*events, *tail)


def test_fewer_choices_than_asked_for_is_a_cut() -> None:
    """All requested choices must finish, and are finished in order."""
    both = (delta("a", index=1, finish="length"), delta("b", finish="stop"))
    assert streamed(*both, choices=2)[-2:] == [STOP, Finished(1, FinishReason.LENGTH, "length")]
    with pytest.raises(ProviderProtocolError):
        streamed(*both[:1], "[DONE]", choices=2)
    with pytest.raises(ProviderProtocolError):
        streamed(*both, choices=3)
    with pytest.raises(ProviderProtocolError):
        streamed(both[1], choices=2)


def test_a_host_that_gives_fewer_choices_says_that_it_is_done() -> None:
    """With [DONE], or in a whole reply, there may be fewer choices, or one finish reason for all."""
    assert streamed(delta("b", finish="stop"), "[DONE]", choices=2)[-1] == STOP
    both = [delta("a", finish="stop"), delta("b", index=1)]
    assert streamed(*both, "[DONE]", choices=2)[-2:] == [STOP, Finished(1, FinishReason.OTHER, "")]
    for events in ([delta("a"), delta("b", index=1)], [delta("a", finish="stop"), delta("b", index=1)]):
        with pytest.raises(ProviderProtocolError):
            streamed(*events, choices=2)
    with pytest.raises(ProviderProtocolError):
        streamed(delta("a"), delta("b", index=1), "[DONE]", choices=2)
    finished = [delta("a", finish="stop"), delta("b", index=1, finish="stop")]
    assert streamed(*finished, "[DONE]", choices=3)[-2:] == [STOP, Finished(1, FinishReason.STOP, "stop")]
    numbered = [delta("a", index=1, finish="stop"), delta("b", index=2, finish="stop")]
    assert streamed(*numbered, "[DONE]", choices=2)[-2:] == [
        Finished(1, FinishReason.STOP, "stop"),
        Finished(2, FinishReason.STOP, "stop"),
    ]
    for count in (1, 2):
        choices = [{"index": index, "message": {"content": "a"}, "finish_reason": "stop"} for index in range(count)]
        found = reader(3).read_object(json.dumps(reply({}, choices=choices)).encode())
        assert [event.choice for event in found if isinstance(event, Finished)] == list(range(count))


def test_cut_inside_an_event() -> None:
    """A cut anywhere before the end of the finishing event raises `ProviderProtocolError`."""
    stream = sse(delta("a"), delta("b", finish="stop"))
    for at in range(len(stream) - len('"}]}\n\n')):
        read = reader()
        read.feed(stream[:at])
        with pytest.raises(ProviderProtocolError):
            read.end()


def test_finish_before_content() -> None:
    """A finish reason in the first chunk does not end the reply."""
    assert streamed(delta("a", finish="stop"), delta("b"), delta("c"), "[DONE]") == [
        TextDelta(0, "a"),
        TextDelta(0, "b"),
        TextDelta(0, "c"),
        STOP,
    ]


def test_after_done() -> None:
    """After [DONE] only usage is read, in the same read and in the next."""
    assert streamed(delta("a", finish="stop"), "[DONE]", delta("b"), "nonsense") == [TextDelta(0, "a"), STOP]
    rest = sse(delta("b"), '{"usage"', '{"usage": 1}', {**delta("c"), "usage": USAGE}, "nonsense")
    stream = sse(delta("a", finish="stop"), "[DONE]")
    for data, late in ((stream + rest, b""), (stream, rest), (stream, rest[:-1])):
        read = reader()
        found = fed(read, data)
        assert read.ending.done
        assert read.has_usage is (not late)
        read.feed_after_done(late)
        assert read.has_usage
        assert found + ended(read) == [STARTED, TextDelta(0, "a"), Usage(3, 2, 5), STOP]


def test_bad_json_on_the_way() -> None:
    """Events before invalid JSON in the same read are returned; then the reader has failed."""
    read = reader()
    assert fed(read, sse(delta("a"), "{bad")) == [STARTED, TextDelta(0, "a")]
    assert isinstance(read.failure, ProviderProtocolError)
    with pytest.raises(ProviderProtocolError):
        read.end()
    with pytest.raises(ProviderProtocolError):
        reader().feed(sse("{bad"))
    with pytest.raises(ProviderProtocolError):
        reader().read_object(b"{bad")


@pytest.mark.parametrize(
    "chunk",
    [
        [],
        7,
        {"choices": 7},
        {"choices": {"a": 1}},
        {"choices": [7]},
        {"choices": [{"index": "x", "delta": {"content": "a"}}]},
        {"choices": [{"index": -1, "delta": {"content": "a"}}]},
        {"choices": [{"index": [1], "delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": "a"}]},
        {"choices": [{"index": 0, "delta": {"content": 7}}]},
        {"choices": [{"index": 0, "delta": {"content": [7]}}]},
        {"choices": [{"index": 0, "delta": {"refusal": 7}}]},
        {"choices": [{"index": 0, "delta": {"audio": "x"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [7]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": "f"}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f", "arguments": 7}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "logprobs": "x"}]},
        {"choices": [{"index": 2**31, "delta": {"content": "a"}}]},
        {"choices": [{"index": True, "delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": {"content": 0}}]},
        {"choices": [{"index": 0, "delta": {"content": False}}]},
        {"choices": [{"index": 0, "delta": {"content": {}}}]},
        {"choices": [{"index": 0, "delta": []}]},
        {"choices": [{"index": 0, "delta": "", "message": ""}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": 5}}]},
        {"choices": [{"index": 0, "text": 5}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": ["stop"]}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": True}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": 0}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"id": 5, "function": {"name": "f"}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"id": ["a"], "function": {"name": "f"}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"id": "a"}]}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"id": 5}}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"data": "@@@x"}}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"data": "QUJ"}}}]},
        {"choices": [{"index": 0, "delta": {"xx": DEEP}}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "x", "x": DEEP}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f", "arguments": {"x": VERY_DEEP}}}]}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "xx": DEEP},
    ],
)
def test_json_of_another_shape(chunk: Any) -> None:
    """JSON that does not follow the protocol raises `ProviderProtocolError` and no other exception."""
    with pytest.raises(ProviderProtocolError):
        streamed(chunk, delta("a", finish="stop"))
    with pytest.raises(ProviderProtocolError):
        whole(chunk)


@pytest.mark.parametrize(
    "logprobs",
    [
        [1],
        {"content": "abc"},
        {"content": [1]},
        {"content": [{"tok": "a"}]},
        {"content": [{"token": None, "logprob": -1}]},
        {"content": [{"token": "a"}]},
        {"content": [{"token": "a", "logprob": "x"}]},
        {"content": [{"token": "a", "logprob": -1, "bytes": [300]}]},
        {"content": [{"token": "a", "logprob": -1, "bytes": "a"}]},
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b"}]}]},
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": 7}]},
        {"content": [{"token": "a", "logprob": -1, "x": DEEP}]},
        {"refusal": DEEP},
    ],
)
def test_logprobs_of_another_shape(logprobs: Any) -> None:
    """Log probabilities that do not have the documented form raise `ProviderProtocolError`."""
    chunk = delta("a", finish="stop")
    chunk["choices"][0]["logprobs"] = logprobs
    with pytest.raises(ProviderProtocolError):
        streamed(chunk)


@pytest.mark.parametrize("created", [1e300, 2**63, -5, True, "yesterday", [1], {}, None, 0, 1_700_000_000_000])
def test_a_time_that_makes_no_sense(created: Any) -> None:
    """A missing or impossible time is replaced by the present."""
    (started, *_) = reader().feed(sse({**delta("a"), "created": created}))
    assert isinstance(started, Started)
    assert abs(started.created - time.time()) < 10
    audio = {"id": "a", "data": "QUJD", "expires_at": 1e300}
    assert streamed(delta(audio=audio), delta(finish="stop"))[:2] == [
        BlockStarted(0, 0, Audio(Media(), "a")),
        MediaDelta(0, "QUJD"),
    ]


@pytest.mark.parametrize("count", [1e300, 2**63, -5, True, "5", [1]])
def test_counts_that_make_no_sense(count: Any) -> None:
    """An impossible token count is 0, and fields that are nested too deep are dropped."""
    usage = {"prompt_tokens": count, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": count, "x": DEEP}}
    assert streamed({**delta("a", finish="stop"), "usage": usage})[1] == Usage(0, 2, 2)


@pytest.mark.parametrize("usage", [7, "x", [1], {"prompt_tokens": "x", "prompt_tokens_details": 7, "completion_tokens": None}])
def test_usage_of_another_shape(usage: Any) -> None:
    """Malformed usage does not make the reply fail."""
    assert streamed({**delta("a", finish="stop"), "usage": usage})[0] == TextDelta(0, "a")


ERRORS: list[tuple[dict[str, Any], type[ProviderError]]] = [
    ({"error": {"message": "m", "type": "requests", "code": "rate_limit_exceeded"}}, ProviderRateLimited),
    ({"error": {"message": "m", "code": "invalid_api_key"}}, ProviderCredentials),
    ({"error": {"message": "m", "type": "invalid_request_error"}}, ProviderRejected),
    ({"error": {"message": "m", "type": "server_error"}}, ProviderUnavailable),
    ({"error": "text"}, ProviderUnavailable),
    ({"error": [{"message": "m", "code": 400}]}, ProviderRejected),
    ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, ProviderRejected),
    ({**delta("", finish="error"), "error": {"code": 429, "message": "m"}}, ProviderRateLimited),
]


@pytest.mark.parametrize(("payload", "kind"), ERRORS)
def test_errors_inside_a_good_answer(payload: dict[str, Any], kind: type[ProviderError]) -> None:
    """An error object in a 200 becomes that error: as the whole answer, as the first event and later.

    Its body is kept for the log.
    """
    with pytest.raises(kind):
        whole(payload)
    with pytest.raises(kind):
        reader().feed(sse(payload))
    read = reader()
    assert fed(read, sse(delta("a"))) == [STARTED, TextDelta(0, "a")]
    with pytest.raises(kind):
        fed(read, sse(payload))
    read = reader()
    assert fed(read, sse(delta("a"), payload)) == [STARTED, TextDelta(0, "a")]
    assert type(read.failure) is kind
    assert json.loads(read.error_body) == payload


def test_error_in_a_list() -> None:
    """An error in a list, as Google's hosts send it, is read as an error."""
    error = b'[{"error": {"code": 400, "message": "m"}}]'
    with pytest.raises(ProviderRejected):
        reader().read_object(error)
    with pytest.raises(ProviderRejected):
        reader().feed(b"data: %b\n\n" % error)


def test_error_in_a_choice() -> None:
    """Of an error in a choice, only the error is kept for the log and not the chunk around it."""
    for choice in ({"error": {"code": 400, "message": "m"}}, {"delta": {"error": {"code": 400, "message": "m"}}}):
        read = reader()
        with pytest.raises(ProviderRejected):
            fed(read, sse({**delta(), "choices": [choice]}))
        assert json.loads(read.error_body) == {"error": {"code": 400, "message": "m"}}


def test_error_before_anything_was_said() -> None:
    """An error right after an empty first chunk is raised before the start of the reply."""
    with pytest.raises(ProviderRateLimited):
        reader().feed(sse(delta(role="assistant", content=""), {"error": {"code": 429}}))


def test_named_error_event() -> None:
    """An event named `error` is an error, whatever its data."""
    with pytest.raises(ProviderRateLimited):
        reader().feed(b'event: error\ndata: {"code": 429, "message": "m"}\n\n')


def test_start_without_id() -> None:
    """A reply without id, time or model gets a new id, the present and the requested model."""
    (started, *_) = reader().feed(sse({"choices": [{"delta": {"content": "a"}}]}))
    assert isinstance(started, Started)
    assert started.id.startswith("chatcmpl-")
    assert started.created > 1_700_000_000
    assert started.model == "asked"


def test_azure_begins_with_a_chunk_without_id() -> None:
    """A first chunk without id and choices does not start the reply; its fields are kept for the start."""
    read = reader()
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    assert fed(read, sse(first)) == []
    started, text = fed(read, sse({**delta("a"), "system_fingerprint": "fp", "service_tier": None, "obfuscation": "x"}))
    assert started == Started(
        STARTED.id,
        STARTED.model,
        STARTED.origin,
        STARTED.created,
        {"prompt_filter_results": [{"prompt_index": 0}], "system_fingerprint": "fp", "service_tier": None},
    )
    assert text == TextDelta(0, "a")


def test_kinds_of_delta() -> None:
    """Thoughts, refusals, sound, function calls and unknown fields have their events, in a stream and in a whole reply."""
    for name, field in (("reasoning_content", ""), ("reasoning", "reasoning")):
        read = reader()
        assert read.feed(sse(delta(**{name: "hm"})))[1:] == [BlockStarted(0, 0, Thinking("", field)), ThinkingDelta(0, "hm")]
    assert streamed(delta(reasoning="hm", reasoning_content="hm"), delta("a", finish="stop"))[:-1] == [
        ThinkingDelta(0, "hm"),
        TextDelta(1, "a"),
    ]
    assert streamed(delta(reasoning="A", reasoning_content="B"), delta(finish="stop"))[:-1] == [
        ThinkingDelta(0, "B"),
        ExtraFields(0, {"reasoning": "A"}),
    ]
    annotations = [{"type": "url_citation"}]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None,
        "refusal": "no",
        "reasoning": "hm",
        "reasoning_details": [{"text": "hm"}],
        "annotations": annotations,
        "audio": {"id": "a1", "data": "QQ==", "transcript": "t", "expires_at": 9},
        "function_call": {"name": "f", "arguments": "{}"},
        "nothing": None,
    }
    expected = [
        ThinkingDelta(0, "hm"),
        RefusalDelta(1, "no"),
        BlockStarted(2, 0, Audio(Media(), "a1")),
        MediaDelta(2, "QQ==", "t", expires=9),
        BlockStarted(3, 0, ToolCall("", "f", "", "function_call")),
        InputDelta(3, "{}"),
        ExtraFields(0, {"reasoning_details": [{"text": "hm"}], "annotations": annotations, "nothing": None}),
        STOP,
    ]
    assert whole(reply(message))[1:] == expected
    assert streamed(delta(**message, finish="stop")) == expected
    assert streamed(delta(audio={"transcript": "x"}), delta(finish="stop"))[1] == MediaDelta(0, transcript="x")
    late = streamed(delta(audio={"transcript": "x"}), delta(audio={"id": "a"}), delta(finish="stop"))
    assert late[1:3] == [MediaDelta(0, transcript="x"), MediaDelta(0, id="a")]
    assert streamed(delta(reasoning={"steps": 1}), delta(finish="stop"))[0] == ExtraFields(0, {"reasoning": {"steps": 1}})


def test_content_in_parts() -> None:
    """Content in parts becomes texts, thoughts and opaque blocks."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]},
        {"type": "text", "text": "a"},
        {"type": "image", "url": "u"},
    ]
    assert streamed(delta(content=parts, finish="stop"))[:-1] == [
        ThinkingDelta(0, "hm"),
        TextDelta(1, "a"),
        BlockStarted(2, 0, Opaque(state=State(fields={"type": "image", "url": "u"}))),
    ]


def test_logprobs() -> None:
    """Log probabilities come with their text, even an empty one. Those of a refusal become unknown fields of the choice."""
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    chunk = delta("a")
    chunk["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    alone = delta(finish="stop")
    alone["choices"][0]["logprobs"] = {"content": [token], "refusal": [token]}
    assert streamed(chunk, alone)[:-1] == [
        TextDelta(0, "a", (token,)),
        TextDelta(0, "", (token,)),
        ExtraFields(0, {"logprobs": {"refusal": [token]}}, Place.CHOICE),
    ]


def test_usage_in_full() -> None:
    """Every known token count has its field; other counts are kept in `extra`."""
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 2, "cache_write_tokens": 6, "text_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 5, "rejected_prediction_tokens": 0},
        "cost": 0.5,
        "nothing": None,
    }
    assert streamed(delta("a", finish="stop"), {**delta(), "choices": [], "usage": usage})[1] == Usage(
        input_tokens=3,
        output_tokens=2,
        total_tokens=5,
        cached_tokens=1,
        cache_write_tokens=6,
        reasoning_tokens=4,
        audio_input_tokens=2,
        audio_output_tokens=5,
        extra={
            "cost": 0.5,
            "prompt_tokens_details": {"text_tokens": 9},
            "completion_tokens_details": {"rejected_prediction_tokens": 0},
        },
    )


def test_thoughts_that_are_counted_beside_the_completion() -> None:
    """Reasoning tokens that the total counts besides the completion, as at xAI, are added to the output. A count of 0 stays 0."""
    beside = {"completion_tokens_details": {"reasoning_tokens": 340}, "prompt_tokens_details": {"cache_write_tokens": 0}}
    for completion, total, expected in ((2, 354, 342), (342, 354, 342), (342, 0, 342)):
        usage = {"prompt_tokens": 12, "completion_tokens": completion, "total_tokens": total, **beside}
        found = Usage(12, expected, 354, cache_write_tokens=0, reasoning_tokens=340)
        assert streamed({**delta("a", finish="stop"), "usage": usage})[1] == found
        assert whole(reply({"content": "a"}, usage=usage))[2] == found


def test_unknown_fields_of_the_reply_keep_their_order_and_repetitions() -> None:
    """Unknown fields of the reply keep their order.

    New and changed ones are sent at once, and repeated ones are marked as repeated.
    """
    names = [f"x_{number}" for number in (7, 3, 9, 1, 8)]
    first = {**delta("a"), **{name: [name] for name in names}}
    events = fed(
        reader(),
        sse(
            first,
            {**delta("b"), names[2]: [names[2]], names[0]: [names[0]], "late": 1},
            {**delta("c"), names[2]: [names[2]], names[0]: None, "late": 2},
            {**delta("d"), names[2]: [names[2]]},
            delta("e"),
        ),
    )
    assert list(events[0].fields) == names  # type: ignore[union-attr]
    assert events[1:] == [
        TextDelta(0, "a"),
        ExtraFields(None, {"late": 1}, Place.REPLY),
        ExtraFields(None, {names[2]: [names[2]], names[0]: [names[0]]}, Place.REPLY, repeats=True),
        TextDelta(0, "b"),
        ExtraFields(None, {"late": 2}, Place.REPLY),
        ExtraFields(None, {names[2]: [names[2]]}, Place.REPLY, repeats=True),
        TextDelta(0, "c"),
        TextDelta(0, "d"),
        ExtraFields(None, {}, Place.REPLY, repeats=True),
        TextDelta(0, "e"),
    ]
    assert list(events[3].fields) == [names[2], names[0]]  # type: ignore[union-attr]


def test_places_of_usage() -> None:
    """Usage is found wherever hosts put it. The last one counts, null is ignored, and a missing total is computed."""
    finish = delta("a", finish="stop")
    with_choice = delta("a", finish="stop")
    with_choice["choices"][0]["usage"] = USAGE
    for events in (
        ({**finish, "usage": USAGE},),
        ({**delta("a"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, {**delta(finish="stop"), "usage": USAGE}),
        ({**delta("a"), "usage": None}, {**delta(finish="stop"), "usage": None}, {**delta(), "choices": [], "usage": USAGE}),
        ({**finish, "x_groq": {"id": "r", "usage": USAGE}},),
        (with_choice,),
        ({**finish, "usage": {"prompt_tokens": 3, "completion_tokens": 2}},),
    ):
        assert streamed(*events)[-2:] == [Usage(3, 2, 5), STOP], events
    assert streamed({**finish, "usage": None}) == [TextDelta(0, "a"), STOP]
    (usage,) = (e for e in streamed({**finish, "usage": {**USAGE, "prompt_cache_hit_tokens": 2}}) if isinstance(e, Usage))
    assert usage.cached_tokens == 2
    assert usage.extra == {"prompt_cache_hit_tokens": 2}


def test_groq_keeps_its_request_id() -> None:
    """The field `x_groq` is passed on without its usage."""
    (started, *_) = reader().feed(sse({**delta("a"), "x_groq": {"id": "r", "usage": USAGE}}))
    assert isinstance(started, Started)
    assert started.fields == {"x_groq": {"id": "r"}}


@pytest.mark.parametrize("number", [{}, {"index": 0}, {"index": None}])
def test_whole_reply_whose_choices_are_not_numbered(number: dict[str, Any]) -> None:
    """Choices without a usable index are numbered in their order."""
    choices = [{**number, "message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
    ends = [STOP, Finished(1, FinishReason.STOP, "stop")]
    assert whole(reply({}, choices=choices))[1:] == [TextDelta(0, "a"), TextDelta(1, "b"), *ends]


def test_whole_reply_without_its_end() -> None:
    """A whole reply without choices raises. One without a finish reason is complete, with the reason OTHER."""
    for nothing in (None, ""):
        assert whole(reply({"content": "a"}, nothing))[1:] == [TextDelta(0, "a"), Finished(0, FinishReason.OTHER, "")]
    for body in (reply({"content": "a"}, choices=[]), {"id": "x"}, {"detail": "x"}, None):
        with pytest.raises(ProviderProtocolError):
            whole(body)


def test_message_and_delta_side_by_side() -> None:
    """If a choice has both, a stream reads the delta and a whole reply the message."""
    choice = {"index": 0, "message": {"content": "all"}, "delta": {"content": ""}, "finish_reason": "stop"}
    assert whole(reply({}, choices=[choice]))[1] == TextDelta(0, "all")
    assert streamed({**delta(), "choices": [{**choice, "delta": {"content": "b"}}]})[0] == TextDelta(0, "b")


def test_event_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event over the size limit raises instead of filling the memory."""
    monkeypatch.setattr("antiphon.providers.codec.reader.MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ProviderProtocolError, match="too large"):
        reader().feed(b"data: " + b"x" * 1001)


def test_sound_that_is_cut_anywhere() -> None:
    """Base64 of sound may be cut anywhere between deltas; each event has complete groups, and nothing is lost."""
    data = base64.b64encode(bytes(range(20))).decode()
    for at in range(len(data) + 1):
        events = streamed(delta(audio={"id": "a", "data": data[:at]}), delta(audio={"data": data[at:]}), delta(finish="stop"))
        pieces = [event.data for event in events if isinstance(event, MediaDelta)]
        assert b"".join(base64.b64decode(piece, validate=True) for piece in pieces) == bytes(range(20))
    mixed = streamed(
        delta(audio={"data": "QU"}),
        delta(audio={"data": "Qg=="}, index=1),
        delta(audio={"data": "JD"}, finish="stop"),
        delta(finish="stop", index=1),
    )
    assert [event for event in mixed if isinstance(event, MediaDelta)] == [MediaDelta(1, "Qg=="), MediaDelta(0, "QUJD")]


def test_the_older_completions_api() -> None:
    """A choice with `text` and no message is read as that text; one with neither raises."""
    choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
    expected = [TextDelta(0, "Hello"), STOP]
    assert whole(reply({}, choices=[choice]))[1:] == expected
    assert streamed({**delta(), "choices": [choice]}) == expected
    for nothing in ({"message": None}, {}, {"text": None}):
        with pytest.raises(ProviderProtocolError):
            whole(reply({}, choices=[{"index": 0, "finish_reason": "stop", **nothing}]))


def test_a_call_begins_at_once_only_where_its_tool_was_offered() -> None:
    """A call begins at once only if its tool was offered; any other name might not be complete yet."""
    custom = NativeTool({"type": "custom", "custom": {"name": "run"}})
    tools = (Tool("f"), custom, NativeTool({"type": "web_search"}), NativeTool({"custom": {"name": 5}}))
    for name, begins in (("f", True), ("run", True), ("g", False)):
        read = OpenAIReader(ChatRequest("m", (), stream=True, tools=tools), "p")
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": "{"}}
        events = read.feed(sse(delta(tool_calls=[call])))
        assert any(isinstance(event, InputDelta) for event in events) is begins
        rest = sse(delta(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]), delta(finish="tool_calls"))
        events += [*read.feed(rest), *read.end()]
        check(events)
        assert "".join(event.text for event in events if isinstance(event, InputDelta)) == "{}"


@pytest.mark.parametrize("given", ["flex", "priority", "default", "auto", None])
def test_the_service_that_a_call_got(given: str | None) -> None:
    """The reply names it beside the usage, whole or streamed. The usual one is none."""
    expected = given if given in ("flex", "priority") else ""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    one = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "service_tier": given}
    hello = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    events = streamed({**one, "choices": [hello]}, {**one, "choices": [], "usage": usage}, "[DONE]")
    found = whole({**reply({"role": "assistant", "content": "Hi"}), "service_tier": given, "usage": usage})
    for used in (next(event for event in read if isinstance(event, Usage)) for read in (events, found)):
        assert used.service_tier == expected
