"""From messages of the domain to those of Anthropic's Messages API."""

import base64
import json
from typing import Any

import pytest

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION_CALL,
    Audio,
    Block,
    Citation,
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
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.errors import InvalidRequest, Unsupported
from antiphon.domain.opaque import wrap
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest
from antiphon.history import stored_form
from antiphon.providers.anthropic.messages import AnthropicEncoder, plain
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.rest.shared.carried import read_carried
from antiphon.rpc.convert.blocks import message_to_proto
from antiphon.rpc.convert.request import messages_from_proto

OWN, OTHER = Origin("anthropic", "acme", "m", "acme"), Origin("openai-chat", "openai", "m", "openai")
CALL = ToolCall("c", "f", '{"q": 1}')
CALL_JSON = {"type": "tool_use", "id": "c", "name": "f", "input": {"q": 1}}
HI = {"type": "text", "text": "hi"}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SEARCH = ServerToolCall("s", "server_tool_use", "web_search", '{"q": 2}', state=State(fields={"caller": {"type": "direct"}}))
SEARCH_JSON = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 2}, "caller": {"type": "direct"}}
FOUND = ServerToolResult("s", "web_search_tool_result", state=State(fields={"content": [{"encrypted_content": "E"}]}))
FOUND_JSON = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"encrypted_content": "E"}]}


def encoded(*messages: Message, system_turns: bool = False) -> AnthropicEncoder:
    encoder = AnthropicEncoder("acme", system_turns=system_turns)
    encoder.encode(messages)
    return encoder


def encode(*messages: Message) -> list[dict[str, Any]]:
    return [{**message, "content": plain(message["content"])} for message in encoded(*messages).messages]


def user(*blocks: Block, **fields: Any) -> Message:
    return Message(Role.USER, blocks or (Text("x"),), **fields)


def reply(*blocks: Block, origin: Origin | None = OWN, **fields: Any) -> Message:
    return Message(Role.ASSISTANT, blocks, origin=origin, **fields)


def results(*blocks: Block, **fields: Any) -> Message:
    return Message(Role.TOOL, blocks, **fields)


def test_roles_and_content() -> None:
    """A single text is a string, all else a list; turns of one role are joined, and blank text is left out."""
    image = Image(Media("data:image/jpg;base64,AA=="), detail="low", extra=MARK | {"x": 1})
    assert encode(
        user(Text("a")),
        user(Text(" \n"), Text("b"), image, name="bob", extra={"x": 1}),
        reply(Text("c")),
        reply(Text("d"), origin=OTHER),
        user(Text("")),
        Message(Role.USER, ()),
        user(Text("e", extra=MARK)),
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}, **MARK},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        {"role": "user", "content": [{"type": "text", "text": "e", **MARK}]},
    ]


def test_a_conversation_that_the_assistant_begins() -> None:
    """The first turn is the user's."""
    assert encode(reply(Text("hi")), user()) == [
        {"role": "user", "content": "."},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "x"},
    ]


def text_document(text: str) -> dict[str, str]:
    return {"type": "text", "media_type": "text/plain", "data": text}


def data_url(kind: str, text: str = "äb") -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Image(Media("https://x/y.png")), {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}),
        (Image(Media(file_id="f")), {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        (
            Image(Media("data:image/png,%00"), extra={"image_url": {"transformations": {}}}),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                "transformations": {},
            },
        ),
        (
            Document(Media("data:application/pdf;base64,AA=="), "a.pdf", extra=MARK | {"citations": {"enabled": True}}),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
                "title": "a.pdf",
                **MARK,
                "citations": {"enabled": True},
            },
        ),
        (
            Document(Media("AA==")),
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}},
        ),
        (
            Document(Media(data_url("application/octet-stream")), "a.md", "T"),
            {"type": "document", "source": text_document("äb"), "title": "T"},
        ),
        (Document(Media(data_url("text/csv"))), {"type": "document", "source": text_document("äb")}),
        (Document(Media("https://x/y.pdf")), {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}),
        (Document(Media(file_id="f")), {"type": "document", "source": {"type": "file", "file_id": "f"}}),
        (Opaque(fields={"type": "search_result", "title": "t"}), {"type": "search_result", "title": "t"}),
        (Audio(Media(), id="a", transcript="hi"), HI),
        (Refusal("hi"), HI),
    ],
)
def test_parts(block: Block, expected: JsonObject) -> None:
    """Pictures and documents by address, bytes or id."""
    assert encode(user(Text("a"), block))[0]["content"][1] == expected


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (Video(Media("https://x")), Unsupported),
        (Audio(Media("data:audio/mp3;base64,AA==")), Unsupported),
        (Document(Media("data:application/zip;base64,AA==")), Unsupported),
        (Document(Media("data:text/plain;base64,/w==")), InvalidRequest),
        (Image(Media("data:image/png")), InvalidRequest),
    ],
)
def test_unsupported(block: Block, error: type[Exception]) -> None:
    """What the API cannot express is refused."""
    with pytest.raises(error):
        encode(user(block))


def test_results_of_tools() -> None:
    """They are in one message, before its text, with errors, pictures and marks; one without its call is left out."""
    calls = tuple(ToolCall(name, "f", "{}") for name in "abcd")
    picture = Image(Media("https://x/y"))
    failed = ToolResult("b", (Text("no"),), is_error=True)
    assert encode(
        user(),
        reply(*calls),
        results(ToolResult("a", (Text("42"),))),
        user(Text("and?")),
        results(failed, ToolResult("c", (Text("look"), picture, Text("there", extra=MARK)))),
        results(ToolResult("d", ()), ToolResult("e", (Text("lost"),)), extra=MARK),
    )[2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "42"},
                {"type": "tool_result", "tool_use_id": "b", "content": "no", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "c",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
                        {"type": "text", "text": "there"},
                    ],
                    **MARK,
                },
                {"type": "tool_result", "tool_use_id": "d", **MARK},
                {"type": "text", "text": "and?"},
            ],
        }
    ]


CITED = Text("hi", (Citation("u", "t", "x", fields={"type": "web_search_result_location", "encrypted_index": "E"}),))
CITED_JSON = {
    "type": "web_search_result_location",
    "url": "u",
    "title": "t",
    "cited_text": "x",
    "encrypted_index": "E",
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (reply(Thinking("t", state=State("sig")), Text("hi")), [{"type": "thinking", "thinking": "t", "signature": "sig"}, HI]),
        (reply(Thinking("", state=State("sig")), Text("hi")), [{"type": "thinking", "thinking": "", "signature": "sig"}, HI]),
        (reply(RedactedThinking(state=State("R")), Text("hi")), [{"type": "redacted_thinking", "data": "R"}, HI]),
        (reply(Thinking("t"), Text("hi")), [HI]),
        (reply(Thinking("t"), Text("hi"), origin=None), [HI]),
        (reply(Thinking("t", state=State("sig")), RedactedThinking(state=State("R")), Text("hi"), origin=OTHER), [HI]),
        (reply(Thinking("t", state=State("sig", origin=OTHER)), Text("hi")), [HI]),
        (reply(Thinking("t", state=State("sig")), Text("hi"), origin=Origin("anthropic", "other")), [HI]),
        (reply(Thinking("t", state=State("sig")), Text("hi"), origin=Origin("bedrock", "acme")), [HI]),
        (
            reply(Thinking("t", state=State("sig", {"reasoning_details": {}}, origin=Origin(provider="acme"))), Text("hi")),
            [{"type": "thinking", "thinking": "t", "signature": "sig"}, HI],
        ),
        (reply(CITED), [{**HI, "citations": [CITED_JSON]}]),
        (reply(CITED, origin=OTHER), [HI]),
        (reply(CITED, origin=None), [HI]),
        (reply(Text("hi", state=State(fields={"citations": None}))), [HI]),
        (reply(Text("h"), Text("i"), Text(" "), Text("")), [{"type": "text", "text": "h"}, {"type": "text", "text": "i "}]),
        (reply(Text("\n"), Text("hi")), [HI]),
        (reply(Refusal("hi")), [HI]),
        (reply(Audio(Media(), id="a", transcript="hi")), [HI]),
        (reply(Text("hi", extra=MARK)), [{**HI, **MARK}]),
        (reply(Text("hi"), extra=MARK), [{**HI, **MARK}]),
        (reply(SEARCH, FOUND, Text("hi")), [SEARCH_JSON, FOUND_JSON, HI]),
        (reply(SEARCH, FOUND, Text("hi"), origin=OTHER), [HI]),
        (reply(SEARCH, FOUND, Text("hi"), origin=None), [HI]),
        (reply(FOUND, Text("hi")), [HI]),
        (reply(Compaction("c", state=State("E", {"signature": "S"})), Text("hi")), None),
        (reply(Compaction("c"), Text("hi"), origin=OTHER), [HI]),
        (reply(Text("hi"), Opaque(state=State(fields={"type": "x"}))), [HI, {"type": "x"}]),
        (reply(Text("hi"), Opaque(state=State(fields={"type": "x"})), origin=OTHER), [HI]),
        (reply(Text("hi"), Opaque(fields={"type": "x"}), origin=None), [HI, {"type": "x"}]),
        (reply(ToolCall("c", "f", '{"q": 1}', state=State(fields={"caller": 1}))), [{**CALL_JSON, "caller": 1}]),
        (reply(ToolCall("c", "f", '{"q": 1}', state=State(fields={"caller": 1})), origin=OTHER), [CALL_JSON]),
        (reply(ToolCall("c", "f", "", extra=MARK)), [{**CALL_JSON, "input": {}, **MARK}]),
        (reply(ToolCall("a|b", "f.g", '{"q": 1}'), origin=OTHER), [{**CALL_JSON, "id": "a_b", "name": "f_g_d2bb54fa"}]),
    ],
)
def test_an_earlier_reply(message: Message, expected: list[JsonObject] | None) -> None:
    """As the table of the module says."""
    if expected is None:
        expected = [{"type": "compaction", "content": "c", "encrypted_content": "E", "signature": "S"}, HI]
    answered = [ToolResult(block.id, ()) for block in message.blocks if isinstance(block, ToolCall)]
    assert encoded(user(), message, results(*answered), user()).messages[1] == {"role": "assistant", "content": expected}


@pytest.mark.parametrize("blocks", [(), (Text(""),), (Text(" "),), (Thinking("t", state=State("sig")),), (Thinking("t"),)])
def test_an_empty_reply(blocks: tuple[Block, ...]) -> None:
    """Neither text nor calls: it is left out."""
    assert encode(user(), reply(*blocks)) == [{"role": "user", "content": "x"}]


def test_calls_of_other_kinds() -> None:
    """Those of one provider are left out, with their results; the function call of 2023 gets an id; what broke off is left out."""
    patch, old, cut = (
        ToolCall("x", "p", "...", "local_shell_call"),
        ToolCall("", "f", "[]", FUNCTION_CALL),
        ToolCall("y", "f", '{"q'),
    )
    answered = (ToolResult("x", (Text("done"),), type=patch.type), ToolResult("", (Text("42"),), type=FUNCTION_CALL))
    assert encode(user(), reply(Text("hi"), patch, old, cut), results(*answered))[1:] == [
        {"role": "assistant", "content": [HI, {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "42"}]},
    ]


def test_a_call_of_a_custom_tool() -> None:
    """Its text is its only argument."""
    custom = ToolCall("x", "p", '{"a": 1}', CUSTOM)
    assert encode(user(), reply(custom, origin=OTHER), results(ToolResult("x", (Text("done"),), type=CUSTOM)))[1:] == [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "p", "input": {"input": '{"a": 1}'}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "done"}]},
    ]


def test_a_damaged_call_that_was_run() -> None:
    """It stays, because its result needs it."""
    messages = encode(user(), reply(ToolCall("y", "f", '{"q')), results(ToolResult("y", (Text("1"),))))
    assert messages[1]["content"] == [{"type": "tool_use", "id": "y", "name": "f", "input": {}}]
    assert messages[2]["content"][0]["tool_use_id"] == "y"


def test_an_error_without_a_text() -> None:
    """The API refuses an empty one."""
    messages = encode(user(), reply(CALL), results(ToolResult("c", (Text(" "),), is_error=True)))
    assert messages[2]["content"] == [{"type": "tool_result", "tool_use_id": "c", "content": "Error", "is_error": True}]


def test_a_reply_that_is_to_be_continued() -> None:
    """The API refuses white space at its end."""
    assert encode(user(), reply(Text("It is \n")))[-1] == {"role": "assistant", "content": "It is"}
    assert encode(user(), reply(Text("It is ")), user())[1] == {"role": "assistant", "content": "It is "}
    assert encode(user(), reply(Text("It is "), SEARCH))[-1]["content"] == [{"type": "text", "text": "It is "}, SEARCH_JSON]


def test_a_tool_of_the_provider_without_result() -> None:
    """It is sent if the turn goes on, or if the result is in a later reply."""
    assert encode(user(), reply(SEARCH))[-1]["content"] == [SEARCH_JSON]
    assert encode(user(), reply(SEARCH, CALL), results(ToolResult("c", ())))[1]["content"] == [SEARCH_JSON, CALL_JSON]
    assert encode(user(), reply(SEARCH, Text("hi")), user())[1]["content"] == "hi"
    later = encode(user(), reply(SEARCH, Text("hi")), user(), reply(FOUND))
    assert later[1]["content"] == [SEARCH_JSON, HI]
    assert later[3]["content"] == [FOUND_JSON]


def test_an_image_of_a_reply() -> None:
    """It goes into the next user message."""
    messages = encode(user(), reply(Text("hi"), Image(Media("https://x/y"))), user(Text("what?")))
    assert messages[2]["content"][0] == {"type": "image", "source": {"type": "url", "url": "https://x/y"}}


@pytest.mark.parametrize("media", [Media(), Media("s3://b/x"), Media("data:image/svg+xml;base64,AA==")])
def test_an_image_of_a_reply_that_cannot_be_sent(media: Media) -> None:
    """The conversation goes on without it."""
    assert encode(user(), reply(Text("hi"), Image(media)), user(Text("what?")))[2] == {"role": "user", "content": "what?"}


def test_late_instructions() -> None:
    """They stay after a user message if the model accepts that and no other one follows, else they go to the first ones."""
    late = Message(Role.SYSTEM, (Text("be brief"),))
    turn = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert encoded(user(), late, system_turns=True).messages[1:] == [turn]
    assert encoded(user(), late, reply(Text("hi")), user(), system_turns=True).messages[1] == turn
    for encoder in (
        encoded(user(), late, system_turns=False),
        encoded(user(), late, user(), system_turns=True),
        encoded(user(), reply(Text("hi")), late, user(), system_turns=True),
        encoded(late, user(), system_turns=True),
    ):
        assert encoder.system == turn["content"]
        assert all(message["role"] != "system" for message in encoder.messages)


def test_a_wrapped_signature() -> None:
    """A signature that a client of another API kept goes back to the provider that it names, as it was, and to no other."""
    for name, expected in (("acme", [{"type": "thinking", "thinking": "t", "signature": "si.g=="}, HI]), ("other", [HI])):
        given = wrap("si.g==", Origin("anthropic", name, "m", name))
        state = read_carried(given, {"reasoning_details": {"type": "reasoning.text"}}).state
        thought = Thinking("t", state=state)
        assert encoded(user(), reply(thought, Text("hi"), origin=None), user()).messages[1]["content"] == expected


def test_one_id_for_several_calls() -> None:
    """A client that counts the calls of each turn anew has the same id twice, which the API refuses."""
    call, again = ToolCall("call_0", "f", "{}"), Message(Role.USER, (Text("again"),))
    result = Message(Role.TOOL, (ToolResult("call_0", (Text("42"),)),))
    turn = (Message(Role.ASSISTANT, (call,)), result)
    encoder = AnthropicEncoder("acme", system_turns=False)
    encoder.encode((again, *turn, result, again, *turn))
    parts = [part for message in encoder.messages for part in message["content"]]
    assert [part["id"] for part in parts if part["type"] == "tool_use"] == ["call_0", "call_0_2"]
    assert [part["tool_use_id"] for part in parts if part["type"] == "tool_result"] == ["call_0", "call_0_2"]


def test_instructions_alone() -> None:
    """They are a message of the user, as the API needs one."""
    encoder = AnthropicEncoder("acme", system_turns=True)
    encoder.encode((Message(Role.SYSTEM, (Text("Tell a joke."),)),))
    assert (encoder.system, encoder.messages) == ([], [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}])


def test_texts_side_by_side() -> None:
    """The texts of a reply are sent back as the texts that came, also from the typed API and from a stored conversation."""
    texts = [{"type": "text", "text": text} for text in ("One.", " Two.", "Three")]
    whole = {"id": "m", "role": "assistant", "content": texts, "model": "c", "stop_reason": "end_turn", "usage": {}}
    received = Reply()
    received.add(*AnthropicReader(ChatRequest("c", (), stream=False), "acme").read_object(json.dumps(whole).encode()))
    message = received.message()
    (typed,) = messages_from_proto([message_to_proto(message)])
    for each in (message, typed, stored_form.decode(stored_form.encode(message).decode())):
        assert encode(user(), each, user())[1] == {"role": "assistant", "content": texts}
