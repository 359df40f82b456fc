"""From messages of the domain to the contents of a Gemini request."""

from typing import Any

import pytest

from antiphon.domain.content import (
    FUNCTION_CALL,
    Audio,
    Block,
    Compaction,
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
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.gemini.capabilities import SENTINEL, capabilities_of
from antiphon.providers.gemini.messages import GeminiEncoder
from antiphon.providers.gemini.names import NAMES, made_id

MODEL = "gemini-3-pro"
OWN = Origin("gemini", "acme", MODEL, "acme")
OTHER = Origin("openai-chat", "openai", MODEL, "openai")
OTHER_MODEL = Origin("gemini", "acme", "gemini-2.5-pro", "acme")
CLIENT = Origin(provider="acme", deployment="acme")
ASK = Message(Role.USER, (Text("q"),))
ASKED = {"role": "user", "parts": [{"text": "q"}]}
PNG = "data:image/png;base64,AA=="
PNG_PART = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}


def encode(*messages: Message, model: str = MODEL) -> list[dict[str, Any]]:
    return GeminiEncoder("acme", model, capabilities_of(model)).encode(messages)


def reply(*blocks: Block, origin: Origin | None = OWN, **fields: Any) -> Message:
    return Message(Role.ASSISTANT, blocks, origin=origin, **fields)


def results(*blocks: ToolResult) -> Message:
    return Message(Role.TOOL, blocks)


def parts_of(block: Block, origin: Origin | None = OWN, model: str = MODEL) -> list[JsonObject]:
    """Return what is sent of a block of an earlier reply, which has a text behind it."""
    _, content, *rest = encode(ASK, reply(block, Text("."), origin=origin), model=model)
    assert not rest
    assert content["role"] == "model"
    parts: list[JsonObject] = content["parts"]
    assert parts[-1] == {"text": "."}
    return parts[:-1]


def test_instructions() -> None:
    """They are not among the contents, wherever they stood; alone, they are the question."""
    encoder = GeminiEncoder("acme", MODEL, capabilities_of(MODEL))
    later = Message(Role.DEVELOPER, (Text("b"), Text("")))
    assert encoder.encode((Message(Role.SYSTEM, (Text("a"),)), ASK, later)) == [ASKED]
    assert encoder.instructions == [{"text": "a"}, {"text": "b"}]
    encoder = GeminiEncoder("acme", MODEL, capabilities_of(MODEL))
    assert encoder.encode((Message(Role.SYSTEM, (Text("q"),)),)) == [ASKED]
    assert encoder.instructions == []


def test_turns() -> None:
    """Neighbours are one content, a reply is never first, and an empty message says nothing."""
    assert encode(ASK, ASK, reply(Text("a")), reply(Text("b"))) == [
        {"role": "user", "parts": [{"text": "q"}, {"text": "q"}]},
        {"role": "model", "parts": [{"text": "a"}, {"text": "b"}]},
    ]
    assert encode(reply(Text("a")), ASK) == [
        {"role": "user", "parts": [{"text": " "}]},
        {"role": "model", "parts": [{"text": "a"}]},
        ASKED,
    ]
    for empty in ((), (Text(""),)):
        assert encode(ASK, reply(Text("a")), Message(Role.USER, empty))[-1] == {"role": "user", "parts": [{"text": " "}]}
    assert encode() == [{"role": "user", "parts": [{"text": " "}]}]


@pytest.mark.parametrize(
    ("block", "own", "other"),
    [
        (Text("x"), [{"text": "x"}], [{"text": "x"}]),
        (Text("x", state=State("s")), [{"text": "x", "thoughtSignature": "s"}], [{"text": "x"}]),
        (Text("", state=State("s")), [{"text": "", "thoughtSignature": "s"}], []),
        (Text(""), [], []),
        (Text("x", state=State(None, {"partMetadata": {}})), [{"text": "x", "partMetadata": {}}], [{"text": "x"}]),
        (Thinking("t"), [], []),
        (Thinking("t", state=State("s")), [{"text": "t", "thought": True, "thoughtSignature": "s"}], []),
        (RedactedThinking(state=State("s")), [], []),
        (Refusal("no"), [{"text": "no"}], [{"text": "no"}]),
        (Audio(Media(), id="a", transcript="hi"), [{"text": "hi"}], [{"text": "hi"}]),
        (Audio(Media()), [], []),
        (Image(Media(PNG), state=State("s")), [{**PNG_PART, "thoughtSignature": "s"}], [PNG_PART]),
        (Image(Media()), [], []),
        (Image(Media("s3://b/x.png")), [], []),
        (Compaction("c"), [], []),
        (
            ServerToolCall(
                "e", "executableCode", "code_execution", "1", state=State("s", {"executableCode": {"language": "PYTHON"}})
            ),
            [{"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"}],
            [],
        ),
        (
            ServerToolCall("t", "toolCall", "X", '{"a":1}', state=State(None, {"toolCall": {"id": "t"}})),
            [{"toolCall": {"id": "t", "args": {"a": 1}}}],
            [],
        ),
        (ServerToolCall("t", "web_search_call", "X", "{}"), [], []),
        (
            ServerToolResult("e", "codeExecutionResult", state=State(None, {"codeExecutionResult": {"output": "1"}})),
            [{"codeExecutionResult": {"output": "1"}}],
            [],
        ),
        (Opaque(state=State("s", {"new": 1})), [{"new": 1, "thoughtSignature": "s"}], []),
        (Opaque(state=State(None, {"thought": True, **PNG_PART})), [], []),
    ],
)
def test_an_earlier_reply(block: Block, own: list[JsonObject], other: list[JsonObject]) -> None:
    """As the table of the module says: state goes to its provider and model only."""
    assert parts_of(block) == own
    assert parts_of(block, OTHER) == other
    assert parts_of(block, OTHER_MODEL) == other
    assert parts_of(block, None) == other


def test_state_that_a_client_sends_back() -> None:
    """It names only the deployment it is from."""
    assert parts_of(Text("x", state=State("s", origin=CLIENT)), None) == [{"text": "x", "thoughtSignature": "s"}]
    assert parts_of(Text("x", state=State("s", origin=OTHER)), OWN) == [{"text": "x"}]
    own = State("s", {"reasoning_details": {}}, origin=CLIENT)
    assert parts_of(Thinking("t", state=own), None) == [{"text": "t", "thought": True, "thoughtSignature": "s"}]
    unsigned = State(None, {"x": 1}, origin=CLIENT)
    assert parts_of(Text("", state=unsigned), None) == []
    assert parts_of(Opaque(state=own), None) == []
    assert parts_of(ServerToolCall("e", "executableCode", state=own), None) == []
    assert parts_of(ServerToolResult("e", "codeExecutionResult", state=own), None) == []


@pytest.mark.parametrize("blocks", [(), (Text(""),), (Thinking("t", state=State("s")),), (Text("", state=State("s")),)])
def test_a_reply_without_content(blocks: tuple[Block, ...]) -> None:
    """It is left out."""
    assert encode(ASK, reply(*blocks)) == [ASKED]


def test_calls_and_results() -> None:
    """Results stand behind their calls, in the order of those, in a content of their own."""
    made = made_id("r", 1)
    contents = encode(
        ASK,
        reply(Text("I look."), ToolCall("own", "f", '{"q":1}', state=State("s1")), ToolCall(made, "look up", "")),
        results(ToolResult(made, (Text("42"),))),
        Message(Role.USER, (Text("and?"), ToolResult("own", (Text('{"a":1}'),)))),
    )
    name = NAMES.sent("look up")
    assert contents == [
        ASKED,
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "f", "args": {"q": 1}, "id": "own"}, "thoughtSignature": "s1"},
                {"functionCall": {"name": name, "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"a": 1}, "id": "own"}},
                {"functionResponse": {"name": name, "response": {"output": "42"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "and?"}]},
    ]


@pytest.mark.parametrize(
    ("origin", "model", "signature"),
    [
        (OTHER, MODEL, SENTINEL),
        (None, MODEL, SENTINEL),
        (OTHER_MODEL, MODEL, SENTINEL),
        (OTHER, "gemini-2.5-flash", None),
        (OWN, MODEL, "s"),
    ],
)
def test_signatures_of_calls(origin: Origin | None, model: str, signature: str | None) -> None:
    """The first call of a step has one: its own, or else the documented one, where the model wants any."""
    message = reply(ToolCall("a", "f", "{}", state=State("s")), ToolCall("b", "f", "{}"), origin=origin)
    contents = encode(ASK, message, results(ToolResult("a", ()), ToolResult("b", ())), model=model)
    first, second = contents[1]["parts"]
    assert first.get("thoughtSignature") == signature
    assert "thoughtSignature" not in second
    assert ("id" in first["functionCall"]) is (origin == OWN)
    assert ("id" in contents[2]["parts"][0]["functionResponse"]) is (origin == OWN)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-3-pro-image", [None, SENTINEL, None, SENTINEL]),
        ("gemini-3.7-flash-image", [None, SENTINEL, None, SENTINEL]),
        (MODEL, [None, None, None, None]),
        ("gemini-2.5-flash-image", [None, None, None, None]),
    ],
)
def test_signatures_of_images(model: str, expected: list[str | None]) -> None:
    """A model that makes images wants one at the first part after the thoughts and at each image; what has one keeps it."""
    own = Origin("gemini", "acme", model, "acme")
    thought = Thinking("t", state=State("s0"))
    blocks = (Text("a"), Text("b"), Image(Media(PNG)))
    contents = encode(ASK, reply(thought, *blocks, origin=own), model=model)
    assert [part.get("thoughtSignature") for part in contents[1]["parts"]] == ["s0", *expected[1:]]
    signed = encode(ASK, reply(Text("a", state=State("s1")), Image(Media(PNG), state=State("s2")), origin=own), model=model)
    assert [part["thoughtSignature"] for part in signed[1]["parts"]] == ["s1", "s2"]


def test_calls_without_results() -> None:
    """They are left out, and so are results without calls; the first that remains is signed."""
    first, second = ToolCall("a", "f", "{", state=State("s")), ToolCall("b", "f", "{}")
    contents = encode(ASK, reply(first, second), results(ToolResult("b", (Text("x"),)), ToolResult("z", (Text("y"),))))
    assert contents[1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}, "id": "b"}, "thoughtSignature": SENTINEL}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}, "id": "b"}}]},
    ]
    assert encode(ASK, reply(first)) == [ASKED]


def test_a_result_that_is_a_schema() -> None:
    """It stays a text: the API takes a `$ref` in a result for the name of a picture."""
    schema = '{"items": [{"$ref": "#/$defs/A"}]}'
    contents = encode(ASK, reply(ToolCall("a", "f", "{}")), results(ToolResult("a", (Text(schema),))))
    assert contents[2]["parts"][0]["functionResponse"]["response"] == {"output": schema}
    contents = encode(ASK, reply(ToolCall("a", "f", "{}")), results(ToolResult("a", (Text('{"items": [{"n": 1}]}'),))))
    assert contents[2]["parts"][0]["functionResponse"]["response"] == {"items": [{"n": 1}]}


def test_calls_that_are_no_functions() -> None:
    """The text for a custom tool is its only argument; calls of one provider's tools are left out, with their results."""
    custom, shell = ToolCall("a", "f", '{"n": 1}', "custom"), ToolCall("b", "", "{}", "local_shell_call")
    contents = encode(ASK, reply(custom, shell, origin=None), results(ToolResult("a", (Text("x"),)), ToolResult("b", ())))
    assert [part["functionCall"]["args"] for part in contents[1]["parts"]] == [{"input": '{"n": 1}'}]
    assert len(contents[2]["parts"]) == 1


def test_calls_from_a_client_of_another_api() -> None:
    """The calls beside a signed one are of the same model, so that their ids are sent as well; those of another's are not."""
    for origin, ids in ((Origin(provider=OWN.provider), ["i1", "i2"]), (Origin(provider="other"), [None, None])):
        message = reply(ToolCall("i1", "f", "{}", state=State("s", origin=origin)), ToolCall("i2", "f", "{}"), origin=None)
        _, sent, answers = encode(Message(Role.USER, (Text("q"),)), message, results(ToolResult("i1", ()), ToolResult("i2", ())))
        assert [part["functionCall"].get("id") for part in sent["parts"]] == ids
        assert [part["functionResponse"].get("id") for part in answers["parts"]] == ids


def test_ids_that_are_used_again() -> None:
    """A result belongs to the first call of its id that has none yet; calls of 2023 have no ids."""
    old = (ToolCall("", "f", '{"n":1}', FUNCTION_CALL), ToolCall("", "g", '{"n":2}', FUNCTION_CALL))
    contents = encode(
        ASK,
        reply(old[0], origin=None),
        results(ToolResult("", (Text("1"),), type=FUNCTION_CALL)),
        reply(old[1], origin=None),
        results(ToolResult("", (Text("2"),), type=FUNCTION_CALL)),
    )
    assert [content["parts"][0].get("functionResponse") for content in contents[2::2]] == [
        {"name": "f", "response": {"output": "1"}},
        {"name": "g", "response": {"output": "2"}},
    ]


def test_kinds_of_results() -> None:
    """Errors are told apart; pictures stand in the result, or behind it where the model or the kind wants that."""
    blocks = (Text("a"), Text("b"), Image(Media(PNG)), Opaque(fields={"x": 1}), Audio(Media("data:audio/wav;base64,AA==")))
    message = reply(ToolCall("a", "f", "plain text", "custom"), ToolCall("b", "f", "[1]"), origin=None)
    answers = results(ToolResult("a", blocks), ToolResult("b", (Text("no"),), is_error=True))
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}}
    contents = encode(ASK, message, answers, ASK)
    calls = [part["functionCall"]["args"] for part in contents[1]["parts"]]
    assert calls == [{"input": "plain text"}, {"input": "[1]"}]
    assert contents[2]["parts"] == [
        {"functionResponse": {"name": "f", "response": {"output": 'ab{"x":1}'}, "parts": [PNG_PART]}},
        {"functionResponse": {"name": "f", "response": {"error": "no"}}},
    ]
    assert contents[3:] == [{"role": "user", "parts": [sound, {"text": "q"}]}]
    old = encode(ASK, message, answers, ASK, model="gemini-2.5-flash")
    assert "parts" not in old[2]["parts"][0]["functionResponse"]
    assert old[3]["parts"] == [PNG_PART, sound, {"text": "q"}]


def test_a_paused_reply() -> None:
    """Its token stands for it, if it is the last message, and the same model made it."""
    paused = reply(Text("x"), fields={"continuationToken": "t"})
    encoder = GeminiEncoder("acme", MODEL, capabilities_of(MODEL))
    assert encoder.encode((ASK, paused)) == [ASKED]
    assert encoder.continuation == "t"
    for messages in ((ASK, paused, ASK), (ASK, reply(Text("x"), origin=OTHER, fields=paused.fields))):
        encoder = GeminiEncoder("acme", MODEL, capabilities_of(MODEL))
        assert {"role": "model", "parts": [{"text": "x"}]} in encoder.encode(messages)
        assert encoder.continuation == ""


def test_parts_of_the_caller() -> None:
    """A part of the API's own form is sent as it is; what has no place here is refused."""
    assert encode(Message(Role.USER, (Opaque(fields={"new": 1}),)))[0]["parts"] == [{"new": 1}]
    assert parts_of(Opaque(fields={"new": 1}), None) == [{"new": 1}]
    assert parts_of(Opaque(fields={"type": "reasoning"}), None) == []
    for block in (ToolCall("a", "f", "{}"), Opaque(fields={"type": "new"})):
        with pytest.raises(Unsupported):
            encode(Message(Role.USER, (block,)))
