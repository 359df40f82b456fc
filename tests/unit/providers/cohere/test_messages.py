"""From messages of the domain to those of Cohere's chat API."""

import pytest

from antiphon.domain.content import (
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
    Refusal,
    Role,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.cohere.messages import CohereEncoder

OWN, OTHER = Origin("cohere", "acme", "m", "acme"), Origin("openai-chat", "openai", "m", "openai")
CALL = ToolCall("c", "f", "")
CALL_JSON = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HI = {"type": "text", "text": "hi"}


def encode(*messages: Message) -> list[JsonObject]:
    return CohereEncoder("acme").encode(messages)


def reply(*blocks: Block, origin: Origin | None = OWN, **fields: JsonObject) -> Message:
    return Message(Role.ASSISTANT, blocks, origin=origin, **fields)  # type: ignore[arg-type]


def test_roles_and_content() -> None:
    """Instructions are system messages; a single text is a string, all else a list."""
    image = Image(Media("data:image/png;base64,AA=="), detail="low")
    assert encode(
        Message(Role.SYSTEM, (Text("a"),)),
        Message(Role.DEVELOPER, (Text("b"), Text("c"))),
        Message(Role.USER, (Text("d"), image), name="bob", extra={"x": 1}),
        Message(Role.USER, ()),
    ) == [
        {"role": "system", "content": "a"},
        {"role": "system", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "d"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ],
        },
    ]


def test_results_of_tools() -> None:
    """Each result is a message of its own, as text or as documents."""
    document = {"type": "document", "document": {"data": {"a": 1}}}
    results = (ToolResult("c", (Text("42"),)), ToolResult("d", (Opaque(fields=document),)), ToolResult("e", ()))
    calls = tuple(ToolCall(name, "f", "{}") for name in "cde")
    assert encode(reply(*calls), Message(Role.TOOL, results))[1:] == [
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "tool", "tool_call_id": "d", "content": [document]},
        {"role": "tool", "tool_call_id": "e", "content": ""},
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (reply(Thinking("t"), Text("hi")), {"content": [{"type": "thinking", "thinking": "t"}, HI]}),
        (reply(Thinking("t"), Text("hi"), origin=None), {"content": [{"type": "thinking", "thinking": "t"}, HI]}),
        (reply(Thinking("t"), CALL), {"content": [{"type": "thinking", "thinking": "t"}], "tool_calls": [CALL_JSON]}),
        (reply(Thinking("p"), CALL, origin=None), {"tool_calls": [CALL_JSON], "tool_plan": "p"}),
        (reply(Thinking("t"), Text("hi"), origin=OTHER), {"content": [HI]}),
        (reply(Thinking("p", field="tool_plan"), CALL), {"tool_calls": [CALL_JSON], "tool_plan": "p"}),
        (reply(Thinking("p", field="tool_plan"), CALL, origin=OTHER), {"tool_calls": [CALL_JSON]}),
        (reply(CALL, extra={"tool_plan": "p", "refusal": None}, origin=None), {"tool_calls": [CALL_JSON], "tool_plan": "p"}),
        (reply(Thinking("p", field="tool_plan"), Text("hi")), {"content": [HI]}),
        (reply(Refusal("hi")), {"content": [HI]}),
        (reply(Audio(Media(), id="a", transcript="hi")), {"content": [HI]}),
        (reply(Text("hi"), Compaction("c")), {"content": [HI]}),
        (reply(Text("hi"), Opaque(state=State(fields={"type": "x"}))), {"content": [HI, {"type": "x"}]}),
        (reply(Text("hi"), Opaque(state=State(fields={"type": "x"})), origin=OTHER), {"content": [HI]}),
    ],
)
def test_an_earlier_reply(message: Message, expected: JsonObject) -> None:
    """As the table of the module says."""
    assert encode(message) == [{"role": "assistant", **expected}]


@pytest.mark.parametrize("blocks", [(), (Text(""),), (Thinking("t"),), (Thinking("p", field="tool_plan"),)])
def test_an_empty_reply(blocks: tuple[Block, ...]) -> None:
    """Neither text nor calls: it is left out."""
    assert encode(reply(*blocks)) == [{"role": "user", "content": "."}]
    hello = Message(Role.USER, (Text("hi"),))
    assert encode(hello, reply(*blocks)) == [{"role": "user", "content": "hi"}]


def test_a_call_of_another_kind() -> None:
    """It is left out with its result; the function call of 2023 gets an id."""
    patch, old = ToolCall("x", "p", "...", "custom"), ToolCall("", "f", "{}", FUNCTION_CALL)
    results = (ToolResult("x", (Text("done"),), type="custom"), ToolResult("", (Text("42"),), type=FUNCTION_CALL))
    assert encode(reply(Text("hi"), patch, old), Message(Role.TOOL, results)) == [
        {
            "role": "assistant",
            "content": [HI],
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]


def test_an_image_of_a_reply() -> None:
    """It goes into the next user message."""
    messages = encode(reply(Text("hi"), Image(Media("https://x/y"))), Message(Role.USER, (Text("what?"),)))
    assert messages[1]["content"][0] == {"type": "image_url", "image_url": {"url": "https://x/y"}}


@pytest.mark.parametrize("media", [Media(), Media("s3://b/x.png")])
def test_an_image_of_a_reply_that_cannot_be_sent(media: Media) -> None:
    """The conversation goes on without it."""
    assert encode(reply(Text("hi"), Image(media)), Message(Role.USER, (Text("what?"),)))[1]["content"] == "what?"


def test_pictures_in_results() -> None:
    """They follow all results of the turn, in the next message of the user or in one of their own."""
    picture = Image(Media("https://x/y"))
    calls = reply(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    results = Message(Role.TOOL, (ToolResult("a", (Text("see"), picture)),)), Message(Role.TOOL, (ToolResult("b", (picture,)),))
    shown = {"type": "image_url", "image_url": {"url": "https://x/y"}}
    found = [{"role": "tool", "tool_call_id": "a", "content": "see"}, {"role": "tool", "tool_call_id": "b", "content": ""}]
    assert encode(calls, *results)[1:] == [*found, {"role": "user", "content": [shown, shown]}]
    asked = {"role": "user", "content": [shown, shown, {"type": "text", "text": "so?"}]}
    assert encode(calls, *results, Message(Role.USER, (Text("so?"),)))[1:] == [*found, asked]
    assert encode(calls, *results, reply(Text("hi")))[1:] == [
        *found,
        {"role": "user", "content": [shown, shown]},
        {"role": "assistant", "content": [HI]},
    ]


def test_results_alone() -> None:
    """Without their calls they are nothing, which the API does not accept."""
    assert encode(result("x", "0")) == [{"role": "user", "content": "."}]


@pytest.mark.parametrize("block", [Video(Media("https://x")), Document(Media("https://x")), Image(Media(file_id="f"))])
def test_unsupported(block: Block) -> None:
    """What the API cannot express is refused."""
    with pytest.raises(Unsupported):
        encode(Message(Role.USER, (block,)))


def result(call_id: str, text: str) -> Message:
    return Message(Role.TOOL, (ToolResult(call_id, (Text(text),)),))


def test_the_order_of_results() -> None:
    """Results follow their calls in the order of these; those without a call are left out."""
    hello = Message(Role.USER, (Text("hi"),))
    calls = reply(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))
    made = encode(
        hello, calls, result("b", "2"), hello, result("a", "1"), result("a", "1 again"), result("x", "0"), calls, result("a", "3")
    )
    assert [(message["role"], message.get("tool_call_id")) for message in made] == [
        ("user", None),
        ("assistant", None),
        ("tool", "a"),
        ("tool", "b"),
        ("user", None),
        ("assistant", None),
        ("tool", "a"),
    ]
    assert [message["content"] for message in made if message["role"] == "tool"] == ["1", "2", "1 again"]


@pytest.mark.parametrize(
    ("written", "sent"), [('{"a": 1}', '{"a": 1}'), ("{oops", "{}"), ("[1]", "{}"), ("null", "{}"), ("", "{}")]
)
def test_arguments(written: str, sent: str) -> None:
    """Arguments are an object; what is none was refused by the application, too."""
    (made,) = encode(reply(ToolCall("c", "f", written)))
    assert made["tool_calls"][0]["function"]["arguments"] == sent


def test_blank_messages() -> None:
    """The API refuses them; instructions alone are a message of the user."""
    assert encode(Message(Role.SYSTEM, (Text(" "),)), Message(Role.USER, (Text(""), Text("hi")))) == [
        {"role": "user", "content": "hi"}
    ]
    assert encode(Message(Role.SYSTEM, (Text("Tell a joke."),))) == [{"role": "user", "content": "Tell a joke."}]
    assert encode(Message(Role.USER, (Text(""),))) == [{"role": "user", "content": "."}]
