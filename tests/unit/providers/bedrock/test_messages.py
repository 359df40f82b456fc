"""From messages to the form that the Converse API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import (
    Audio,
    Block,
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.providers.bedrock.messages import BedrockEncoder
from antiphon.providers.bedrock.names import CALL_IDS, NAMES

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
MARK = {"cache_control": {"type": "ephemeral"}}
POINT = {"cachePoint": {"type": "default"}}
PNG = Media("data:image/png;base64,AA==")
PICTURE = {"image": {"format": "png", "source": {"bytes": "AA=="}}}
FILLER = {"text": "."}


def user(*blocks: Block | str, **fields: Any) -> Message:
    return Message(Role.USER, tuple(Text(one) if isinstance(one, str) else one for one in blocks), **fields)


def reply(*blocks: Block | str, model: str = CLAUDE, provider: str = "acme", protocol: str = "bedrock", **fields: Any) -> Message:
    made = tuple(Text(one) if isinstance(one, str) else one for one in blocks)
    return Message(Role.ASSISTANT, made, origin=Origin(protocol, provider, model, provider), **fields)


def result(call_id: str, *blocks: Block, **fields: Any) -> Message:
    return Message(Role.TOOL, (ToolResult(call_id, blocks, **fields),))


def encode(*messages: Message, model: str = CLAUDE, system_turns: bool = False, has_tools: bool = True) -> BedrockEncoder:
    encoder = BedrockEncoder("acme", model, system_turns=system_turns, has_tools=has_tools)
    encoder.encode(messages)
    return encoder


def sent(*messages: Message, **options: Any) -> Any:
    return [(one["role"], one["content"]) for one in json.loads(json.dumps(encode(*messages, **options).messages))]


def sent_back(*blocks: Block | str, model: str = CLAUDE, **origin: Any) -> Any:
    """Return the content of a reply that is sent back; nothing if it is left out."""
    (_, *rest) = sent(user("x"), reply(*blocks, **origin), model=model)
    return rest[0][1] if rest else []


def call(call_id: str, name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": call_id, "name": name, "input": {}, **fields}}


def answered(call_id: str, *content: Any, **fields: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": call_id, "content": list(content), **fields}}


def test_instructions() -> None:
    """They come first; later ones stay in their place if the model accepts that and a reply follows, or nothing."""
    messages = (Message(Role.SYSTEM, (Text("a", extra=MARK),)), user("b"), Message(Role.DEVELOPER, (Text("c"),)))
    encoder = encode(*messages)
    assert encoder.system == [{"text": "a"}, POINT, {"text": "c"}]
    assert encoder.messages == [{"role": "user", "content": [{"text": "b"}]}]
    encoder = encode(*messages, system_turns=True)
    assert encoder.system == [{"text": "a"}, POINT]
    assert encoder.messages[-1] == {"role": "system", "content": [{"text": "c"}]}
    encoder = encode(*messages, user("d"), system_turns=True)
    assert encoder.system == [{"text": "a"}, POINT, {"text": "c"}]
    assert [one["role"] for one in encoder.messages] == ["user"]


def test_turns() -> None:
    """Messages of one role are one turn, the first is the user's, and blank text is left out."""
    assert sent(user("a", " "), user("b")) == [("user", [{"text": "a"}, {"text": "b"}])]
    assert sent(reply("a"), user("b")) == [("user", [FILLER]), ("assistant", [{"text": "a"}]), ("user", [{"text": "b"}])]
    assert sent(user("a"), reply(" "), reply(Thinking("t", state=State("s"))), user("b")) == [
        ("user", [{"text": "a"}, {"text": "b"}])
    ]


def test_marks_of_caches() -> None:
    """They follow what they mark, also as the API has them; one of a message is at its end."""
    native = {"cachePoint": {"type": "default", "ttl": "1h"}}
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert sent(
        user(Text("a", extra=MARK), Text("b", extra=native), "c", extra=hour), reply(Text("d", extra=MARK), extra=hour)
    ) == [
        ("user", [{"text": "a"}, POINT, {"text": "b"}, native, {"text": "c"}, native]),
        ("assistant", [{"text": "d"}, POINT, native]),
    ]
    calls = reply(ToolCall("c", "f", "{}"), ToolCall("d", "f", "{}", extra=MARK))
    assert sent(user("a"), calls, result("c", Text("r", extra=MARK)), Message(Role.TOOL, (ToolResult("d", (), extra=MARK),)))[
        1:
    ] == [
        ("assistant", [call("c"), call("d"), POINT]),
        ("user", [answered("c", {"text": "r"}), POINT, answered("d"), POINT]),
    ]


def test_results() -> None:
    """They come before all else of their turn, with pictures, and with a status if they are errors."""
    assert sent(
        user("a"),
        reply(ToolCall("c", "f", "{}"), ToolCall("d", "f", "{}")),
        user("b"),
        result("d", Text("no"), Image(PNG), is_error=True),
        result("c", Text(" ")),
        result("x", Text("of no call")),
    )[2:] == [("user", [answered("d", {"text": "no"}, PICTURE, status="error"), answered("c"), {"text": "b"}])]
    assert sent(user("a"), reply(ToolCall("c", "f", "{}")), result("c", Text("no"), is_error=True), model="writer.palmyra-x5-v1:0")[
        -1
    ] == ("user", [answered("c", {"text": "no"})])


def test_an_error_without_a_text() -> None:
    """Claude refuses an empty one."""
    messages = sent(user("a"), reply(ToolCall("c", "f", "{}")), result("c", is_error=True))
    assert messages[2:] == [("user", [answered("c", {"text": "Error"}, status="error")])]


def test_a_reply_that_is_to_be_continued() -> None:
    """Claude refuses white space at its end."""
    assert sent(user("a"), reply(Text("It is ")))[1:] == [("assistant", [{"text": "It is"}])]
    assert sent(user("a"), reply(Text("It is ")), user("b"))[1] == ("assistant", [{"text": "It is "}])


def test_a_call_of_a_custom_tool() -> None:
    """Its text is its only argument; calls of one provider's tools are left out, with their results."""
    calls = (ToolCall("c", "f", "hello", "custom"), ToolCall("s", "", "{}", "local_shell_call"))
    assert sent(user("a"), reply(*calls), result("c"), result("s"))[1:] == [
        ("assistant", [call("c", input={"input": "hello"})]),
        ("user", [answered("c")]),
    ]


def test_results_that_stand_alone() -> None:
    """With some models nothing may be beside results, with Claude no documents: a turn is put between them."""
    messages = (user("a"), reply(ToolCall("c", "f", "{}")), result("c", Text("r")), user("b"))
    assert sent(*messages)[2:] == [("user", [answered("c", {"text": "r"}), {"text": "b"}])]
    split = [("user", [answered("c", {"text": "r"})]), ("assistant", [FILLER])]
    assert sent(*messages, model=LLAMA)[2:] == [*split, ("user", [{"text": "b"}])]
    document = Document(Media("data:text/plain;base64,eA=="), "t.txt")
    pages = {"document": {"format": "txt", "name": "t", "source": {"bytes": "eA=="}}}
    assert sent(*messages[:3], user(document))[2:] == [*split, ("user", [pages, FILLER])]
    assert sent(*messages[:3], user(document), model=NOVA)[2:] == [("user", [answered("c", {"text": "r"}), pages, FILLER])]


def test_calls() -> None:
    """Ids and names are mapped to what the API accepts; a call that broke off is left out."""
    long = "x" * 70
    short, cut = CALL_IDS.sent("a b"), CALL_IDS.sent(long)
    assert (short[:4], len(cut), cut[:50]) == ("a_b_", 64, "x" * 50)
    calls = (
        ToolCall("a b", "f.g", '{"n": 1}'),
        ToolCall(long, long, ""),
        ToolCall("d", "f", '{"cut'),
        ToolCall("e.f:g-h", "f", "[1]"),
    )
    assert sent(user("a"), reply(*calls), result("a b"), result(long), result("e.f:g-h"), result("d_"))[1:] == [
        ("assistant", [call(short, NAMES.sent("f.g"), input={"n": 1}), call(cut, NAMES.sent(long)), call("e.f:g-h")]),
        ("user", [answered(short), answered(cut), answered("e.f:g-h")]),
    ]


def test_functions_of_2023() -> None:
    """Their calls and results have no ids, and are matched by their order."""
    messages = [
        user("a"),
        reply(ToolCall("", "f", "{}", "function_call")),
        Message(Role.TOOL, (ToolResult("f", (Text("1"),), type="function_call"),)),
        reply(ToolCall("", "f", "{}", "function_call")),
        Message(Role.TOOL, (ToolResult("f", (Text("2"),), type="function_call"),)),
    ]
    assert sent(*messages)[1:] == [
        ("assistant", [call("call_1")]),
        ("user", [answered("call_1", {"text": "1"})]),
        ("assistant", [call("call_2")]),
        ("user", [answered("call_2", {"text": "2"})]),
    ]


def test_without_tools() -> None:
    """Calls and results are text if no tools are offered, because the API refuses them then; pictures stay."""
    messages = (
        user("a"),
        reply(ToolCall("c", "f", '{"n": 1}'), ServerToolCall("s", "server_tool_use", "g"), ToolCall("d", "g", "")),
        result("c", Text("r"), Image(PNG)),
        result("d", Text("no"), is_error=True),
        result("x", Text("of no call")),
    )
    assert sent(*messages, has_tools=False)[1:] == [
        ("assistant", [{"text": 'Call of the tool f: {"n": 1}'}, {"text": "Call of the tool g: {}"}]),
        ("user", [{"text": "Result of the tool f:"}, {"text": "r"}, PICTURE, {"text": "Error of the tool g:"}, {"text": "no"}]),
    ]


REASONING: list[tuple[Block, dict[str, Any]]] = [
    (
        Thinking(" t\n", state=State("s==", {"more": 1})),
        {"reasoningContent": {"reasoningText": {"text": " t\n", "signature": "s==", "more": 1}}},
    ),
    (Thinking("", state=State("s")), {"reasoningContent": {"reasoningText": {"text": "", "signature": "s"}}}),
    (RedactedThinking(state=State("/+8=")), {"reasoningContent": {"redactedContent": "/+8="}}),
]


@pytest.mark.parametrize(("block", "expected"), REASONING)
def test_reasoning(block: Block, expected: dict[str, Any]) -> None:
    """What is signed goes back unchanged to its provider and a model of the same maker, and to nobody else."""
    assert sent_back(block, "a") == [expected, {"text": "a"}]
    assert sent_back(block, "a", model="anthropic.claude-opus-4-6-v1") == [expected, {"text": "a"}]
    for other in ({"provider": "other"}, {"protocol": "anthropic"}, {"model": NOVA}, {"model": LLAMA}):
        (_, (_, content)) = sent(user("x"), reply(block, "a", **other))
        assert content == [{"text": "a"}], other
    (_, (_, content)) = sent(user("x"), reply(block, "a", model=ARN), model=ARN)
    assert content == [expected, {"text": "a"}]
    (_, (_, content)) = sent(user("x"), reply(block, "a", model=ARN))
    assert content == [{"text": "a"}]


def test_a_block_with_an_origin_of_its_own() -> None:
    """It counts instead of that of the message, and a caller's value without one is no signature."""
    foreign = Thinking("t", state=State("s", origin=Origin("anthropic", "anthropic", "claude")))
    assert sent_back(foreign, "a") == [{"text": "a"}]
    own = Thinking("t", state=State("s", origin=Origin("bedrock", "acme", CLAUDE)))
    (_, (_, content)) = sent(user("x"), Message(Role.ASSISTANT, (own, Text("a"))))
    assert content[0] == {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}}
    (_, (_, content)) = sent(user("x"), Message(Role.ASSISTANT, (Thinking("t", state=State("s")), Text("a"))))
    assert content == [{"text": "a"}]


def test_unsigned_reasoning() -> None:
    """It goes back to Amazon's models alone."""
    kept = {"reasoningContent": {"reasoningText": {"text": "t"}}}
    assert sent(user("x"), reply(Thinking("t"), "a", model=NOVA), model=NOVA)[1][1] == [kept, {"text": "a"}]
    assert sent(user("x"), reply(Thinking("t"), "a", model=CLAUDE), model=NOVA)[1][1] == [{"text": "a"}]
    assert sent_back(Thinking("t"), "a") == [{"text": "a"}]


def test_other_blocks_of_a_reply() -> None:
    """What only the provider understands goes back to it alone; a picture is sent in the next message of the user."""
    server = (
        ServerToolCall("s", "server_tool_use", "g", '{"q": 1}'),
        ServerToolResult("s", "g_result", state=State(fields={"content": [], "status": "success"})),
    )
    opaque = Opaque(state=State(fields={"newBlock": {"a": 1}}))
    streamed = Opaque(state=State(fields={"contentBlockStart": {"newBlock": {}}}))
    cited = Text("a", (Citation("u", "t", fields={"location": {"web": {"domain": "d"}}}),))
    blocks = (*server, opaque, streamed, cited, Refusal("no"), Audio(Media(), "id", "said"), Compaction("c"))
    assert sent_back(*blocks) == [
        {"toolUse": {"toolUseId": "s", "name": "g", "input": {"q": 1}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "s", "type": "g_result", "content": [], "status": "success"}},
        {"newBlock": {"a": 1}},
        {
            "citationsContent": {
                "content": [{"text": "a"}],
                "citations": [{"title": "t", "location": {"web": {"url": "u", "domain": "d"}}}],
            }
        },
        {"text": "no"},
        {"text": "said"},
    ]
    for other in ({"provider": "other"}, {"model": NOVA}):
        (_, (_, content)) = sent(user("x"), reply(*blocks, **other))
        assert content == [{"text": "a"}, {"text": "no"}, {"text": "said"}]
    assert sent(user("x"), reply("a", Image(PNG)), user("b"))[1:] == [
        ("assistant", [{"text": "a"}]),
        ("user", [PICTURE, {"text": "b"}]),
    ]
    for media in (Media(), Media("https://x/y.png"), Media("s3://b/x"), Media("data:image/svg+xml;base64,AA==")):
        assert sent(user("x"), reply("a", Image(media)), user("b"))[1:] == [
            ("assistant", [{"text": "a"}]),
            ("user", [{"text": "b"}]),
        ]


def test_continuing_without_a_thought() -> None:
    """Results of calls that were made without thinking are known."""
    signed = Thinking("t", state=State("s"))
    for blocks, expected in (((ToolCall("c", "f", "{}"),), True), ((signed, ToolCall("c", "f", "{}")), False)):
        assert encode(user("a"), reply(*blocks), result("c")).continues_unsigned is expected
    assert not encode(user("a")).continues_unsigned
    assert not encode(user("a"), reply("b"), user("c")).continues_unsigned
