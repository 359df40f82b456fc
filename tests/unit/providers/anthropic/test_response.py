"""From the bytes of Anthropic's Messages API to events."""

import json
from typing import Any

import pytest

from antiphon.domain.content import (
    Citation,
    Compaction,
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
    CitationDelta,
    Finished,
    FinishReason,
    InputDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
    UsagePart,
)
from antiphon.domain.request import ChatRequest, Tool
from antiphon.providers.anthropic.response import AnthropicReader
from tests.odd_upstream import sse
from tests.unit.framing import check, without_early_usage

REQUEST = ChatRequest("claude", (), stream=True)
PING = {"type": "ping"}
STOP = {"type": "message_stop"}


def start(**fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "r1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": [],
        "stop_reason": None,
    }
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 30, "output_tokens": 1}, **fields}}


def block(index: int, *deltas: tuple[str, Any], **value: Any) -> list[dict[str, Any]]:
    """Return the events of a block; a delta is its type and its value."""
    names = {"input_json_delta": "partial_json", "citations_delta": "citation", "compaction_delta": "content"}
    return [
        {"type": "content_block_start", "index": index, "content_block": value},
        *(
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": kind, names.get(kind, kind.removesuffix("_delta")): piece},
            }
            for kind, piece in deltas
        ),
        {"type": "content_block_stop", "index": index},
    ]


def end(reason: str | None = "end_turn", output: int = 4, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": output},
        **fields,
    }


HELLO = [start(), PING, *block(0, ("text_delta", "Hel"), ("text_delta", "lo"), type="text", text=""), end(), STOP]
USAGE = Usage(30, 4, 34)
DONE = Finished(0, FinishReason.STOP, "end_turn")


def read(*events: dict[str, Any] | str, request: ChatRequest = REQUEST) -> Batch:
    reader = AnthropicReader(request, "acme")
    batch = reader.feed(sse(*events))
    assert reader.failure is None
    found = [*batch, *reader.end()]
    check(found)
    return without_early_usage(found)


def body(*events: dict[str, Any]) -> Batch:
    """Return the events of blocks."""
    _, *rest, usage, finished = read(start(), *events, end(), STOP)
    assert isinstance(usage, Usage)
    assert isinstance(finished, Finished)
    return rest


def started(first: object, **fields: Any) -> None:
    assert isinstance(first, Started)
    assert (first.id, first.model, first.fields) == ("r1", "claude-1", fields)
    assert first.origin == Origin("anthropic", "acme", "claude", "acme")


def test_text() -> None:
    """One delta is one event; pings are nothing."""
    first, *rest = read(*HELLO)
    started(first)
    assert rest == [BlockStarted(0, 0, Text("")), TextDelta(0, "Hel"), TextDelta(0, "lo"), BlockFinished(0), USAGE, DONE]


def test_thinking() -> None:
    """A signature in pieces is the state at the end; thought may be empty, and redacted thought is a state alone."""
    assert body(
        *block(
            0,
            ("thinking_delta", "Hm"),
            ("signature_delta", "si"),
            ("signature_delta", "g"),
            type="thinking",
            thinking="",
            signature="",
        ),
        *block(1, ("thinking_delta", ""), ("signature_delta", "s2"), type="thinking", thinking=""),
        *block(2, type="redacted_thinking", data="R", x=1),
        *block(3, ("thinking_delta", "?"), type="thinking", thinking="W", signature=""),
    ) == [
        BlockStarted(0, 0, Thinking("")),
        ThinkingDelta(0, "Hm"),
        BlockFinished(0, State("sig")),
        BlockStarted(1, 0, Thinking("")),
        BlockFinished(1, State("s2")),
        BlockStarted(2, 0, RedactedThinking(state=State("R", {"x": 1}))),
        BlockFinished(2),
        BlockStarted(3, 0, Thinking("")),
        ThinkingDelta(3, "W"),
        ThinkingDelta(3, "?"),
        BlockFinished(3),
    ]


def test_calls() -> None:
    """Input is streamed, or at the start, or there is none; names are those of the request."""
    request = ChatRequest("claude", (), stream=True, tools=(Tool("f.g"),))
    first = start()
    _, *rest, _, finished = read(
        first,
        *block(
            0,
            ("input_json_delta", ""),
            ("input_json_delta", '{"q":'),
            ("input_json_delta", "1}"),
            type="tool_use",
            id="a",
            name="f_g_d2bb54fa",
            input={},
        ),
        *block(1, type="tool_use", id="b", name="h", input={"p": 1}, caller={"type": "direct"}),
        *block(2, ("input_json_delta", ""), type="tool_use", id="c", name="h", input={}),
        *block(3, type="tool_use", id="d", name="h", input={}),
        end("tool_use"),
        STOP,
        request=request,
    )
    assert rest == [
        BlockStarted(0, 0, ToolCall("a", "f.g", "")),
        InputDelta(0, '{"q":'),
        InputDelta(0, "1}"),
        BlockFinished(0),
        BlockStarted(1, 0, ToolCall("b", "h", "", state=State(fields={"caller": {"type": "direct"}}))),
        InputDelta(1, '{"p":1}'),
        BlockFinished(1),
        BlockStarted(2, 0, ToolCall("c", "h", "")),
        InputDelta(2, "{}"),
        BlockFinished(2),
        BlockStarted(3, 0, ToolCall("d", "h", "")),
        InputDelta(3, "{}"),
        BlockFinished(3),
    ]
    assert finished == Finished(0, FinishReason.TOOL_CALLS, "tool_use")


@pytest.mark.parametrize("stops", [True, False])
def test_a_cut_call(stops: bool) -> None:
    """The input of a call that the limit cut is not completed, and its block is finished."""
    call = block(0, type="tool_use", id="a", name="f", input={})
    events = read(start(), *(call if stops else call[:1]), end("max_tokens"), STOP)
    assert not any(isinstance(one, InputDelta) for one in events)
    assert events[-1] == Finished(0, FinishReason.LENGTH, "max_tokens")
    whole = read(start(), *(call if stops else call[:1]), end("tool_use"), STOP)
    assert [one.text for one in whole if isinstance(one, InputDelta)] == ["{}"]


def test_tools_of_the_provider() -> None:
    """Their results are kept as they are."""
    content = {"type": "web_fetch_tool_result_error", "error_code": "x"}
    assert body(
        *block(0, ("input_json_delta", '{"q":1}'), type="server_tool_use", id="s", name="web_fetch", input={}),
        *block(1, type="web_fetch_tool_result", tool_use_id="s", content=content),
        *block(2, type="mcp_tool_use", id="m", name="n", server_name="x"),
        *block(3, type="mcp_tool_result", tool_use_id="m", is_error=True, content=[]),
    ) == [
        BlockStarted(0, 0, ServerToolCall("s", "server_tool_use", "web_fetch")),
        InputDelta(0, '{"q":1}'),
        BlockFinished(0),
        BlockStarted(1, 0, ServerToolResult("s", "web_fetch_tool_result", is_error=True, state=State(fields={"content": content}))),
        BlockFinished(1),
        BlockStarted(2, 0, ServerToolCall("m", "mcp_tool_use", "n", state=State(fields={"server_name": "x"}))),
        BlockFinished(2),
        BlockStarted(
            3, 0, ServerToolResult("m", "mcp_tool_result", is_error=True, state=State(fields={"is_error": True, "content": []}))
        ),
        BlockFinished(3),
    ]


def test_citations() -> None:
    """They belong to their text; offsets are those in the document, and stay with the API's fields."""
    raw = {
        "type": "char_location",
        "cited_text": "x",
        "document_index": 0,
        "document_title": "t",
        "start_char_index": 1,
        "file_id": None,
    }
    made = Citation(
        title="t", text="x", fields={"type": "char_location", "document_index": 0, "start_char_index": 1, "file_id": None}
    )
    web = {"type": "web_search_result_location", "url": "u", "title": None, "cited_text": "y", "encrypted_index": "E"}
    assert body(*block(0, ("citations_delta", raw), ("text_delta", "a"), type="text", text="", citations=[web])) == [
        BlockStarted(0, 0, Text("")),
        CitationDelta(0, Citation("u", text="y", fields={"type": web["type"], "title": None, "encrypted_index": "E"})),
        CitationDelta(0, made),
        TextDelta(0, "a"),
        BlockFinished(0),
    ]


def test_compaction() -> None:
    """It begins with its only delta; one that failed has no content."""
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "compaction_delta", "content": "c", "encrypted_content": "E"},
    }
    first, last = block(0, type="compaction", content=None)
    failed = block(1, type="compaction", content=None, encrypted_content=None)
    whole = block(2, type="compaction", content="d", signature="S")
    assert body(first, delta, last, *failed, *whole) == [
        BlockStarted(0, 0, Compaction("c", state=State("E"))),
        BlockFinished(0),
        BlockStarted(1, 0, Compaction(None, state=State(fields={"encrypted_content": None}))),
        BlockFinished(1),
        BlockStarted(2, 0, Compaction("d", state=State(fields={"signature": "S"}))),
        BlockFinished(2),
    ]


def test_what_is_unknown() -> None:
    """Blocks, deltas and fields of unknown kinds are kept, and events of unknown types ignored."""
    first, *rest = read(
        start(diagnostics={"a": 1}),
        *block(0, type="fallback", to={"model": "m"}),
        *block(1, ("odd_delta", "o"), type="text", text="a", odd=1),
        {"type": "debug"},
        end("odd", context_management={"applied_edits": []}, other=None),
        STOP,
        "[DONE]",
    )
    started(first, diagnostics={"a": 1})
    assert rest == [
        BlockStarted(0, 0, Opaque(state=State(fields={"type": "fallback", "to": {"model": "m"}}))),
        BlockFinished(0),
        BlockStarted(1, 0, Text("", state=State(fields={"odd": 1}))),
        TextDelta(1, "a"),
        BlockProgress(1, "odd_delta", {"odd": "o"}),
        BlockFinished(1),
        USAGE,
        Finished(0, FinishReason.OTHER, "odd", {"context_management": {"applied_edits": []}}),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("pause_turn", FinishReason.PAUSE),
        ("compaction", FinishReason.PAUSE),
        ("refusal", FinishReason.REFUSAL),
        ("model_context_window_exceeded", FinishReason.CONTEXT_WINDOW),
    ],
)
def test_reasons(word: str, reason: FinishReason) -> None:
    """Each has its own, and what goes with it is in the details."""
    details = {"stop_sequence": "x", "stop_details": {"type": "refusal", "category": "bio"}, "container": {"id": "c"}}
    last = {"type": "message_delta", "delta": {"stop_reason": word, **details}, "usage": {}}
    assert read(start(), last, STOP)[-1] == Finished(0, reason, word, details)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ({"input_tokens": 1}, {}, Usage(1, 0, 1)),
        ({"input_tokens": 9, "output_tokens": 1}, {"input_tokens": 61, "output_tokens": 2}, Usage(61, 2, 63)),
        (
            {
                "input_tokens": 2,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 12,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 8},
                "service_tier": "standard",
            },
            {
                "output_tokens": 5,
                "cache_read_input_tokens": None,
                "output_tokens_details": {"thinking_tokens": 2},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
            },
            Usage(
                17,
                5,
                22,
                cached_tokens=3,
                cache_write_tokens=12,
                cache_write_1h_tokens=8,
                reasoning_tokens=2,
                server_tools={"web_search": 2},
                extra={
                    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 8},
                    "service_tier": "standard",
                    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
                },
            ),
        ),
    ],
)
def test_usage(first: dict[str, Any], last: dict[str, Any], expected: Usage) -> None:
    """Input is all of it; later counts replace, and what is missing or null does not."""
    message = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}
    assert read(start(usage=first), message, STOP)[-2] == expected


@pytest.mark.parametrize(
    ("split", "iterations", "expected"),
    [
        ((0, 5), None, 9),
        ((5, 0), None, 0),
        ((2, 3), None, 3),
        ((2, 3), [(2, 3), (0, 4)], 7),
    ],
)
def test_an_older_split_of_writes(split: tuple[int, int], iterations: list[tuple[int, int]] | None, expected: int) -> None:
    """The last sum counts: for the only duration there is, else as the iterations say, else as it was."""

    def written(short: int, long: int) -> dict[str, Any]:
        return {"cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}}

    first = {"input_tokens": 1, "cache_creation_input_tokens": 5, **written(*split)}
    last: dict[str, Any] = {"cache_creation_input_tokens": 9}
    if iterations is not None:
        last["iterations"] = [{"type": "message", **written(*one)} for one in iterations]
    events = read(start(usage=first), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}, STOP)
    usage = events[-2]
    assert isinstance(usage, Usage)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (9, expected)


def test_usage_of_inner_calls() -> None:
    """Those that the counts leave out are added, and each is a part with its model."""
    iterations = [
        {"type": "compaction", "input_tokens": 600, "output_tokens": 50, "cache_read_input_tokens": 1},
        {"type": "message", "input_tokens": 30, "output_tokens": 4},
        {"type": "advisor_message", "model": "big", "input_tokens": 7, "output_tokens": 8, "cache_creation_input_tokens": 2},
    ]
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4, "iterations": iterations}}
    usage = read(start(), last, STOP)[-2]
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens) == (640, 62, 1, 2)
    assert usage.parts == (
        UsagePart("claude-1", "compaction", 601, 50, 1),
        UsagePart("claude-1", "message", 30, 4),
        UsagePart("big", "advisor_message", 9, 8, 0, 2),
    )


EVERYTHING = [
    start(),
    *block(0, ("thinking_delta", "Hm ä"), ("signature_delta", "sig"), type="thinking", thinking="", signature=""),
    *block(1, ("text_delta", "Hé"), ("text_delta", "llo"), type="text", text=""),
    PING,
    *block(2, ("input_json_delta", '{"q":'), ("input_json_delta", '"ü"}'), type="tool_use", id="a", name="f", input={}),
    *block(3, type="tool_use", id="b", name="f", input={}),
    end("tool_use"),
    STOP,
]


def test_every_cut_of_the_bytes() -> None:
    """However the bytes arrive, the events are the same; cut off anywhere, they have no end."""
    data = sse(*EVERYTHING)
    whole = read(*EVERYTHING)[1:]
    for at in range(1, len(data)):
        reader = AnthropicReader(REQUEST, "acme")
        events = reader.feed(data[:at])
        if at <= data.rindex(b"}"):
            cut = AnthropicReader(REQUEST, "acme")
            cut.feed(data[:at])
            with pytest.raises(ProviderProtocolError):
                cut.end()
        events += reader.feed(data[at:])
        assert without_early_usage([*events, *reader.end()])[1:] == whole
    for size in (1, 7):
        reader = AnthropicReader(REQUEST, "acme")
        events = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert without_early_usage([*events, *reader.end()])[1:] == whole


def test_a_whole_reply() -> None:
    """It is the same as its stream, and so is a start that holds all of it."""
    message = start(content=[{"type": "text", "text": "Hello"}], stop_reason="end_turn")["message"]
    message["usage"]["output_tokens"] = 4
    expected = [BlockStarted(0, 0, Text("")), TextDelta(0, "Hello"), BlockFinished(0), USAGE, DONE]
    first, *rest = AnthropicReader(REQUEST, "acme").read_object(json.dumps(message).encode())
    started(first)
    assert rest == expected
    assert read({"type": "message_start", "message": message}, STOP)[1:] == expected


def error(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "oops", **fields}, "request_id": "r"}


FAILURES: dict[str, tuple[dict[str, Any] | str, type[ProviderError], bool]] = {
    "overloaded": (error("overloaded_error"), ProviderUnavailable, True),
    "internal": (error("api_error"), ProviderUnavailable, True),
    "timeout": (error("timeout_error"), ProviderTimeout, True),
    "rate": (error("rate_limit_error"), ProviderRateLimited, True),
    "spend": (error("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), ProviderRateLimited, False),
    "request": (error("invalid_request_error"), ProviderRejected, False),
    "key": (error("authentication_error"), ProviderCredentials, False),
    "permission": (error("permission_error"), ProviderCredentials, False),
    "billing": (error("billing_error"), ProviderCredentials, False),
    "model": (error("not_found_error"), ProviderCredentials, False),
    "no type": ({"error": {"message": "oops"}}, ProviderUnavailable, True),
    "no JSON": ("{", ProviderProtocolError, True),
    "no object": ("[1]", ProviderProtocolError, True),
    "no delta": ({"type": "content_block_delta", "index": 0}, ProviderProtocolError, True),
    "bad index": ({"type": "content_block_start", "index": -1, "content_block": {"type": "text"}}, ProviderProtocolError, True),
    "delta of no block": (block(7, ("text_delta", "x"), type="text")[1], ProviderProtocolError, True),
    "text of another type": (block(0, ("text_delta", 1), type="text")[1], ProviderProtocolError, True),
    "signature of a text": (block(0, ("signature_delta", "s"), type="text")[1], ProviderProtocolError, True),
    "another reply": (start(id="r2"), ProviderProtocolError, True),
    "end without reason": (STOP, ProviderProtocolError, True),
    "cut": ("[DONE]", ProviderProtocolError, True),
}


@pytest.mark.parametrize(("last", "kind", "retryable"), FAILURES.values(), ids=FAILURES)
def test_failures(last: dict[str, Any] | str, kind: type[ProviderError], retryable: bool) -> None:
    """A failure is an exception, behind the output of the same read, and never an end."""
    reader = AnthropicReader(REQUEST, "acme")
    batch = reader.feed(sse(*HELLO[:4], last))
    assert batch[-1] == TextDelta(0, "Hel")
    assert [type(event) for event in reader.break_off()] == [Usage], "no output is held back"
    with pytest.raises(kind) as caught:
        reader.end()
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert "oops" not in str(caught.value)
    alone = AnthropicReader(REQUEST, "acme")
    with pytest.raises(kind):
        alone.feed(sse(start(), last))
        alone.end()


def test_a_start_may_be_repeated() -> None:
    """The same start again is nothing."""
    assert read(start(), *HELLO)[1:] == read(*HELLO)[1:]


def test_a_failure_instead_of_a_reply() -> None:
    """A JSON object without content is an error, and its text is for the log alone."""
    reader = AnthropicReader(REQUEST, "acme")
    with pytest.raises(ProviderUnavailable):
        reader.read_object(json.dumps(error("overloaded_error")).encode())
    assert b"oops" in reader.error_body


def test_nothing_is_read_behind_the_end() -> None:
    """What follows the end in the same read is ignored."""
    assert read(*HELLO, HELLO[3], "junk")[1:] == read(*HELLO)[1:]


def test_output() -> None:
    """The start of a text is no output, its first delta and the start of a call are."""
    reader = AnthropicReader(REQUEST, "acme")
    reader.feed(sse(*HELLO[:3]))
    assert not reader.has_output
    reader.feed(sse(HELLO[3]))
    assert reader.has_output
    assert reader.has_usage
    reader = AnthropicReader(REQUEST, "acme")
    reader.feed(sse(start(), block(0, type="tool_use", id="a", name="f", input={})[0]))
    assert reader.has_output
