"""From the bytes of the Gemini API to events."""

import json
from typing import Any

import pytest

from antiphon.domain.content import (
    Audio,
    Citation,
    Image,
    Media,
    Opaque,
    Origin,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderRateLimited, ProviderUnavailable
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Place,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, Sampling, Tool
from antiphon.providers.gemini.ending import FAILURES, REASONS, WAIT
from antiphon.providers.gemini.names import NAMES, made_id
from antiphon.providers.gemini.response import GeminiReader
from tests.odd_upstream import sse
from tests.unit.framing import check, without_early_usage

REQUEST = ChatRequest("gemini-3-pro", (), stream=True)
COUNTS = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
STOP = Finished(0, FinishReason.STOP, "STOP")


def chunk(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk with a candidate; `more` are fields of the candidate."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, **more}
    made: dict[str, Any] = {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-3-pro-001"}
    if reason is not None:
        candidate["finishReason"] = reason
        made["usageMetadata"] = COUNTS
    return made


def call(name: str | None = None, signature: str | None = None, **fields: Any) -> dict[str, Any]:
    inner = fields if name is None else {"name": name, **fields}
    return {"functionCall": inner} if signature is None else {"functionCall": inner, "thoughtSignature": signature}


HELLO = [chunk({"text": "Hel"}), chunk({"text": "lo"}), chunk({"text": ""}, reason="STOP")]
MIXED = [
    chunk({"text": "Hm", "thought": True}),
    chunk({"text": "m.", "thought": True}, {"text": "I "}),
    chunk({"text": "look."}, {"text": "", "thoughtSignature": "s0"}),
    chunk(call("f", "s1", args={"q": 2**70})),
    chunk(call("g", id="own", args={})),
    chunk({"text": "", "thoughtSignature": "s2"}, reason="STOP", safetyRatings=[{"category": "c", "probability": "LOW"}]),
]


def read(*chunks: dict[str, Any] | str, request: ChatRequest = REQUEST) -> Batch:
    reader = GeminiReader(request, "acme")
    batch = reader.feed(sse(*chunks))
    assert reader.failure is None
    found = [*batch, *reader.end()]
    check(found)
    return without_early_usage(found)


def blocks(*chunks: dict[str, Any], request: ChatRequest = REQUEST) -> Any:
    reply = Reply()
    for event in read(*chunks, request=request):
        reply.add(event)
    return reply.message().blocks


def test_text() -> None:
    """One delta is one event, and an empty text is none."""
    first, *rest = read(*HELLO)
    assert isinstance(first, Started)
    assert (first.id, first.model) == ("r1", "gemini-3-pro-001")
    assert first.origin == Origin("gemini", "acme", "gemini-3-pro", "acme")
    assert rest == [
        BlockStarted(0, 0, Text("")),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        BlockFinished(0),
        Usage(3, 2, 5),
        STOP,
    ]


def test_thoughts_texts_and_calls() -> None:
    """A signed part is a block of its own, even if it is empty; calls without an id get one."""
    _, *rest = read(*MIXED)
    assert rest == [
        BlockStarted(0, 0, Thinking("")),
        ThinkingDelta(0, "Hm"),
        ThinkingDelta(0, "m."),
        BlockFinished(0),
        BlockStarted(1, 0, Text("")),
        TextDelta(1, "I "),
        TextDelta(1, "look."),
        BlockStarted(2, 0, Text("", state=State("s0"))),
        BlockFinished(1),
        BlockFinished(2),
        BlockStarted(3, 0, ToolCall(made_id("r1", 1), "f", "", state=State("s1"))),
        InputDelta(3, '{"q":1180591620717411303424}'),
        BlockFinished(3),
        BlockStarted(4, 0, ToolCall("own", "g", "")),
        InputDelta(4, "{}"),
        BlockFinished(4),
        BlockStarted(5, 0, Text("", state=State("s2"))),
        BlockFinished(5),
        ExtraFields(0, {"safetyRatings": [{"category": "c", "probability": "LOW"}]}, Place.CHOICE),
        Usage(3, 2, 5),
        Finished(0, FinishReason.TOOL_CALLS, "STOP"),
    ]


def test_signatures_divide() -> None:
    """A signed text is not joined with its neighbours, nor a signed thought."""
    found = blocks(
        chunk({"text": "a"}, {"text": "b", "thoughtSignature": "s"}, {"text": "c"}, {"text": "d"}),
        chunk(
            {"text": "t", "thought": True, "thoughtSignature": "u"}, {"text": "v", "thought": True}, {"text": "e"}, reason="STOP"
        ),
    )
    assert found == (
        Text("a"),
        Text("b", state=State("s")),
        Text("cd"),
        Thinking("t", state=State("u")),
        Thinking("v"),
        Text("e"),
    )


@pytest.mark.parametrize("last", [call(), {"text": ""}], ids=["closed", "not closed"])
def test_arguments_in_pieces(last: dict[str, Any]) -> None:
    """They are one delta, at the end of the call; the next call, and the end of the reply, end one that is not closed."""
    pieces = [
        chunk(call("f", "s", willContinue=True)),
        chunk(call(partialArgs=[{"jsonPath": "$.a", "stringValue": "x", "willContinue": True}], willContinue=True)),
        chunk(call(partialArgs=[{"jsonPath": "$.a", "stringValue": "y"}], willContinue=True)),
        chunk(call(willContinue=True)),
        chunk(last),
        chunk(call("g", willContinue=True)),
        chunk(call(partialArgs=[{"jsonPath": "$.b[0]", "numberValue": 1}], willContinue=True)),
        chunk({"text": ""}, reason="STOP"),
    ]
    _, *rest = read(*pieces)
    assert rest[:6] == [
        BlockStarted(0, 0, ToolCall(made_id("r1", 1), "f", "", state=State("s"))),
        InputDelta(0, '{"a":"xy"}'),
        BlockFinished(0),
        BlockStarted(1, 0, ToolCall(made_id("r1", 2), "g", "")),
        InputDelta(1, '{"b":[1]}'),
        BlockFinished(1),
    ]
    assert rest[-1] == Finished(0, FinishReason.TOOL_CALLS, "STOP")


def test_a_signature_that_comes_late() -> None:
    """It is the call's, although a later piece has it."""
    (found,) = blocks(chunk(call("f", willContinue=True)), chunk(call(None, "s", args={"a": 1})), chunk(reason="STOP"))
    assert found == ToolCall(made_id("r1", 1), "f", '{"a":1}', state=State("s"))


def test_a_call_that_the_limit_cut() -> None:
    """Its arguments do not parse, so that nobody runs it."""
    found = blocks(
        chunk(call("f", willContinue=True, partialArgs=[{"jsonPath": "$.a", "stringValue": "x", "willContinue": True}])),
        chunk(reason="MAX_TOKENS"),
    )
    assert found == (ToolCall(made_id("r1", 1), "f", '{"a":"x"'),)


def test_tools_of_the_provider() -> None:
    """Calls and results are blocks that belong together, with all that the provider sent."""
    found = blocks(
        chunk(
            {"executableCode": {"language": "PYTHON", "code": "1+1", "id": "e1"}, "thoughtSignature": "s"},
            {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}},
            {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"q": 1}, "id": "t1"}},
            {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "response": {"a": 1}, "id": "t1"}},
            {"text": "2"},
            reason="STOP",
        )
    )
    assert found == (
        ServerToolCall(
            "e1",
            "executableCode",
            "code_execution",
            "1+1",
            state=State("s", {"executableCode": {"language": "PYTHON", "id": "e1"}}),
        ),
        ServerToolResult(
            "e1",
            "codeExecutionResult",
            True,
            state=State(fields={"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}}),
        ),
        ServerToolCall(
            "t1",
            "toolCall",
            "GOOGLE_SEARCH_WEB",
            '{"q":1}',
            state=State(fields={"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t1"}}),
        ),
        ServerToolResult(
            "t1",
            "toolResponse",
            state=State(fields={"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "response": {"a": 1}, "id": "t1"}}),
        ),
        Text("2"),
    )


def test_pictures_recordings_and_the_unknown() -> None:
    """A picture is whole, a recording is in pieces; a picture that is a thought, and what is unknown, is opaque."""
    picture = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}}
    _, *rest = read(
        chunk(
            {**picture, "thoughtSignature": "s"},
            {**picture, "thought": True},
            sound,
            sound,
            {"fileData": {"fileUri": "u"}},
            {"text": "x", "partMetadata": {"a": 1}},
            {},
            reason="STOP",
        )
    )
    starts = [event.value for event in rest if isinstance(event, BlockStarted)]
    assert starts == [
        Image(Media("data:image/png;base64,AA=="), state=State("s")),
        Opaque(state=State(fields={**picture, "thought": True})),
        Audio(Media(), state=State(fields={"inlineData": {"mimeType": "audio/L16;rate=24000"}})),
        Opaque(state=State(fields={"fileData": {"fileUri": "u"}})),
        Text("", state=State(fields={"partMetadata": {"a": 1}})),
    ]
    assert [event for event in rest if isinstance(event, MediaDelta)] == [MediaDelta(2, "AAAA"), MediaDelta(2, "AAAA")]


def test_sources() -> None:
    """Grounding and recited works are citations of the text, although they come after it; what was sent is kept."""
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 4, "endIndex": 9, "text": "world"}, "groundingChunkIndices": [0]}],
    }
    work = {"startIndex": 0, "endIndex": 3, "uri": "w"}
    _, *rest = read(
        chunk({"text": "The "}, citationMetadata={"citationSources": [work]}),
        chunk({"text": "world."}, groundingMetadata={"webSearchQueries": ["q"]}, citationMetadata={"citations": [work]}),
        chunk({"text": "", "thoughtSignature": "s"}, reason="STOP", groundingMetadata=grounding),
    )
    assert [event for event in rest if isinstance(event, CitationDelta)] == [
        CitationDelta(0, Citation("https://a", "A", "world", start=4, end=9)),
        CitationDelta(0, Citation("w", "", "The", start=0, end=3)),
    ]
    assert Usage(3, 2, 5, server_tools={"google_search": 1}) in rest
    assert ExtraFields(0, {"groundingMetadata": {"webSearchQueries": ["q"], **grounding}}, Place.CHOICE) in rest


def test_log_probabilities() -> None:
    """They have the form of the OpenAI API, with the text of their chunk."""
    logprobs = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5, "tokenId": 1}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -1}]}],
        "logProbabilitySum": -0.5,
    }
    _, *rest = read(chunk({"text": "a"}, logprobsResult=logprobs), chunk(reason="STOP", avgLogprobs=-0.5))
    entry = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -1, "bytes": None}]}
    assert rest[1] == TextDelta(0, "a", (entry,))
    assert ExtraFields(0, {"logprobsResult": {"logProbabilitySum": -0.5}, "avgLogprobs": -0.5}, Place.CHOICE) in rest
    _, *late = read(chunk({"text": "a"}), chunk(reason="STOP", logprobsResult=logprobs))
    assert TextDelta(0, "", (entry,)) in late


def test_fields_of_the_reply() -> None:
    """Unknown fields are kept, and later ones where they changed; the time of the provider is that of the reply."""
    status = {"modelStatus": {"message": "soon gone"}, "createTime": "2026-05-04T20:01:02.264968Z"}
    first, *rest = read({**HELLO[0], **status}, {**HELLO[1], **status}, {**HELLO[2], "x": 1})
    assert isinstance(first, Started)
    assert (first.created, first.fields) == (1777924862, {"modelStatus": status["modelStatus"]})
    assert [event for event in rest if isinstance(event, ExtraFields)] == [ExtraFields(None, {"x": 1}, Place.REPLY)]


def test_a_blocked_prompt() -> None:
    """It is a filtered reply without content, with what the provider says of it."""
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    used = {"promptTokenCount": 3, "totalTokenCount": 3}
    _, *rest = read({"promptFeedback": feedback, "usageMetadata": used, "responseId": "r1"})
    assert rest == [
        Usage(3, 0, 3),
        Finished(0, FinishReason.CONTENT_FILTER, "PROHIBITED_CONTENT", {"promptFeedback": feedback}),
    ]


@pytest.mark.parametrize(("word", "reason"), [*REASONS.items(), ("NEW", FinishReason.OTHER)])
def test_finish_reasons(word: str, reason: FinishReason) -> None:
    """Each has its meaning, and is kept."""
    assert read(chunk({"text": "x"}, reason=word))[-1] == Finished(0, reason, word)


def test_an_unknown_reason_beside_calls() -> None:
    """The reply wants its calls run, whatever word a host has for that; a known reason stays what it is."""
    assert read(chunk(call("f", args={})), chunk(reason="FUNCTION_CALL"))[-1] == Finished(
        0, FinishReason.TOOL_CALLS, "FUNCTION_CALL"
    )
    assert read(chunk(call("f", args={})), chunk(reason="MAX_TOKENS"))[-1] == Finished(0, FinishReason.LENGTH, "MAX_TOKENS")


def test_a_paused_reply() -> None:
    """Its token is a field of the message, the last one that came."""
    _, *rest = read(chunk({"text": "x"}, continuationToken="a"), chunk(reason="CONTINUATION", continuationToken="b"))
    assert ExtraFields(0, {"continuationToken": "b"}) in rest
    assert rest[-1] == Finished(0, FinishReason.PAUSE, "CONTINUATION")


def test_choices() -> None:
    """Each has its blocks and its end, and the reply is whole when all have ended."""
    request = ChatRequest("m", (), stream=True, sampling=Sampling(choices=2))
    both = {
        **chunk({"text": "a"}),
        "candidates": [chunk({"text": "a"})["candidates"][0], chunk({"text": "b"}, index=1)["candidates"][0]],
    }
    ends = [chunk(reason="STOP"), chunk(reason="MAX_TOKENS", index=1)]
    _, *rest = read(both, *ends, request=request)
    assert rest[-2:] == [STOP, Finished(1, FinishReason.LENGTH, "MAX_TOKENS")]
    assert [event for event in rest if isinstance(event, TextDelta)] == [TextDelta(0, "a"), TextDelta(1, "b")]
    reader = GeminiReader(request, "acme")
    reader.feed(sse(both, ends[0]))
    with pytest.raises(ProviderProtocolError):
        reader.end()


def test_fewer_choices_than_requested() -> None:
    """Those that came are the reply: streamed once the body has ended, and whole. Silence does not end it, as another may come."""
    request = ChatRequest("m", (), stream=True, sampling=Sampling(choices=3))
    one, end = chunk({"text": "a"}), chunk(reason="STOP", index=0)
    assert read(one, end, request=request)[-1] == STOP
    reader = GeminiReader(request, "acme")
    reader.feed(sse(one, end))
    assert reader.ending.wait() is None
    with pytest.raises(ProviderProtocolError):
        reader.end(silent=True)
    whole = GeminiReader(request, "acme").read_object(json.dumps(chunk({"text": "a"}, reason="STOP")).encode())
    assert whole[-1] == STOP


def test_names_that_were_replaced() -> None:
    """They are those of the request again."""
    request = ChatRequest("m", (), stream=True, tools=(Tool("look up"),))
    (found,) = blocks(chunk(call(NAMES.sent("look up")), reason="STOP"), request=request)
    assert found.name == "look up"


def test_a_finish_reason_in_each_chunk() -> None:
    """The last one counts; output without one takes it back."""
    assert read(chunk({"text": "a"}, reason="STOP"), chunk({"text": "b"}, reason="MAX_TOKENS"))[-1].reason is FinishReason.LENGTH  # type: ignore[union-attr]
    assert read(chunk({"text": "a"}, reason="STOP"), chunk(groundingMetadata={"x": 1}))[-1] == STOP
    reader = GeminiReader(REQUEST, "acme")
    reader.feed(sse(chunk({"text": "a"}, reason="STOP")))
    assert reader.ending.wait() == WAIT
    reader.feed(sse(chunk({"text": "b"})))
    assert reader.ending.wait() is None
    with pytest.raises(ProviderProtocolError):
        reader.end()


def test_every_cut_of_the_bytes() -> None:
    """However the bytes arrive, the events are the same."""
    data = sse(*MIXED)
    whole = read(*MIXED)[1:]
    for at in range(len(data)):
        reader = GeminiReader(REQUEST, "acme")
        events = [*reader.feed(data[:at]), *reader.feed(data[at:]), *reader.end()]
        assert without_early_usage(events)[1:] == whole
    for size in (1, 5, 64):
        reader = GeminiReader(REQUEST, "acme")
        events = [one for start in range(0, len(data), size) for one in reader.feed(data[start : start + size])]
        assert without_early_usage([*events, *reader.end()])[1:] == whole


def test_a_cut_anywhere() -> None:
    """A reply that is cut before its finish reason is a failure, and what it used is told."""
    data = sse(*MIXED)
    for at in range(data.index(b"finishReason")):
        reader = GeminiReader(REQUEST, "acme")
        reader.feed(data[:at])
        with pytest.raises(ProviderProtocolError):
            reader.end()
    reader = GeminiReader(REQUEST, "acme")
    assert Usage(3, 2, 5) in reader.feed(sse({**HELLO[0], "usageMetadata": COUNTS}))
    assert reader.has_output


@pytest.mark.parametrize("as_array", [False, True])
def test_a_whole_reply(as_array: bool) -> None:
    """One object, or an array of the chunks, is the same as the stream."""
    one = chunk(*(part for piece in MIXED for part in piece["candidates"][0]["content"]["parts"]), reason="STOP")
    one["candidates"][0]["safetyRatings"] = MIXED[-1]["candidates"][0]["safetyRatings"]
    body = json.dumps(MIXED if as_array else one).encode()
    events = GeminiReader(REQUEST, "acme").read_object(body)
    check(events)
    assert events[1:] == read(*MIXED)[1:]


def error(**fields: Any) -> dict[str, Any]:
    return {"error": {"message": "oops", **fields}}


FAILURES_IN_STREAM: dict[str, tuple[dict[str, Any] | str, type[ProviderError]]] = {
    "error": (error(code=503, status="UNAVAILABLE"), ProviderUnavailable),
    "rate": (error(code=429, status="RESOURCE_EXHAUSTED"), ProviderRateLimited),
    "unknown": ({"x": 1}, ProviderUnavailable),
    "no JSON": ("{", ProviderProtocolError),
    "no object": ("1", ProviderProtocolError),
    "bad index": (chunk(index=-1), ProviderProtocolError),
    "text of another type": (chunk({"text": 1}), ProviderProtocolError),
    "parts of another type": (chunk("x"), ProviderProtocolError),  # type: ignore[arg-type]
    "args of another type": (chunk(call("f", args=[1])), ProviderProtocolError),
    "bad path": (chunk(call("f", partialArgs=[{"jsonPath": "x", "boolValue": True}])), ProviderProtocolError),
    "bad base64": (chunk({"inlineData": {"mimeType": "audio/wav", "data": "A"}}), ProviderProtocolError),
    "too deep": (chunk(json.loads('{"x":' * 30 + "1" + "}" * 30)), ProviderProtocolError),
    "cut": ("[DONE]", ProviderProtocolError),
    **{word: (chunk(reason=word), ProviderUnavailable) for word in (*FAILURES, "MALFORMED_NEW")},
}


@pytest.mark.parametrize(("last", "kind"), FAILURES_IN_STREAM.values(), ids=FAILURES_IN_STREAM)
def test_failures(last: dict[str, Any] | str, kind: type[ProviderError]) -> None:
    """A failure is an exception, behind the output of the same read, and never an end."""
    reader = GeminiReader(REQUEST, "acme")
    batch = reader.feed(sse(HELLO[0], last))
    assert TextDelta(0, "Hel") in batch
    with pytest.raises(kind) as caught:
        reader.end()
    assert type(caught.value) is kind
    assert "oops" not in str(caught.value)
    alone = GeminiReader(REQUEST, "acme")
    with pytest.raises(kind):
        alone.feed(sse(last))
        alone.end()


def test_whether_a_retry_helps() -> None:
    """It does after a malformed call, and not if a signature is missing; the wait is that of the provider."""
    for word, helps in FAILURES.items():
        with pytest.raises(ProviderUnavailable) as caught:
            GeminiReader(REQUEST, "acme").feed(sse(chunk(reason=word)))
        assert caught.value.retryable is helps
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}]
    with pytest.raises(ProviderRateLimited) as limited:
        GeminiReader(REQUEST, "acme").feed(sse(error(code=429, status="RESOURCE_EXHAUSTED", details=details)))
    assert limited.value.retry_after == 3.5


@pytest.mark.parametrize("parts", [(), ({"text": ""},), ({"text": "t", "thought": True}, {"text": "", "thoughtSignature": "s"})])
def test_an_empty_reply(parts: tuple[dict[str, Any], ...]) -> None:
    """`STOP` without anything but thoughts is a failure, unless the caller had it stopped."""
    reader = GeminiReader(REQUEST, "acme")
    reader.feed(sse(chunk(*parts, reason="STOP")))
    with pytest.raises(ProviderUnavailable) as caught:
        reader.end()
    assert caught.value.retryable
    stopped = ChatRequest("m", (), stream=True, sampling=Sampling(stop="x"))
    assert read(chunk(*parts, reason="STOP"), request=stopped)[-1] == STOP


def test_a_failure_instead_of_a_reply() -> None:
    """An error in one object, or in an array, is the provider's, and its text is for the log alone."""
    for body in (b'{"error": {"code": 500}}', b'[{"error": {"code": 500}}]'):
        reader = GeminiReader(REQUEST, "acme")
        with pytest.raises(ProviderUnavailable):
            reader.read_object(body)
        assert reader.error_body == body
