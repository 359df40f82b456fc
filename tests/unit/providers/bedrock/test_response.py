"""From the bytes of the Converse API to events."""

import base64
import json
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    Block,
    Citation,
    Image,
    Media,
    Opaque,
    Origin,
    RedactedThinking,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockProgress,
    BlockStarted,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    Place,
    Started,
    TextDelta,
    Usage,
)
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, Tool
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.response import BedrockReader
from tests.eventstream import event, exception, header, message, stream
from tests.unit.framing import check

REQUEST = ChatRequest("us.anthropic.claude-sonnet-4-5-20250929-v1:0", (), stream=True)
USAGE = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
METADATA = {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 5}, "p": "abc"}}
START = {"messageStart": {"role": "assistant", "p": "abcdef"}}


def start(index: int, **member: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": member}}


def delta(index: int, **member: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": member, "p": "abcd"}}


def stop(index: int) -> dict[str, Any]:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def end(reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason, **more}}


HELLO = [START, delta(0, text="Hel"), delta(0, text="lo"), stop(0), end(), METADATA]


def read(*events: dict[str, Any], names: tuple[str, ...] = ()) -> Batch:
    """Return the events of a stream. They keep the rules, and are the same however the stream is cut."""
    data = stream(*events)
    whole = feed(data, len(data), names)
    check(whole)
    for size in (1, 7, 100):
        assert without_start(feed(data, size, names)) == without_start(whole)
    return whole


def feed(data: bytes, size: int, names: tuple[str, ...] = ()) -> Batch:
    reader = BedrockReader(replace(REQUEST, tools=tuple(map(Tool, names))), "acme")
    events: Batch = []
    for at in range(0, len(data), size):
        events += reader.feed(data[at : at + size])
        if reader.failure is not None:
            raise reader.failure
        if reader.ending.done:
            break
    return [*events, *reader.end()]


def without_start(events: Batch) -> Batch:
    return [one for one in events if not isinstance(one, Started)]


def blocks(*events: dict[str, Any], names: tuple[str, ...] = ()) -> tuple[Block, ...]:
    reply = Reply()
    for one in read(*events, names=names):
        reply.add(one)
    return reply.message().blocks


def test_hello() -> None:
    """A text of two deltas; tokens and end come last, and what else the metadata has is a field of the reply."""
    started, *rest = read(*HELLO)
    assert isinstance(started, Started)
    assert (started.model, len(started.id), started.fields) == (REQUEST.model, 32, {})
    assert started.origin == Origin("bedrock", "acme", REQUEST.model, "acme")
    assert rest == [
        BlockStarted(0, 0, Text("")),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        BlockFinished(0),
        ExtraFields(None, {"metrics": {"latencyMs": 5}}, Place.REPLY),
        Usage(3, 4, 7),
        Finished(0, FinishReason.STOP, "end_turn"),
    ]


def test_order_of_the_end() -> None:
    """Tokens may come before the end, and there may be no start of the message, nor an end of a block."""
    events = read(start(0), delta(0, text="x"), METADATA, end("stop_sequence", additionalModelResponseFields={"a": [1]}))
    assert isinstance(events[0], Started)
    assert events[-2:] == [
        Usage(3, 4, 7),
        Finished(0, FinishReason.STOP, "stop_sequence", {"additionalModelResponseFields": {"a": [1]}}),
    ]


@pytest.mark.parametrize(("tier", "expected"), [("flex", "flex"), ("default", ""), (None, "")])
def test_the_service(tier: str | None, expected: str) -> None:
    """What service the call got is part of its usage, as the price depends on it."""
    told = {"serviceTier": {"type": tier}}
    events = read(*HELLO[:-1], {"metadata": {**METADATA["metadata"], **told}})
    assert events[-2] == Usage(3, 4, 7, service_tier=expected)
    assert BedrockReader(REQUEST, "acme").read_object(whole({"text": "a"}, **told))[-2] == Usage(3, 4, 7, service_tier=expected)


def test_reasoning() -> None:
    """A signature may come in pieces, alone, or not at all; base64 of redacted reasoning is kept as it is."""
    assert blocks(
        START,
        delta(0, reasoningContent={"text": "a"}),
        delta(0, reasoningContent={"text": ""}),
        delta(0, reasoningContent={"signature": "s1"}),
        delta(0, reasoningContent={"signature": "s2=="}),
        stop(0),
        delta(1, reasoningContent={"redactedContent": "/+8="}),
        stop(1),
        delta(2, reasoningContent={"signature": "alone"}),
        stop(2),
        delta(3, reasoningContent={"text": "unsigned"}),
        stop(3),
        delta(4, reasoningContent={"redactedContent": base64.b64encode(b"ab").decode()}),
        delta(4, reasoningContent={"redactedContent": base64.b64encode(b"c").decode()}),
        delta(5, text="x"),
        end(),
        METADATA,
    ) == (
        Thinking("a", state=State("s1s2==")),
        RedactedThinking(state=State("/+8=")),
        Thinking("", state=State("alone")),
        Thinking("unsigned"),
        RedactedThinking(state=State(base64.b64encode(b"abc").decode())),
        Text("x"),
    )


def test_starts_that_the_api_does_not_have() -> None:
    """Some hosts announce text and reasoning; what is in such a start counts."""
    assert blocks(
        start(0, reasoningContent={}),
        delta(0, reasoningContent={"text": "a"}),
        stop(0),
        start(1, text=""),
        delta(1, text="b"),
        stop(1),
        start(2, text="c"),
        delta(2, text="d"),
        stop(2),
        end(),
    ) == (Thinking("a"), Text("b"), Text("cd"))


def test_kinds_within_one_index() -> None:
    """Another kind of delta ends a block."""
    assert blocks(delta(0, reasoningContent={"text": "a"}), delta(0, text="b"), stop(0), end()) == (Thinking("a"), Text("b"))


def test_calls() -> None:
    """Names are mapped back; a call without input has an empty object, unless the limit cut it."""
    calls = (
        start(0, toolUse={"toolUseId": "c0", "name": NAMES.sent("f.g")}),
        delta(0, toolUse={"input": '{"a": '}),
        delta(0, toolUse={"input": "1}"}),
        stop(0),
        start(1, toolUse={"toolUseId": "c1", "name": "h", "more": 1}),
        delta(1, toolUse={"input": ""}),
        stop(1),
    )
    one = ToolCall("c0", "f.g", '{"a": 1}')
    assert blocks(*calls, end("tool_use"), METADATA, names=("f.g", "h")) == (
        one,
        ToolCall("c1", "h", "{}", state=State(fields={"more": 1})),
    )
    assert blocks(*calls, end("max_tokens"), names=("f.g", "h"))[1] == ToolCall("c1", "h", "", state=State(fields={"more": 1}))
    assert blocks(*calls[:-1], end("max_tokens"), names=("f.g", "h"))[1].arguments == ""  # type: ignore[union-attr]
    finished = read(*calls, end("tool_use"))[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.TOOL_CALLS


def test_tools_of_the_provider() -> None:
    """Their calls and results are not the client's; pieces of a text are joined."""
    assert blocks(
        start(0, toolUse={"toolUseId": "s", "name": "nova_grounding", "type": "server_tool_use"}),
        delta(0, toolUse={"input": "{}"}),
        stop(0),
        start(1, toolResult={"toolUseId": "s", "type": "nova_grounding_result", "status": "success"}),
        delta(1, toolResult=[{"text": "a"}, {"json": {"x": 1}}]),
        delta(1, toolResult=[{"text": "b"}]),
        delta(1, toolResult=[{"text": "c"}]),
        stop(1),
        start(2, toolResult={"toolUseId": "t", "status": "error"}),
        stop(2),
        end(),
    ) == (
        ServerToolCall("s", "server_tool_use", "nova_grounding", "{}"),
        ServerToolResult(
            "s",
            "nova_grounding_result",
            state=State(fields={"status": "success", "content": [{"text": "a"}, {"json": {"x": 1}}, {"text": "bc"}]}),
        ),
        ServerToolResult("t", "toolResult", is_error=True, state=State(fields={"status": "error", "content": []})),
    )


def test_citations_and_images() -> None:
    """A citation is one of the text; pieces of an image are one image, which may have failed."""
    assert blocks(
        delta(0, text="x"),
        delta(0, citation={"title": "t", "source": "s", "sourceContent": [{"text": "c"}], "location": {"web": {"url": "u"}}}),
        stop(0),
        start(1, image={"format": "png"}),
        delta(1, image={"source": {"bytes": "YWI="}}),
        delta(1, image={"source": {"bytes": "Yw=="}}),
        stop(1),
        start(2, image={"format": "webp"}),
        delta(2, image={"error": {"message": "no"}}),
        stop(2),
        start(3, image={"format": "gif"}),
        delta(3, image={"source": {"s3Location": {"uri": "s3://bucket/x"}}}),
        end(),
    ) == (
        Text("x", (Citation("u", "t", "c", "s", fields={"location": {"web": {}}}),)),
        Image(Media("data:image/png;base64,YWJj")),
        Image(Media(), state=State(fields={"format": "webp", "error": {"message": "no"}})),
        Image(Media("s3://bucket/x"), state=State(fields={"format": "gif"})),
    )


def test_unknown_things() -> None:
    """Blocks of unknown kinds are kept, their further deltas are progress, and unknown events are ignored."""
    events = read(
        {"newEvent": {"a": 1}},
        start(0, newBlock={"a": 1}),
        delta(0, newDelta={"b": 2}),
        stop(0),
        delta(1, newDelta={"c": 3}),
        stop(1),
        delta(2, reasoningContent={"newReasoning": "x"}),
        end("new_reason"),
    )
    assert [one.value for one in events if isinstance(one, BlockStarted)] == [
        Opaque(state=State(fields={"contentBlockStart": {"newBlock": {"a": 1}}})),
        Opaque(state=State(fields={"contentBlockDelta": {"newDelta": {"c": 3}}})),
        Opaque(state=State(fields={"contentBlockDelta": {"reasoningContent": {"newReasoning": "x"}}})),
    ]
    assert [one for one in events if isinstance(one, BlockProgress)] == [BlockProgress(0, "newDelta", {"newDelta": {"b": 2}})]
    assert events[-1] == Finished(0, FinishReason.OTHER, "new_reason")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("guardrail_intervened", FinishReason.CONTENT_FILTER),
        ("content_filtered", FinishReason.CONTENT_FILTER),
        ("refusal", FinishReason.REFUSAL),
        ("model_context_window_exceeded", FinishReason.CONTEXT_WINDOW),
    ],
)
def test_reasons(word: str, reason: FinishReason) -> None:
    """Each reason has its own in the domain."""
    assert read(START, end(word), METADATA)[-1] == Finished(0, reason, word)


@pytest.mark.parametrize("word", ["malformed_model_output", "malformed_tool_use"])
def test_malformed_output(word: str) -> None:
    """A reply that the model could not write is a failure, after what it did write and with the tokens that it used."""
    reader = BedrockReader(REQUEST, "acme")
    events = reader.feed(stream(START, delta(0, text="x"), end(word), METADATA))
    assert TextDelta(0, "x") in events
    assert isinstance(reader.failure, ProviderUnavailable)
    assert word in reader.error_body.decode()
    assert reader.break_off() == [Usage(3, 4, 7)]
    for rest in ((), (METADATA,)):
        reader = BedrockReader(REQUEST, "acme")
        reader.feed(stream(START, end(word)))
        assert reader.break_off() == []
        with pytest.raises(ProviderUnavailable):
            reader.end() if not rest else reader.feed(stream(*rest))


def test_each_cut() -> None:
    """A reply that ends before its stop, or within a message, is a failure; after it, only the tokens may be missing."""
    data = stream(*HELLO)
    stopped = len(stream(*HELLO[:-1]))
    for at in range(len(data)):
        reader = BedrockReader(REQUEST, "acme")
        reader.feed(data[:at])
        if at == stopped:
            assert reader.end()[-1] == Finished(0, FinishReason.STOP, "end_turn")
            continue
        with pytest.raises(ProviderProtocolError):
            reader.end()


def test_silence() -> None:
    """It ends a reply only after its stop, while the tokens are waited for."""
    reader = BedrockReader(REQUEST, "acme")
    reader.feed(stream(*HELLO[:-2]))
    assert (reader.ending.wait(), reader.ending.changed) == (None, False)
    reader.feed(stream(end()))
    assert (reader.ending.wait(), reader.ending.changed, reader.ending.done) == (5.0, True, False)
    reader.feed(stream(METADATA))
    assert reader.ending.done
    assert reader.has_usage


EXCEPTIONS: list[tuple[str, dict[str, Any], type[ProviderError], bool | None]] = [
    ("internalServerException", {}, ProviderUnavailable, True),
    ("serviceUnavailableException", {}, ProviderUnavailable, True),
    ("throttlingException", {}, ProviderRateLimited, True),
    ("validationException", {}, ProviderRejected, None),
    ("modelStreamErrorException", {"originalStatusCode": 500}, ProviderUnavailable, True),
    ("modelStreamErrorException", {"originalStatusCode": 429}, ProviderRateLimited, True),
    ("modelStreamErrorException", {"originalStatusCode": 403}, ProviderUnavailable, True),
    ("modelStreamErrorException", {}, ProviderUnavailable, True),
    ("modelTimeoutException", {}, ProviderTimeout, None),
    ("ModelNotReadyException", {}, ProviderRateLimited, True),
    ("accessDeniedException", {}, ProviderCredentials, None),
    ("newException", {}, ProviderUnavailable, None),
]


@pytest.mark.parametrize(("kind", "fields", "error", "retryable"), EXCEPTIONS)
def test_exceptions(kind: str, fields: dict[str, Any], error: type[ProviderError], retryable: bool | None) -> None:
    """An exception in a stream is what the same exception is as an answer, after what came before it."""
    reader = BedrockReader(REQUEST, "acme")
    data = exception(kind, {"message": "why", **fields})
    events = reader.feed(stream(START, delta(0, text="x")) + data)
    assert TextDelta(0, "x") in events
    assert type(reader.failure) is error
    assert reader.failure.retryable == (retryable if retryable is not None else reader.failure.retryable)
    assert json.loads(reader.error_body) == {"message": "why", "type": kind, **fields}
    with pytest.raises(error):
        BedrockReader(REQUEST, "acme").feed(data)


def test_an_error_message() -> None:
    """An error without a body has its name and its text in the headers."""
    headers = header(":message-type", "error") + header(":error-code", "ThrottlingException") + header(":error-message", "slow")
    reader = BedrockReader(REQUEST, "acme")
    with pytest.raises(ProviderRateLimited):
        reader.feed(message(headers, b""))
    assert json.loads(reader.error_body) == {"message": "slow", "type": "ThrottlingException"}


@pytest.mark.parametrize(
    "data",
    [
        b"event: x\ndata: {}\n\n",
        event("contentBlockDelta", b"{"),
        event("contentBlockDelta", []),
        event("contentBlockDelta", {"contentBlockIndex": -1, "delta": {"text": "x"}}),
        event("contentBlockDelta", {"contentBlockIndex": "0", "delta": {"text": "x"}}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 1}}),
        stream(delta(0, toolUse={"input": "x"})),
        stream(delta(0, text="x"), delta(0, toolUse={"input": "x"})),
        stream(delta(0, toolResult=[{"text": "x"}])),
        stream(start(0, toolUse={"name": "f"})),
        stream(delta(0, reasoningContent={"redactedContent": "?"}), delta(0, reasoningContent={"redactedContent": "?"}), stop(0)),
        stream(end(), end()),
        stream(end(), delta(0, text="x")),
        stream({"messageStop": {}}),
        event("messageStart", b"[" * 100_000),
        message(header(":message-type", "event"), b"{}"),
    ],
)
def test_wrong_streams(data: bytes) -> None:
    """Data of another shape is a failure of the provider."""
    reader = BedrockReader(REQUEST, "acme")
    with pytest.raises(ProviderProtocolError):
        raise (reader.feed(data) and reader.failure) or AssertionError


def whole(*content: Any, **more: Any) -> bytes:
    body = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn", "usage": USAGE, **more}
    return json.dumps(body).encode()


def test_a_whole_reply() -> None:
    """It has the blocks of a stream, with what a stream has no place for."""
    events = BedrockReader(REQUEST, "acme").read_object(
        whole(
            {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s", "more": 1}}},
            {"reasoningContent": {"redactedContent": "/+8="}},
            {"text": "a"},
            {"citationsContent": {"content": [{"text": "b"}, {"text": "c"}], "citations": [{"title": "t"}]}},
            {"toolUse": {"toolUseId": "c", "name": "f", "input": {"n": 2**70}}},
            {"toolUse": {"toolUseId": "s", "name": "g", "input": {}, "type": "server_tool_use"}},
            {"toolResult": {"toolUseId": "s", "content": [{"json": {}}], "status": "success"}},
            {"image": {"format": "png", "source": {"bytes": "AA=="}}},
            {"audio": {"format": "wav", "source": {"bytes": "AA=="}}},
            {"image": {"format": "png", "source": {}, "error": {"message": "no"}}},
            {"newBlock": {"a": 1}},
            trace={"guardrail": {}},
        )
    )
    check(events)
    reply = Reply()
    for one in events:
        reply.add(one)
    started = reply.started
    assert started is not None
    assert started.fields == {"trace": {"guardrail": {}}}
    assert reply.message().blocks == (
        Thinking("t", state=State("s", {"more": 1})),
        RedactedThinking(state=State("/+8=")),
        Text("a"),
        Text("bc", (Citation(title="t"),)),
        ToolCall("c", "f", '{"n":1180591620717411303424}'),
        ServerToolCall("s", "server_tool_use", "g", "{}"),
        ServerToolResult("s", "toolResult", state=State(fields={"status": "success", "content": [{"json": {}}]})),
        Image(Media("data:image/png;base64,AA==")),
        Audio(Media("data:audio/wav;base64,AA==")),
        Image(Media(), state=State(fields={"format": "png", "source": {}, "error": {"message": "no"}})),
        Opaque(state=State(fields={"newBlock": {"a": 1}})),
    )
    assert [one.text for one in events if isinstance(one, InputDelta)] == ['{"n":1180591620717411303424}', "{}"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"message": "no"}', ProviderUnavailable),
        (b'{"__type": "com.amazon.coral.service#ThrottlingException", "message": "no"}', ProviderUnavailable),
        (b"[]", ProviderUnavailable),
        (b'{"output": {"message": {"content": [1]}}}', ProviderProtocolError),
        (b'{"output": {"message": {"content": []}}}', ProviderProtocolError),
        (b"{", ProviderProtocolError),
    ],
)
def test_wrong_whole_replies(body: bytes, error: type[ProviderError]) -> None:
    """An object without a message is a failure of the provider."""
    with pytest.raises(error):
        BedrockReader(REQUEST, "acme").read_object(body)
