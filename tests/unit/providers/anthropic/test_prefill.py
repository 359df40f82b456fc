"""A reply that comes last, which the model is to continue."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Block, Message, Origin, Role, ServerToolCall, Text
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import ChatRequest, Reasoning
from antiphon.domain.warnings import Treatment
from antiphon.providers.anthropic.request import encode
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.parameters import Parameters

NEW, OLD = "claude-opus-4-6", "claude-sonnet-4-5"


def asking(model: str, *blocks: Block, **fields: Any) -> ChatRequest:
    reply = Message(Role.ASSISTANT, blocks, origin=Origin("anthropic", "acme", model))
    return ChatRequest(model, (Message(Role.USER, (Text("count"),)), reply), stream=True, **fields)


def roles(body: bytes) -> list[str]:
    return [message["role"] for message in json.loads(body)["messages"]]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (OLD, ["user", "assistant"]),
        ("claude-haiku-4-5", ["user", "assistant"]),
        (NEW, ["user", "assistant", "user"]),
        ("claude-sonnet-4-6", ["user", "assistant", "user"]),
        ("claude-opus-5", ["user", "assistant", "user"]),
        ("claude-haiku-9", ["user", "assistant", "user"]),
        ("glm-5", ["user", "assistant"]),
    ],
)
def test_who_is_told(model: str, expected: list[str]) -> None:
    """Claude from 4.6 on is asked to continue, in Anthropic's API and on Bedrock, and the caller learns of it."""
    for number, write in enumerate((encode, encode_bedrock)):
        parameters = Parameters("acme")
        name = f"us.anthropic.{model}-v1:0" if number and "claude" in model else model
        assert roles(write(asking(name, Text("1, 2,")), "acme", parameters)) == expected
        assert [warning.treatment for warning in parameters.warnings] == [Treatment.MAPPED] * (len(expected) - 2)


@pytest.mark.parametrize("policy", ["drop", "refuse"])
def test_policies(policy: Any) -> None:
    """Without a mapping the request is refused: a conversation without its last message would be another one."""
    for write, name in ((encode, NEW), (encode_bedrock, f"anthropic.{NEW}-v1")):
        with pytest.raises(Unsupported):
            write(asking(name, Text("1, 2,")), "acme", Parameters("acme", policy))


def test_a_reply_that_was_paused() -> None:
    """It is sent as it is, and its model continues it."""
    paused = asking(NEW, Text("I search"), ServerToolCall("s1", "server_tool_use", "web_search", "{}"))
    parameters = Parameters("acme")
    assert roles(encode(paused, "acme", parameters)) == ["user", "assistant"]
    assert not parameters.warnings


def test_thinking_beside_a_reply() -> None:
    """A model that thinks by a budget cannot begin to think within a reply."""
    parameters = Parameters("acme")
    body = json.loads(encode(asking(OLD, Text("1, 2,"), reasoning=Reasoning("high")), "acme", parameters))
    assert "thinking" not in body
    assert [warning.path for warning in parameters.warnings] == [("reasoning", "effort")]
    bedrock = asking(f"anthropic.{OLD}-v1:0", Text("1, 2,"), reasoning=Reasoning("high"))
    assert "additionalModelRequestFields" not in json.loads(encode_bedrock(bedrock, "acme"))
