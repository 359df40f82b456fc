"""From messages of the domain to the input items of the Responses API."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION_CALL,
    Audio,
    Block,
    Compaction,
    Document,
    Image,
    JsonObject,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.errors import Unsupported
from antiphon.domain.reply import Reply
from antiphon.providers.responses.messages import ResponsesEncoder
from antiphon.providers.responses.response import ResponsesReader
from tests.unit.providers.responses.test_response import ANNOTATIONS, NATIVE_CALLS, REQUEST, SERVER_CALLS, text_part

OWN, OTHER = Origin("responses", "acme", "m", "acme"), Origin("openai-chat", "openai", "m", "openai")
INPUT: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)
REASONING = {"id": "rs", "type": "reasoning", "encrypted_content": "gAAA", "summary": []}
MESSAGE = {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": [text_part("Hello")]}
CALL = {"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "42"}


def encode(*messages: Message, provider: str = "acme") -> list[JsonObject]:
    sent = ResponsesEncoder(provider).encode(messages)
    for item in json.loads(json.dumps(sent)):
        INPUT.validate_python(item)
    return sent


def reply(*blocks: Block, origin: Origin | None = OWN, **fields: JsonObject) -> Message:
    return Message(Role.ASSISTANT, blocks, origin=origin, **fields)  # type: ignore[arg-type]


def received(*items: dict[str, Any], provider: str = "acme") -> Message:
    """Return the message of a reply with these items, as it was received."""
    whole = Reply()
    for event in ResponsesReader(REQUEST, provider).read_object(json.dumps({"id": "r", "output": items}).encode()):
        whole.add(event)
    return whole.message()


def result(call_id: str = "c", text: str = "42", **fields: Any) -> Message:
    return Message(Role.TOOL, (ToolResult(call_id, (Text(text),), **fields),))


def without_state(message: Message, *positions: int) -> Message:
    """Return the message as a guard leaves it that changed the blocks at these positions."""
    blocks = tuple(replace(one, state=None) if at in positions else one for at, one in enumerate(message.blocks))
    return replace(message, blocks=blocks)


def test_roles_and_content() -> None:
    """Instructions keep their role; a single text is a string, all else a list; marks for the cache are kept."""
    mark = {"mode": "explicit"}
    assert encode(
        Message(Role.SYSTEM, (Text("a", extra={"x": 1}),)),
        Message(Role.DEVELOPER, (Text("b"), Text("c", extra={"prompt_cache_breakpoint": mark, "cache_control": {}}))),
        Message(Role.USER, (Text("d"), Image(Media("https://x/a.png"))), name="bob", extra={"x": 1}),
        Message(Role.USER, (Image(Media(file_id="f"), detail="low"),)),
        Message(Role.USER, (Text("e", extra={"prompt_cache_breakpoint": mark}),)),
        Message(Role.USER, ()),
    ) == [
        {"role": "system", "content": "a"},
        {
            "role": "developer",
            "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c", "prompt_cache_breakpoint": mark}],
        },
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "d"},
                {"type": "input_image", "image_url": "https://x/a.png", "detail": "auto"},
            ],
        },
        {"role": "user", "content": [{"type": "input_image", "file_id": "f", "detail": "low"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "e", "prompt_cache_breakpoint": mark}]},
        {"role": "user", "content": ""},
    ]


def test_documents() -> None:
    """A document is sent as data with a name, by address or by id."""
    data = "data:application/pdf;base64,AA=="
    documents = (
        Document(Media(data)),
        Document(Media(data), filename="a.pdf"),
        Document(Media("https://x/b.pdf")),
        Document(Media(file_id="f")),
    )
    (sent,) = encode(Message(Role.USER, documents))
    assert sent["content"] == [
        {"type": "input_file", "filename": "document.pdf", "file_data": data},
        {"type": "input_file", "filename": "a.pdf", "file_data": data},
        {"type": "input_file", "file_url": "https://x/b.pdf"},
        {"type": "input_file", "file_id": "f"},
    ]


@pytest.mark.parametrize("block", [Audio(Media("data:audio/wav;base64,AA==")), Video(Media("https://x"))])
def test_unsupported(block: Block) -> None:
    """What the API cannot express is refused."""
    with pytest.raises(Unsupported):
        encode(Message(Role.USER, (block,)))


@pytest.mark.parametrize(
    "items",
    [
        [MESSAGE],
        [REASONING, MESSAGE],
        [REASONING, CALL, {**CALL, "id": "fc2", "call_id": "c2"}],
        [{**REASONING, "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]}, CALL],
        [{**REASONING, "content": [{"type": "reasoning_text", "text": "a"}]}, MESSAGE],
        [{**MESSAGE, "phase": "commentary"}, {**MESSAGE, "id": "msg2", "phase": "final_answer"}],
        [{**MESSAGE, "content": [text_part("a"), text_part("b", logprobs=[]), {"type": "refusal", "refusal": "no"}]}],
        [{**MESSAGE, "content": [{"type": "output_text", "text": "Hello", "annotations": [one for one, _ in ANNOTATIONS[:4]]}]}],
        *([item, MESSAGE] for item, _ in NATIVE_CALLS),
        *([item, MESSAGE] for item, _ in SERVER_CALLS),
        [{"type": "code_interpreter_call", "id": "ci", "code": "1", "outputs": None, "container_id": "k", "status": "completed"}],
        [{"type": "image_generation_call", "id": "ig", "status": "completed", "result": "QQ=="}],
        [{"type": "compaction", "id": "cm", "encrypted_content": "e"}],
        [{"type": "shell_call_output", "id": "o", "call_id": "c", "output": [], "max_output_length": None}],
        [{"type": "dream", "id": "d", "x": [1]}],
        [{**MESSAGE, "content": [text_part("a"), {"type": "video", "url": "x"}]}],
    ],
    ids=lambda items: "-".join(item["type"] for item in items),
)
def test_own_items(items: list[dict[str, Any]]) -> None:
    """Items go back to the provider that made them as they came, in order, and nothing of them to another."""
    message = received(*items)
    assert ResponsesEncoder("acme").encode([message]) == items
    elsewhere = json.dumps(ResponsesEncoder("other").encode([message, Message(Role.USER, (Text("hi"),))]))
    assert "gAAA" not in elsewhere
    assert not any(json.dumps(item.get("id")) in elsewhere for item in items)


def test_reasoning_that_cannot_be_sent() -> None:
    """Reasoning needs its encrypted content and an item after it; its id needs an id there."""
    assert encode(received({**REASONING, "encrypted_content": None}, MESSAGE)) == [MESSAGE]
    assert encode(received(MESSAGE, REASONING)) == [MESSAGE]
    assert encode(received(REASONING)) == []
    idless = {name: value for name, value in REASONING.items() if name != "id"}
    changed = without_state(received(REASONING, MESSAGE), 1)
    assert ResponsesEncoder("acme").encode([changed]) == [idless, {"role": "assistant", "content": "Hello"}]
    assert encode(received(REASONING, {**MESSAGE, "content": []}), Message(Role.USER, (Text("hi"),))) == [
        {"role": "user", "content": "hi"}
    ]


@pytest.mark.parametrize("changed", [0, 1])
def test_an_item_that_a_guard_changed(changed: int) -> None:
    """It goes as text alone, whichever of its blocks was changed."""
    message = received({**MESSAGE, "content": [text_part("a"), text_part("b")]})
    assert encode(without_state(message, changed)) == [{"role": "assistant", "content": "ab"}]
    thoughts = received({**REASONING, "summary": [{"type": "summary_text", "text": one} for one in "ab"]}, MESSAGE)
    assert encode(without_state(thoughts, changed)) == [MESSAGE]


def test_a_reply_of_another_provider() -> None:
    """Text and calls are sent without ids, images in the next user message, and nothing else."""
    image = Image(Media("data:image/png;base64,AA=="))
    state = State("sig", {"a": 1})
    message = reply(
        Thinking("hm", state=state),
        RedactedThinking(state=state),
        Text("a", state=state),
        Refusal("b"),
        Audio(Media(), "id", "said"),
        ToolCall("c", "f", "", state=state),
        ToolCall("d", "g", "x", CUSTOM),
        ToolCall("e", "", "{}", "computer_call"),
        ServerToolCall("s", "web_search", "w"),
        Compaction("sum"),
        Opaque(state=State(fields={"type": "x"})),
        image,
        origin=OTHER,
    )
    results = Message(Role.TOOL, (ToolResult("c", (Text("1"),)), ToolResult("d", (Text("2"),)), ToolResult("e", (Text("3"),))))
    assert encode(message, results, Message(Role.USER, (Text("hi"),))) == [
        {"role": "assistant", "content": "absaid"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "2"},
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": image.media.url, "detail": "auto"},
                {"type": "input_text", "text": "hi"},
            ],
        },
    ]


def test_what_the_caller_wrote() -> None:
    """A reply without an origin is sent as text and calls; its phase is kept, its thoughts are not."""
    message = reply(Thinking("hm"), Text("a"), origin=None, extra={"phase": "commentary", "refusal": None})
    assert encode(message) == [{"role": "assistant", "content": "a", "phase": "commentary"}]
    assert encode(reply(origin=None), reply(Text(""), origin=None)) == []


def test_reasoning_by_way_of_another_api() -> None:
    """A signature that a client of another API sends back is encrypted reasoning, without its item."""
    own = Origin(provider="acme", deployment="acme")
    message = reply(
        RedactedThinking(state=State("gAAA", {"reasoning_details": {"type": "reasoning.encrypted"}}, origin=own)),
        Thinking("hm", state=State("gBBB", origin=own)),
        Thinking("foreign", state=State("gCCC", origin=OTHER)),
        ToolCall("c", "f", "{}"),
        origin=None,
    )
    assert ResponsesEncoder("acme").encode([message, result()]) == [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gBBB"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        RESULT,
    ]
    assert encode(message, result(), provider="other")[0]["type"] == "function_call"


def test_results() -> None:
    """Results have the form of their call, also if the client's API knows functions only; pictures and errors are kept."""
    image = Image(Media("data:image/png;base64,AA=="))
    both = Message(Role.TOOL, (ToolResult("c", (Text("see"), image)), ToolResult("d", (), is_error=True)))
    assert encode(both) == [
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": image.media.url, "detail": "auto"},
            ],
        },
        {"type": "function_call_output", "call_id": "d", "output": ""},
    ]
    custom = received({"type": "custom_tool_call", "id": "ct", "call_id": "c", "name": "sql", "input": "x"})
    assert encode(custom, result())[1] == {"type": "custom_tool_call_output", "call_id": "c", "output": "42"}
    caller = {"type": "program", "caller_id": "p"}
    assert encode(received({**CALL, "caller": caller}), result())[1] == {**RESULT, "caller": caller}
    approval = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}
    assert encode(Message(Role.USER, (Opaque(fields=approval),))) == [approval]


NATIVE_RESULTS: list[tuple[str, ToolResult, dict[str, Any]]] = [
    (
        "shell_call",
        ToolResult("c", (Text("out"),), is_error=True),
        {"call_id": "c", "output": [{"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 1}}]},
    ),
    ("shell_call", ToolResult("c", (Text("[]"),)), {"call_id": "c", "output": []}),
    ("local_shell_call", ToolResult("c", (Text("out"),)), {"id": "c", "output": "out"}),
    ("apply_patch_call", ToolResult("c", (Text("ok"),)), {"call_id": "c", "output": "ok", "status": "completed"}),
    (
        "computer_call",
        ToolResult("c", (Image(Media("https://x/a.png")),)),
        {"call_id": "c", "output": {"type": "computer_screenshot", "image_url": "https://x/a.png"}},
    ),
    (
        "computer_call",
        ToolResult("c", (Opaque(fields={"type": "computer_screenshot", "file_id": "f"}),)),
        {"call_id": "c", "output": {"type": "computer_screenshot", "file_id": "f"}},
    ),
    (
        "tool_search_call",
        ToolResult("c", (Text('{"tools": []}'),)),
        {"type": "tool_search_output", "call_id": "c", "execution": "client", "status": "completed", "tools": []},
    ),
]


@pytest.mark.parametrize(("kind", "block", "expected"), NATIVE_RESULTS)
def test_results_of_calls_that_only_this_api_has(kind: str, block: ToolResult, expected: dict[str, Any]) -> None:
    """They have the form of the API, whatever the client's API calls them."""
    item = next(item for item, _ in NATIVE_CALLS if item["type"] == kind)
    sent = ResponsesEncoder("acme").encode([received(item), Message(Role.TOOL, (block,))])
    assert sent == [item, {"type": f"{kind}_output", **expected}]
    INPUT.validate_python(sent[1])


def test_calls_that_only_this_api_has_by_way_of_another_api() -> None:
    """Without their item they are sent as far as they are known."""
    call = ToolCall("c", "", '{"commands":["ls"]}', "shell_call")
    assert encode(reply(call, origin=None)) == [{"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}}]
    assert encode(reply(replace(call, arguments="{"), origin=None), result()) == []
    assert encode(reply(replace(call, arguments="[]"), origin=None), result()) == []
    batch = replace(call, arguments='{"actions":[{"type":"wait"}]}', type="computer_call")
    (item,) = ResponsesEncoder("acme").encode([reply(batch, origin=None)])
    assert item == {"type": "computer_call", "call_id": "c", "actions": [{"type": "wait"}]}


def test_order_of_items() -> None:
    """Items go back in the provider's order, whichever block began first, also in a message that a client joined of two replies."""
    first, second = received(MESSAGE, CALL), received({**MESSAGE, "id": "msg2"})
    swapped = replace(first, blocks=first.blocks[::-1])
    assert encode(swapped) == [MESSAGE, CALL]
    joined = replace(first, blocks=(*swapped.blocks, *second.blocks))
    assert encode(joined) == [MESSAGE, CALL, {**MESSAGE, "id": "msg2"}]


def test_ids() -> None:
    """Ids that are too long are shortened, the same for a call and its result, and an item that comes twice has its id once."""
    long = "x" * 65
    call, output = encode(reply(ToolCall(long, "f", "{}"), origin=OTHER), result(long))
    assert call["call_id"] == output["call_id"]
    assert len(call["call_id"]) <= 64
    first, second = ResponsesEncoder("acme").encode([received(MESSAGE), received(MESSAGE)])
    assert first == MESSAGE
    assert second == {name: value for name, value in MESSAGE.items() if name != "id"}


def test_the_function_call_of_2023() -> None:
    """It gets an id, as its result does."""
    message = reply(ToolCall("", "f", "{}", FUNCTION_CALL), origin=None)
    output = Message(Role.TOOL, (ToolResult("", (Text("42"),), type=FUNCTION_CALL),))
    assert [item["call_id"] for item in encode(message, output, message, output)] == ["call_1", "call_1", "call_2", "call_2"]
