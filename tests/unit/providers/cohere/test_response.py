"""From the bytes of Cohere's chat API to events."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Citation, Opaque, Origin, State, Text, Thinking, ToolCall
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderRateLimited, ProviderTimeout, ProviderUnavailable
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
    UsagePart,
)
from antiphon.domain.request import ChatRequest
from antiphon.providers.cohere.response import CohereReader
from tests.odd_upstream import sse
from tests.unit.framing import check

REQUEST = ChatRequest("command-a", (), stream=True)
EMPTY = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
USAGE = {"billed_units": {"input_tokens": 3, "output_tokens": 2}, "tokens": {"input_tokens": 30.0, "output_tokens": 4.0}}
READ_USAGE = Usage(30, 4, 34, parts=(UsagePart("command-a", "billed_units", 3, 2),), extra={"billed_units": USAGE["billed_units"]})
START = {"type": "message-start", "id": "r1", "delta": {"message": EMPTY}}


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": kind} if index is None else {"type": kind, "index": index}
    return {**made, "delta": {"message": message}} if message else made


def end(reason: str | None = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE, **more}}


def call(function: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"function": function, **more}


HELLO = [
    START,
    event("content-start", 0, content={"type": "text", "text": ""}),
    event("content-delta", 0, content={"text": "Hel"}),
    event("content-delta", 0, content={"text": "lo"}),
    event("content-end", 0),
    end(),
]
CALLS = [
    START,
    event("tool-plan-delta", tool_plan="I look."),
    event("tool-call-start", 0, tool_calls=call({"name": "f", "arguments": ""}, id="c0", type="function")),
    event("tool-call-delta", 0, tool_calls=call({"arguments": '{"q":'})),
    event("tool-call-delta", 0, tool_calls=call({"arguments": "1}"})),
    event("tool-call-end", 0),
    event("tool-call-start", 1, tool_calls=call({"name": "g", "arguments": ""}, id="c1", type="function")),
    event("tool-call-end", 1),
    end("TOOL_CALL"),
]


def read(*events: dict[str, Any] | str) -> Batch:
    reader = CohereReader(REQUEST, "acme")
    batch = reader.feed(sse(*events))
    assert reader.failure is None
    found = [*batch, *reader.end()]
    check(found)
    return found


def started(first: object) -> None:
    assert isinstance(first, Started)
    assert (first.id, first.model) == ("r1", "command-a")
    assert first.origin == Origin("cohere", "acme", "command-a", "acme")


def test_text() -> None:
    """One delta is one event; what is counted are the tokens, and what is billed is a part of it, which has the price."""
    first, *rest = read(*HELLO)
    started(first)
    assert rest == [
        BlockStarted(0, 0, Text("")),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        BlockFinished(0),
        READ_USAGE,
        Finished(0, FinishReason.STOP, "COMPLETE"),
    ]


def test_calls_after_a_plan() -> None:
    """The plan is a thought that the first call ends; a call without arguments has an empty object."""
    _, *rest = read(*CALLS)
    assert rest == [
        BlockStarted(0, 0, Thinking("", field="tool_plan")),
        ThinkingDelta(0, "I look."),
        BlockFinished(0),
        BlockStarted(1, 0, ToolCall("c0", "f", "")),
        InputDelta(1, '{"q":'),
        InputDelta(1, "1}"),
        BlockFinished(1),
        BlockStarted(2, 0, ToolCall("c1", "g", "")),
        InputDelta(2, "{}"),
        BlockFinished(2),
        READ_USAGE,
        Finished(0, FinishReason.TOOL_CALLS, "TOOL_CALL"),
    ]


@pytest.mark.parametrize("pieces", [["null"], ["nu", "ll"], [" ", "null "], [None], [""], [{}]])
def test_no_arguments(pieces: list[Any]) -> None:
    """Null, in however many pieces, is an empty object."""
    deltas = [event("tool-call-delta", 0, tool_calls=call({"arguments": piece})) for piece in pieces]
    first = event("tool-call-start", 0, tool_calls=call({"name": "f"}, id="c"))
    events = read(START, first, *deltas, event("tool-call-end", 0), end("TOOL_CALL"))
    assert "".join(one.text for one in events if isinstance(one, InputDelta)) == "{}"


def test_a_cut_call() -> None:
    """The arguments of a call that the limit cut are not completed, and its block is finished."""
    first = event("tool-call-start", 0, tool_calls=call({"name": "f", "arguments": ""}, id="c"))
    events = read(START, first, end("MAX_TOKENS"))
    assert not any(isinstance(one, InputDelta) for one in events)
    assert events[-1] == Finished(0, FinishReason.LENGTH, "MAX_TOKENS")


def test_thinking_and_citations() -> None:
    """A citation goes to the text that its index names, also after the end of it; one of a plan stays a field."""
    cited = {"start": 0, "end": 2, "text": "42", "sources": [{"type": "document", "id": "d", "document": {"title": "t"}}]}
    _, *rest = read(
        START,
        event("content-start", 0, content={"type": "thinking", "thinking": ""}),
        event("content-delta", 0, content={"thinking": "Hm."}),
        event("content-end", 0),
        event("content-start", 1, content={"type": "text", "text": "4"}),
        event("content-delta", 1, content={"text": "2"}),
        event("content-end", 1),
        event("citation-start", 0, citations={**cited, "content_index": 1, "type": "TEXT_CONTENT"}),
        event("citation-end", 0),
        event("citation-start", 1, citations={**cited, "type": "PLAN"}),
        end(),
    )
    assert rest == [
        BlockStarted(0, 0, Thinking("")),
        ThinkingDelta(0, "Hm."),
        BlockFinished(0),
        BlockStarted(1, 0, Text("")),
        TextDelta(1, "4"),
        TextDelta(1, "2"),
        CitationDelta(
            1,
            Citation(
                title="t", text="42", source_id="d", start=0, end=2, fields={"sources": cited["sources"], "type": "TEXT_CONTENT"}
            ),
        ),
        ExtraFields(0, {"citations": [{**cited, "type": "PLAN"}]}),
        BlockFinished(1),
        READ_USAGE,
        Finished(0, FinishReason.STOP, "COMPLETE"),
    ]


def test_what_is_unknown() -> None:
    """A block of an unknown kind is kept, and events of unknown types and other noise are ignored."""
    _, *rest = read(
        START,
        event("content-start", 0, content={"type": "picture", "url": "x"}),
        event("content-delta", 0, content={"url": "y"}),
        event("content-end", 0),
        {"type": "debug", "prompt": "p"},
        end("NEW"),
        "[DONE]",
    )
    opaque = Opaque(state=State(fields={"type": "picture", "url": "x"}))
    assert rest == [BlockStarted(0, 0, opaque), BlockFinished(0), READ_USAGE, Finished(0, FinishReason.OTHER, "NEW")]


def test_without_starts() -> None:
    """A delta whose starts are missing makes them."""
    first, second, *_ = read(HELLO[2], end())
    assert isinstance(first, Started)
    assert first.id
    assert second == BlockStarted(0, 0, Text(""))


def test_every_cut_of_the_bytes() -> None:
    """However the bytes arrive, the events are the same."""
    data = sse(*CALLS)
    whole = read(*CALLS)[1:]
    for size in (1, 5, 64):
        reader = CohereReader(REQUEST, "acme")
        events = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert [*events, *reader.end()][1:] == whole


def test_a_whole_reply() -> None:
    """It is the same as its stream."""
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    body = {"id": "r1", "message": message, "finish_reason": "COMPLETE", "usage": USAGE}
    first, *rest = CohereReader(REQUEST, "acme").read_object(json.dumps(body).encode())
    started(first)
    assert rest[:3] == [BlockStarted(0, 0, Text("")), TextDelta(0, "Hello"), BlockFinished(0)]


FAILURES: dict[str, tuple[dict[str, Any] | str, type[ProviderError]]] = {
    "error": (end("ERROR", error="oops"), ProviderUnavailable),
    "error beside a reason": (end("COMPLETE", error="oops"), ProviderUnavailable),
    "timeout": (end("TIMEOUT"), ProviderTimeout),
    "message": ({"id": "x", "message": "trial key: rate limit", "status": 429}, ProviderRateLimited),
    "error object": ({"type": "error", "error": {"message": "oops"}}, ProviderUnavailable),
    "no JSON": ("{", ProviderProtocolError),
    "no object": ("[1]", ProviderProtocolError),
    "no message": ({"type": "content-delta", "index": 0, "delta": {}}, ProviderProtocolError),
    "bad index": (event("content-start", -1, content={"type": "text"}), ProviderProtocolError),
    "index of no call": (event("tool-call-delta", 3, tool_calls=call({"arguments": "x"})), ProviderProtocolError),
    "text of another type": (event("content-delta", 0, content={"text": 1}), ProviderProtocolError),
    "another reply": ({**START, "id": "r2"}, ProviderProtocolError),
    "cut": ("[DONE]", ProviderProtocolError),
}


@pytest.mark.parametrize(("last", "error"), FAILURES.values(), ids=FAILURES)
def test_failures(last: dict[str, Any] | str, error: type[ProviderError]) -> None:
    """A failure is an exception, behind the output of the same read, and never an end."""
    reader = CohereReader(REQUEST, "acme")
    batch = reader.feed(sse(*HELLO[:3], last))
    assert [one for one in batch if not isinstance(one, Usage)][-1] == TextDelta(0, "Hel")
    with pytest.raises(error) as caught:
        reader.end()
    assert type(caught.value) is error
    assert "oops" not in str(caught.value)
    alone = CohereReader(REQUEST, "acme")
    with pytest.raises(error):
        alone.feed(sse(START, last))
        alone.end()


@pytest.mark.parametrize("last", [end("ERROR"), end("TIMEOUT"), end(error="internal")])
def test_a_failure_that_says_what_was_used(last: dict[str, Any]) -> None:
    reader = CohereReader(REQUEST, "acme")
    assert READ_USAGE in reader.feed(sse(*HELLO[:-1], last))
    assert reader.failure is not None

    whole = {"id": "r1", "message": {**EMPTY}, **last["delta"]}
    reader = CohereReader(REQUEST, "acme")
    with pytest.raises(ProviderError):
        reader.read_object(json.dumps(whole).encode())
    assert reader.break_off() == [READ_USAGE]


def test_calls_with_the_reason_of_a_text() -> None:
    found = read(*CALLS[:-1], end("COMPLETE"))
    assert found[-1] == Finished(0, FinishReason.TOOL_CALLS, "COMPLETE")


def test_a_list_of_citations() -> None:
    """Each citation has an event of its own, but a host may send several in one."""
    cited = {"start": 0, "end": 3, "text": "Hel", "sources": []}
    found = read(*HELLO[:-1], event("citation-start", 0, citations=[cited, {**cited, "end": 5}]), end())
    assert [one.citation.end for one in found if isinstance(one, CitationDelta)] == [3, 5]


def test_a_start_may_be_repeated() -> None:
    """The same start again is nothing."""
    assert read(START, *HELLO)[1:] == read(*HELLO)[1:]


def test_a_failure_instead_of_a_reply() -> None:
    """A JSON object without a message is an error, and its text is for the log alone."""
    reader = CohereReader(REQUEST, "acme")
    with pytest.raises(ProviderUnavailable):
        reader.read_object(b'{"message": "internal"}')
    assert reader.error_body == b'{"message": "internal"}'


def test_another_reply_within() -> None:
    """A second start with another id is a failure, although an end follows."""
    reader = CohereReader(REQUEST, "acme")
    reader.feed(sse(*HELLO[:3], {**START, "id": "r2"}, end()))
    assert isinstance(reader.failure, ProviderProtocolError)


def test_content_ends_a_plan() -> None:
    """The plan is finished before the text begins."""
    _, *rest = read(START, event("tool-plan-delta", tool_plan="p"), *HELLO[1:3], end())
    assert rest.index(BlockFinished(0)) < rest.index(BlockStarted(1, 0, Text("")))


def test_nothing_is_read_behind_the_end() -> None:
    """What follows the end in the same read is ignored."""
    assert read(*HELLO, HELLO[2], "junk")[1:] == read(*HELLO)[1:]
