"""From the bytes of the Responses API to events."""

import json
import typing
from typing import Any

import pytest
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent

from antiphon.domain.content import (
    Citation,
    Compaction,
    Image,
    Media,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.errors import (
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
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    Place,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, NativeTool
from antiphon.providers.responses.items import ItemKind, kind_of
from antiphon.providers.responses.response import ResponsesReader
from tests.odd_upstream import sse
from tests.unit.framing import check

CUSTOM_TOOL = NativeTool({"type": "custom", "custom": {"name": "sql"}})
REQUEST = ChatRequest("gpt-5", (), stream=True, tools=(CUSTOM_TOOL,))
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4, "cache_write_tokens_details": {"ttl_30m_tokens": 4}},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 39,
}
READ_USAGE = Usage(
    30,
    9,
    39,
    cached_tokens=8,
    cache_write_tokens=4,
    reasoning_tokens=5,
    extra={"input_tokens_details": {"cache_write_tokens_details": {"ttl_30m_tokens": 4}}},
)
START = {"type": "response.created", "response": {"id": "r1", "model": "gpt-5-1", "created_at": 7, "instructions": "secret"}}


def event(kind: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": index, "item_id": "x", "sequence_number": 1, **fields}


def part(kind: str, index: int = 0, at: int = 0, **fields: Any) -> dict[str, Any]:
    return event(kind, index, content_index=at, **fields)


def summary(kind: str, index: int = 0, at: int = 0, **fields: Any) -> dict[str, Any]:
    return event(kind, index, summary_index=at, **fields)


def added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return event("output_item.added", index, item=item)


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return event("output_item.done", index, item=item)


def end(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"id": "r1", "status": status, "usage": USAGE, **more}}


def text_part(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], **more}


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text_part("Hello")]}
HELLO = [
    START,
    {**START, "type": "response.in_progress"},
    added({**MESSAGE, "status": "in_progress", "content": []}),
    part("content_part.added", part=text_part("")),
    part("output_text.delta", delta="Hel", obfuscation="abc"),
    part("output_text.delta", delta="lo"),
    part("output_text.done", text="Hello"),
    part("content_part.done", part=text_part("Hello")),
    done(MESSAGE),
    end(),
]
THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "encrypted_content": "gAAA",
    "summary": [{"type": "summary_text", "text": "Hm."}, {"type": "summary_text", "text": "So."}],
}
CALLS = [
    START,
    added({"id": "rs_1", "type": "reasoning", "encrypted_content": "half", "summary": []}),
    summary("reasoning_summary_part.added", part={"type": "summary_text", "text": ""}),
    summary("reasoning_summary_text.delta", delta="Hm."),
    summary("reasoning_summary_text.done", text="Hm."),
    summary("reasoning_summary_text.delta", at=1, delta="So."),
    done(THOUGHT),
    added({"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}, 1),
    added({"id": "ct_1", "type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": ""}, 2),
    event("function_call_arguments.delta", 1, delta='{"q":'),
    event("custom_tool_call_input.delta", 2, delta="SELECT"),
    event("function_call_arguments.delta", 1, delta="1}"),
    event("function_call_arguments.done", 1, arguments='{"q":1}'),
    done({"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"q":1}', "status": "completed"}, 1),
    done({"id": "ct_1", "type": "custom_tool_call", "call_id": "c3", "name": "sql", "input": "SELECT 1"}, 2),
    end(),
]


def read(*events: dict[str, Any] | str) -> Batch:
    reader = ResponsesReader(REQUEST, "acme")
    batch = reader.feed(sse(*events))
    assert reader.failure is None
    found = [*batch, *reader.end()]
    check(found)
    return found


def read_item(item: dict[str, Any], *between: dict[str, Any], first: dict[str, Any] | None = None) -> Batch:
    """Return the events of one item, without those of the reply."""
    _, *rest, _, _ = read(START, added(first or item), *between, done(item), end())
    return rest


def state(item: dict[str, Any], *, opaque: str | None = None, index: int = 0, **fields: Any) -> State:
    return State(opaque, {"item": item, **fields}, index)


def test_text() -> None:
    """One delta is one event, what repeats it is none, and the item's own fields are in the state of its first block."""
    first, *rest = read(*HELLO)
    assert first == Started("r1", "gpt-5-1", Origin("responses", "acme", "gpt-5", "acme"), 7)
    own = {name: value for name, value in MESSAGE.items() if name != "content"}
    assert rest == [
        BlockStarted(0, 0, Text("")),
        TextDelta(0, "Hel"),
        TextDelta(0, "lo"),
        BlockFinished(0, state(own, annotations=[])),
        READ_USAGE,
        Finished(0, FinishReason.STOP, "completed"),
    ]


def test_calls_after_reasoning() -> None:
    """The parts of one item share its number; the encrypted content and the ids are those of the end of the item."""
    _, *rest = read(*CALLS)
    assert rest == [
        BlockStarted(0, 0, Thinking("", field="summary_text")),
        ThinkingDelta(0, "Hm."),
        BlockStarted(1, 0, Thinking("", field="summary_text")),
        ThinkingDelta(1, "So."),
        BlockFinished(0, state({"id": "rs_1", "type": "reasoning"}, opaque="gAAA")),
        BlockFinished(1, State(None, {}, 0)),
        BlockStarted(2, 0, ToolCall("c1", "f", "")),
        BlockStarted(3, 0, ToolCall("c2", "sql", "", "custom")),
        InputDelta(2, '{"q":'),
        InputDelta(3, "SELECT"),
        InputDelta(2, "1}"),
        BlockFinished(2, state({"id": "fc_1", "type": "function_call", "status": "completed"}, index=1)),
        InputDelta(3, " 1"),
        BlockFinished(3, state({"id": "ct_1", "type": "custom_tool_call"}, index=2), "c3"),
        READ_USAGE,
        Finished(0, FinishReason.TOOL_CALLS, "completed"),
    ]


def test_reasoning_without_text() -> None:
    """It is redacted if it is encrypted, else an empty thought, so that the item is kept."""
    own = {"id": "rs", "type": "reasoning", "summary": []}
    assert read_item({**own, "encrypted_content": "e"}) == [
        BlockStarted(0, 0, RedactedThinking(state=state(own, opaque="e"))),
        BlockFinished(0),
    ]
    assert read_item({**own, "encrypted_content": None}) == [
        BlockStarted(0, 0, Thinking("", field="summary_text", state=state({**own, "encrypted_content": None}))),
        BlockFinished(0),
    ]


def test_reasoning_text() -> None:
    """The text of reasoning itself is told from its summary."""
    item = {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "ab"}]}
    assert read_item(item, part("reasoning_text.delta", delta="a"), first={**item, "content": []}) == [
        BlockStarted(0, 0, Thinking("", field="reasoning_text")),
        ThinkingDelta(0, "a"),
        ThinkingDelta(0, "b"),
        BlockFinished(0, state({"id": "rs", "type": "reasoning", "summary": []})),
    ]


def test_parts_of_a_message() -> None:
    """Text, refusals and parts of unknown types are a block each; log probabilities are events."""
    logprob = {"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []}
    item = {
        "type": "message",
        "phase": "commentary",
        "content": [text_part("ab", logprobs=[logprob]), {"type": "refusal", "refusal": "no"}, {"type": "video", "url": "x"}],
    }
    own = {"type": "message", "phase": "commentary"}
    deltas = [part("output_text.delta", delta="a", logprobs=[logprob]), part("refusal.delta", at=1, delta="n")]
    assert read_item(item, *deltas, part("refusal.done", at=1, refusal="no")) == [
        BlockStarted(0, 0, Text("")),
        TextDelta(0, "a", (logprob,)),
        BlockStarted(1, 0, Refusal("")),
        RefusalDelta(1, "n"),
        RefusalDelta(1, "o"),
        TextDelta(0, "b"),
        BlockStarted(2, 0, Opaque(state=State(None, {"type": "video", "url": "x"}, 0))),
        BlockFinished(0, state(own, annotations=[])),
        BlockFinished(1, State(None, {}, 0)),
        BlockFinished(2, State(None, {"type": "video", "url": "x"}, 0)),
    ]
    assert TextDelta(0, "ab", (logprob,)) in read_item(item)


ANNOTATIONS: list[tuple[dict[str, Any], Citation]] = [
    (
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2},
        Citation("u", "t", start=1, end=2, fields={"type": "url_citation"}),
    ),
    ({"type": "url_citation", "url": "u"}, Citation("u", fields={"type": "url_citation"})),
    (
        {"type": "file_citation", "file_id": "f", "filename": "n", "index": 3},
        Citation(title="n", source_id="f", fields={"type": "file_citation", "index": 3}),
    ),
    (
        {"type": "container_file_citation", "container_id": "k", "file_id": "f", "filename": "n", "start_index": 1, "end_index": 2},
        Citation("", "n", "", "f", 1, 2, {"type": "container_file_citation", "container_id": "k"}),
    ),
    ({"type": "new", "url": 4, "start_index": -1}, Citation(fields={"type": "new", "url": 4, "start_index": -1})),
]


@pytest.mark.parametrize(("annotation", "citation"), ANNOTATIONS)
def test_citations(annotation: dict[str, Any], citation: Citation) -> None:
    """An annotation is one event, whether it is streamed, repeated, or only at the end."""
    item = {**MESSAGE, "content": [{**text_part("Hello"), "annotations": [annotation]}]}
    streamed = part("output_text.annotation.added", annotation_index=0, annotation=annotation)
    for between in ([], [streamed], [streamed, streamed]):
        events = read_item(item, part("output_text.delta", delta="Hello"), *between)
        assert [one for one in events if isinstance(one, CitationDelta)] == [CitationDelta(0, citation)]


SERVER_CALLS: list[tuple[dict[str, Any], ServerToolCall]] = [
    ({"type": "web_search_call", "id": "ws", "action": {}}, ServerToolCall("ws", "web_search_call", "")),
    ({"type": "x_search_call", "id": "x", "call_id": "", "name": "s"}, ServerToolCall("x", "x_search_call", "s")),
    ({"type": "file_search_call", "id": "fs", "results": None}, ServerToolCall("fs", "file_search_call", "")),
    ({"type": "mcp_list_tools", "id": "l", "tools": []}, ServerToolCall("l", "mcp_list_tools", "")),
    (
        {"type": "shell_call", "id": "s", "call_id": "c", "action": {}, "environment": {"type": "container_reference"}},
        ServerToolCall("c", "shell_call", ""),
    ),
    ({"type": "tool_search_call", "id": "t", "arguments": {}, "execution": "server"}, ServerToolCall("t", "tool_search_call", "")),
    ({"type": "custom_tool_call", "id": "t", "name": "other", "input": None}, ServerToolCall("t", "custom_tool_call", "other")),
]


@pytest.mark.parametrize(("item", "call"), SERVER_CALLS, ids=[item["type"] for item, _ in SERVER_CALLS])
def test_server_tools(item: dict[str, Any], call: ServerToolCall) -> None:
    """A call of a tool that the provider runs is one block with its result, and does not ask the client for anything."""
    assert read_item(item) == [BlockStarted(0, 0, call), BlockFinished(0, state(item))]
    events = read(START, done(item), end())
    assert events[-1] == Finished(0, FinishReason.STOP, "completed")
    usage = events[-2]
    assert isinstance(usage, Usage)
    assert list(usage.server_tools.values()) == ([] if item["type"] == "mcp_list_tools" else [1])


def test_input_and_progress_of_a_server_tool() -> None:
    """Code and arguments that stream are input; what only tells of the work is progress."""
    item = {"type": "code_interpreter_call", "id": "ci", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]}
    assert read_item(
        item,
        event("code_interpreter_call.in_progress"),
        event("code_interpreter_call_code.delta", delta="1+"),
        event("code_interpreter_call_code.done", code="1+1"),
        event("code_interpreter_call.new", note="n"),
        first={**item, "code": "", "outputs": []},
    ) == [
        BlockStarted(0, 0, ServerToolCall("ci", "code_interpreter_call", "", "")),
        BlockProgress(0, "in_progress"),
        InputDelta(0, "1+"),
        InputDelta(0, "1"),
        BlockProgress(0, "code_interpreter_call.new", {"note": "n"}),
        BlockFinished(0, state({name: value for name, value in item.items() if name != "code"})),
    ]


def test_an_approval() -> None:
    """A reply that waits for an approval is paused."""
    item = {"type": "mcp_approval_request", "id": "a", "name": "n", "arguments": "{}", "server_label": "s"}
    _, start, delta, finish, _, last = read(START, done(item), end())
    assert start == BlockStarted(0, 0, ServerToolCall("a", "mcp_approval_request", "n", ""))
    assert delta == InputDelta(0, "{}")
    assert isinstance(finish, BlockFinished)
    assert last == Finished(0, FinishReason.PAUSE, "completed")


NATIVE_CALLS = [
    ({"type": "local_shell_call", "id": "i", "call_id": "c", "action": {"command": ["ls"]}}, "action"),
    ({"type": "shell_call", "id": "i", "call_id": "c", "action": {"commands": ["ls"]}}, "action"),
    ({"type": "computer_call", "id": "i", "call_id": "c", "action": {"type": "click"}}, "action"),
    ({"type": "computer_call", "id": "i", "call_id": "c", "actions": [{"type": "click"}, {"type": "wait"}]}, "actions"),
    ({"type": "apply_patch_call", "id": "i", "call_id": "c", "operation": {"diff": "+"}}, "operation"),
    ({"type": "tool_search_call", "id": "i", "call_id": "c", "execution": "client", "arguments": {"goal": "g"}}, "arguments"),
]


@pytest.mark.parametrize(("item", "field"), NATIVE_CALLS, ids=[f"{item['type']}-{field}" for item, field in NATIVE_CALLS])
def test_calls_that_only_this_api_has(item: dict[str, Any], field: str) -> None:
    """The client runs them; their action is the arguments, in one delta, and the stream of it is progress."""
    progress = event(f"{item['type']}_part.delta", delta="x", obfuscation="o")
    own = {name: value for name, value in item.items() if name != field}
    assert read_item(item, progress, first={**item, field: {}}) == [
        BlockStarted(0, 0, ToolCall("c", "", "", str(item["type"]))),
        BlockProgress(0, f"{item['type']}_part.delta", {"delta": "x"}),
        InputDelta(0, json.dumps({field: item[field]} if field == "actions" else item[field], separators=(",", ":"))),
        BlockFinished(0, state(own)),
    ]
    assert read(START, done(item), end())[-1] == Finished(0, FinishReason.TOOL_CALLS, "completed")


def test_results_images_and_what_is_unknown() -> None:
    """Results, images, compactions and items of unknown types are kept whole."""
    output = {"type": "shell_call_output", "id": "o", "call_id": "c", "output": [], "status": "failed"}
    assert read_item(output) == [
        BlockStarted(0, 0, ServerToolResult("c", "shell_call_output", is_error=True)),
        BlockFinished(0, state(output)),
    ]
    own = {"type": "image_generation_call", "id": "ig", "output_format": "webp"}
    image = Image(Media("data:image/webp;base64,QQ=="), state=state(own))
    preview = event("image_generation_call.partial_image", partial_image_b64="QQ==")
    assert read_item({**own, "result": "QQ=="}, preview, first=own) == [BlockStarted(0, 0, image), BlockFinished(0)]
    compaction = Compaction(state=state({"type": "compaction", "id": "cm"}, opaque="e"))
    assert read_item({"type": "compaction", "id": "cm", "encrypted_content": "e"})[0] == BlockStarted(0, 0, compaction)
    new = {"type": "dream", "id": "d"}
    assert read_item(new) == [BlockStarted(0, 0, Opaque(state=State(fields=new, item=0))), BlockFinished(0)]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("incomplete", "max_output_tokens", FinishReason.LENGTH),
        ("incomplete", "content_filter", FinishReason.CONTENT_FILTER),
        ("incomplete", "another", FinishReason.OTHER),
    ],
)
def test_finish_reasons(status: str, reason: str, expected: FinishReason) -> None:
    """A cut reply says why; what is open then is finished, without a state."""
    call = {"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    unknown = {"type": "dream"}
    _, *rest = read(*HELLO[:5], added(call, 1), added(unknown, 2), end(status, incomplete_details={"reason": reason, "x": 1}))
    assert rest[-6:] == [
        BlockFinished(0),
        BlockFinished(1),
        BlockStarted(2, 0, Opaque(state=State(fields=unknown, item=2))),
        BlockFinished(2),
        READ_USAGE,
        Finished(0, expected, reason, {"x": 1}),
    ]


def test_fields_of_the_reply() -> None:
    """Fields that do not repeat the request are passed on, and again when they change."""
    first, *rest = read({**START, "response": {**START["response"], "service_tier": "auto", "tools": []}}, end(service_tier="flex"))  # type: ignore[dict-item]
    assert isinstance(first, Started)
    assert first.fields == {"service_tier": "auto"}
    assert rest[0] == ExtraFields(None, {"service_tier": "flex"}, Place.REPLY)


def test_a_host_that_streams_nothing() -> None:
    """The items of the last event are read if there were none before, and not twice."""
    assert TextDelta(0, "Hello") in read(START, end(output=[MESSAGE]))
    assert read(*HELLO[:-1], end(output=[MESSAGE]))[1:] == read(*HELLO)[1:]
    assert read(end(output=[MESSAGE]))[1] == BlockStarted(0, 0, Text(""))


CALL = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}


@pytest.mark.parametrize(
    "events",
    [
        [added({**CALL, "arguments": ""})],
        [added({**CALL, "arguments": ""}), event("function_call_arguments.delta", delta="{")],
        [event("function_call_arguments.delta", delta="{}"), event("function_call_arguments.done", arguments="{}")],
        [event("function_call_arguments.delta", delta="{}"), done(CALL)],
    ],
)
def test_a_call_that_was_streamed_in_part(events: list[dict[str, Any]]) -> None:
    """Its start may be missing, or its end: the output at the end of the reply has all of it."""
    found = read(START, *events, end(output=[CALL]))
    assert [one.value.name for one in found if isinstance(one, BlockStarted) and isinstance(one.value, ToolCall)] == ["f"]
    assert "".join(one.text for one in found if isinstance(one, InputDelta)) == "{}"
    own = {"id": "fc_1", "type": "function_call", "status": "completed"}
    assert [one.state for one in found if isinstance(one, BlockFinished)] == [state(own)]
    assert found[-1] == Finished(0, FinishReason.TOOL_CALLS, "completed")


def test_items_that_were_not_streamed() -> None:
    """They follow the streamed ones. Those are found by type and order, because hosts change indexes and ids."""
    again = {**MESSAGE, "id": "msg_2", "content": [text_part("Bye")]}
    found = read(*HELLO[:-1], end(output=[THOUGHT, {**MESSAGE, "id": "other"}, again, CALL]))
    started = [one.value for one in found if isinstance(one, BlockStarted)]
    assert list(map(type, started)) == [Text, Thinking, Thinking, Text, ToolCall]
    assert "".join(one.text for one in found if isinstance(one, TextDelta)) == "HelloBye"
    assert found[-1] == Finished(0, FinishReason.TOOL_CALLS, "completed")


def test_a_text_whose_end_was_not_streamed() -> None:
    found = read(*HELLO[:5], end(output=[MESSAGE]))
    assert [one.text for one in found if isinstance(one, TextDelta)] == ["Hel", "lo"]


def test_what_is_missing_or_repeated() -> None:
    """Deltas without their starts make them, repeated starts and ends are ignored, and so are changed ids."""
    bare = [HELLO[4], HELLO[5], HELLO[8], HELLO[9]]
    assert read(*bare)[1:] == read(*HELLO)[1:]
    doubled = [*HELLO[:4], *HELLO[2:9], HELLO[8], {**START, "type": "response.in_progress", "response": {"id": "r9"}}, HELLO[9]]
    assert read(*doubled)[1:] == read(*HELLO)[1:]
    assert read(START, {"type": "keepalive"}, event("new.thing"), event("new", 7), "[DONE]", *HELLO[1:])[1:] == read(*HELLO)[1:]
    thought = summary("reasoning_summary_text.delta", 4, delta="t")
    assert BlockStarted(0, 0, Thinking("", field="summary_text")) in read(START, thought, end())


def test_what_contradicts_the_deltas() -> None:
    """Text that was sent on is not taken back."""
    _, *rest = read(*HELLO[:5], done({**MESSAGE, "content": [text_part("Bye")]}), end())
    assert [one.text for one in rest if isinstance(one, TextDelta)] == ["Hel"]
    _, *rest = read(*HELLO[:5], done({**MESSAGE, "content": []}), end())
    assert BlockFinished(0) in rest


@pytest.mark.parametrize("events", [HELLO, CALLS], ids=["text", "calls"])
def test_every_cut_of_the_bytes(events: list[dict[str, Any]]) -> None:
    """However the bytes arrive, the events are the same; and a body that ends early is never a clean end."""
    data = sse(*events)
    whole = read(*events)
    for size in (1, 5, 64):
        reader = ResponsesReader(REQUEST, "acme")
        found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert [*found, *reader.end()] == whole
    for at in range(len(data) - 2):  # the last two bytes end the last event, which the end of the body does as well
        reader = ResponsesReader(REQUEST, "acme")
        with pytest.raises(ProviderError):
            reader.feed(data[:at])
            reader.end()


def test_a_whole_reply() -> None:
    """It is the same as its stream."""
    items = [one["item"] for one in CALLS if one["type"] == "response.output_item.done"]
    body = {**START["response"], "status": "completed", "error": None, "output": items, "usage": USAGE}  # type: ignore[dict-item]
    events = ResponsesReader(REQUEST, "acme").read_object(json.dumps(body).encode())
    check(events)
    streamed = [one for one in read(*CALLS) if isinstance(one, BlockFinished | Usage | Finished)]
    found = [one for one in events if isinstance(one, BlockFinished | Usage | Finished)]
    assert [getattr(one, "state", one) for one in found] == [getattr(one, "state", one) for one in streamed]


FAILURES: dict[str, tuple[dict[str, Any] | str, type[ProviderError]]] = {
    "failed": (end("failed", error={"code": "server_error", "message": "oops"}), ProviderUnavailable),
    "failed without a reason": (end("failed"), ProviderUnavailable),
    "cancelled": (end("cancelled"), ProviderUnavailable),
    "error in the end": (end(error={"code": "server_error", "message": "oops"}), ProviderUnavailable),
    "rate limit": (end("failed", error={"code": "rate_limit_exceeded", "message": "oops"}), ProviderRateLimited),
    "policy": (end("failed", error={"code": "bio_policy", "message": "oops"}), ProviderRejected),
    "image": (end("failed", error={"code": "image_file_too_large", "message": "oops"}), ProviderRejected),
    "prompt": (end("failed", error={"code": "invalid_prompt", "message": "oops"}), ProviderRejected),
    "timeout": (end("failed", error={"code": "vector_store_timeout", "message": "oops"}), ProviderTimeout),
    "error event": ({"type": "error", "code": None, "message": "oops", "param": None}, ProviderUnavailable),
    "error event with an object": ({"type": "error", "error": {"type": "insufficient_quota", "code": "x"}}, ProviderRateLimited),
    "error without a type": ({"error": {"message": "oops"}}, ProviderUnavailable),
    "no JSON": ("{", ProviderProtocolError),
    "no object": ("[1]", ProviderProtocolError),
    "no index": ({"type": "response.output_text.delta", "delta": "x"}, ProviderProtocolError),
    "bad index": (added(MESSAGE, -1), ProviderProtocolError),
    "another item": (added({"type": "reasoning"}), ProviderProtocolError),
    "input of no call": (event("function_call_arguments.delta", 3, delta="x"), ProviderProtocolError),
    "input of a message": (event("function_call_arguments.delta", 0, delta="x"), ProviderProtocolError),
    "text of another type": (part("output_text.delta", delta=1), ProviderProtocolError),
    "another reply": ({**START, "response": {"id": "r2"}}, ProviderProtocolError),
    "cut": ("[DONE]", ProviderProtocolError),
}


@pytest.mark.parametrize(("last", "error"), FAILURES.values(), ids=FAILURES)
def test_failures(last: dict[str, Any] | str, error: type[ProviderError]) -> None:
    """A failure is an exception, behind the output of the same read, and never an end."""
    reader = ResponsesReader(REQUEST, "acme")
    batch = reader.feed(sse(*HELLO[:5], last))
    assert TextDelta(0, "Hel") in batch
    with pytest.raises(error) as caught:
        reader.end()
    assert type(caught.value) is error
    assert "oops" not in str(caught.value)
    assert caught.value.retryable == (error is not ProviderRejected and "insufficient_quota" not in str(last))
    alone = ResponsesReader(REQUEST, "acme")
    with pytest.raises(error):
        alone.feed(sse(*HELLO[:4], last))
        alone.end()


def test_text_after_the_end_of_its_item() -> None:
    """It is not lost silently."""
    reader = ResponsesReader(REQUEST, "acme")
    reader.feed(sse(*HELLO[:9], HELLO[4]))
    assert isinstance(reader.failure, ProviderProtocolError)


@pytest.mark.parametrize(
    "body", [b'{"error": {"code": "server_error"}}', b'{"status": "queued", "output": []}', b'{"status": "failed", "output": []}']
)
def test_a_failure_instead_of_a_reply(body: bytes) -> None:
    """An error, or a reply that is not finished, is a failure."""
    reader = ResponsesReader(REQUEST, "acme")
    with pytest.raises(ProviderUnavailable):
        reader.read_object(body)
    assert reader.error_body == body


def test_what_counts_as_output() -> None:
    """A call of a tool that the provider runs may have had an effect, so that it is output from its start; a message is not."""
    reader = ResponsesReader(REQUEST, "acme")
    reader.feed(sse(*HELLO[:4]))
    assert not reader.has_output
    reader.feed(sse(added({"type": "mcp_call", "id": "m", "name": "n", "arguments": ""}, 1)))
    assert reader.has_output
    assert not reader.has_usage


def members(union: Any) -> set[str]:
    """Return the values of `type` in a union of the SDK's types."""
    (types, *_) = typing.get_args(union)
    return {value for one in typing.get_args(types) for value in typing.get_args(one.model_fields["type"].annotation)}


def test_every_item_of_the_sdk() -> None:
    """Each type of item is known, but for those that are kept as they are. A new one in the SDK fails here."""
    unknown = {name for name in members(ResponseOutputItem) if kind_of({"type": name}) is ItemKind.UNKNOWN}
    assert unknown == {"additional_tools"}


def test_every_event_of_the_sdk() -> None:
    """Each type of event is read, or is progress of an item. A new one in the SDK fails here."""
    items = members(ResponseOutputItem) | {"compaction", "image_generation_call", "shell_call", "shell_call_output"}
    read_as_such = {
        *("created", "in_progress", "queued", "completed", "incomplete", "failed"),
        *("output_item.added", "output_item.done", "content_part.added", "content_part.done", "refusal.delta", "refusal.done"),
        *("output_text.delta", "output_text.done", "output_text.annotation.added"),
        *("reasoning_summary_part.added", "reasoning_summary_part.done", "reasoning_text.delta", "reasoning_text.done"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.done"),
        *("function_call_arguments.delta", "function_call_arguments.done"),
        *("custom_tool_call_input.delta", "custom_tool_call_input.done"),
    }
    never_asked_for = {"audio.delta", "audio.done", "audio.transcript.delta", "audio.transcript.done"}
    names = {name.removeprefix("response.") for name in members(ResponseStreamEvent)} - {"error"} - read_as_such - never_asked_for
    assert {name for name in names if not name.startswith(tuple(items))} == set()


@pytest.mark.parametrize(("given", "expected"), [("flex", "flex"), ("default", ""), (None, "")])
def test_the_service_that_a_call_got(given: str | None, expected: str) -> None:
    """The response names it beside the usage."""
    (used,) = [event for event in read(*HELLO[:-1], end(service_tier=given)) if isinstance(event, Usage)]
    assert used.service_tier == expected
