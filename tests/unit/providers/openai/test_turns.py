"""Tests of the order of roles that hosts demand, and of the forms in which they take content."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Audio, Document, JsonObject, Media, Message, Role, Text
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai.capabilities import capabilities_of
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.turns import Turns, in_turns

CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def user(content: Any) -> JsonObject:
    return {"role": "user", "content": content}


def model(content: Any, **more: Any) -> JsonObject:
    return {"role": "assistant", "content": content, **more}


RESULT: JsonObject = {"role": "tool", "tool_call_id": "c", "content": "r"}
SYSTEM: JsonObject = {"role": "system", "content": "s"}
PART = {"type": "image_url", "image_url": {"url": "u"}}


def test_any_order() -> None:
    messages = [model("a"), user("b"), user("c"), RESULT, user("d")]
    assert in_turns(messages, Turns.ANY) == messages


def test_a_user_after_a_tool() -> None:
    """Only there is a reply added; results of several calls stay together."""
    messages = [user("a"), model(None, tool_calls=CALLS), RESULT, RESULT, user("b"), user("c")]
    assert in_turns(messages, Turns.REPLY_AFTER_RESULTS) == [*messages[:4], model("."), *messages[4:]]
    assert in_turns(messages[:4], Turns.REPLY_AFTER_RESULTS) == messages[:4]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([SYSTEM, user("a"), user("b")], [SYSTEM, user("a\n\nb")]),
        ([user("a"), SYSTEM, user("b")], [SYSTEM, user("a\n\nb")]),
        ([model("a"), user("b")], [user("."), model("a"), user("b")]),
        ([user("a"), model("b"), model("c"), user("d")], [user("a"), model("b\n\nc"), user("d")]),
        ([user("a"), user([PART])], [user([{"type": "text", "text": "a"}, PART])]),
        ([user(""), user("b")], [user("b")]),
        ([user("a"), model("b"), model(None, tool_calls=CALLS), RESULT, RESULT], None),
    ],
)
def test_turns_that_alternate(messages: list[JsonObject], expected: list[JsonObject] | None) -> None:
    found = in_turns(messages, Turns.ALTERNATING)
    if expected is None:
        expected = [user("a"), model([{"type": "text", "text": "b"}], tool_calls=CALLS), RESULT, RESULT]
    assert found == expected


def sent(host: str, *messages: Message) -> Any:
    request = ChatRequest("m", messages, stream=False)
    return json.loads(encode(request, host, stream_usage=False, host=capabilities_of(host, None)))["messages"]


@pytest.mark.parametrize(
    ("host", "role"),
    [("mistral", "system"), ("deepseek", "system"), ("moonshot", "system"), ("perplexity", "system"), ("openai", "developer")],
)
def test_the_role_of_developers(host: str, role: str) -> None:
    """Hosts that do not know it get the older name."""
    messages = sent(host, Message(Role.DEVELOPER, (Text("Be brief."),)), Message(Role.USER, (Text("hi"),)))
    assert messages[0] == {"role": role, "content": "Be brief."}


def test_documents_and_recordings() -> None:
    """Mistral has its own form for them."""
    blocks = (
        Text("a"),
        Document(Media("data:application/pdf;base64,aGk="), filename="a.pdf"),
        Document(Media("https://host.test/a.pdf")),
        Document(Media(file_id="f1")),
        Audio(Media("data:audio/mpeg;base64,aGk=")),
    )
    assert sent("mistral", Message(Role.USER, blocks))[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,aGk=", "document_name": "a.pdf"},
        {"type": "document_url", "document_url": "https://host.test/a.pdf"},
        {"type": "file", "file_id": "f1"},
        {"type": "input_audio", "input_audio": "aGk="},
    ]
    assert sent("openai", Message(Role.USER, blocks))[0]["content"][1]["type"] == "file"
