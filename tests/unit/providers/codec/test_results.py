"""Tests of calls and their results, brought together."""

from collections.abc import Sequence

import pytest

from antiphon.domain.content import Block, Message, Role, Text, ToolCall, ToolResult
from antiphon.providers.codec.results import paired


def said(text: str) -> Message:
    return Message(Role.USER, (Text(text),))


def reply(*parts: str) -> Message:
    """Return a reply: a part in capitals is a text, another the id of a call."""
    blocks: list[Block] = [Text(part) if part.isupper() else ToolCall(part, "f", "{}") for part in parts]
    return Message(Role.ASSISTANT, tuple(blocks))


def result(*ids: str) -> Message:
    return Message(Role.TOOL, tuple(ToolResult(one, ()) for one in ids))


def shape(messages: Sequence[Message]) -> list[str]:
    """Return the messages in short: the role, and the texts and ids."""
    found = []
    for message in messages:
        words = [
            block.text if isinstance(block, Text) else block.id if isinstance(block, ToolCall) else block.tool_call_id
            for block in message.blocks
            if isinstance(block, Text | ToolCall | ToolResult)
        ]
        found.append(" ".join((message.role.value[0], *words)))
    return found


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((said("A"), reply("B")), None),
        ((said("A"), reply("a"), result("a")), None),
        ((said("A"), reply("a", "b"), result("b"), said("C"), result("a")), None),
        ((said("A"), reply("a"), reply("B"), result("a")), None),
        ((said("A"), reply("a"), Message(Role.SYSTEM, (Text("S"),)), result("a")), None),
        ((reply("a"), result("a"), reply("a"), result("a")), None),
        ((said("A"), reply("a"), said("B")), ["u A", "u B"]),
        ((said("A"), reply("T", "a", "b"), result("b")), ["u A", "a T b", "t b"]),
        ((said("A"), reply("a")), ["u A"]),
        ((said("A"), result("x"), reply("a"), result("a", "y")), ["u A", "a a", "t a"]),
        ((result("a"), reply("a"), said("B")), ["u B"]),
        ((reply("a"), result("a", "a")), ["a a", "t a"]),
        (
            (reply("a", "b"), result("a"), said("B"), reply("C"), result("b"), said("D")),
            ["a a b", "t b", "t a", "u B", "a C", "u D"],
        ),
    ],
)
def test_calls_and_results(messages: tuple[Message, ...], expected: list[str] | None) -> None:
    """Each result is in the turn after its call; what has no counterpart is left out. None: nothing changes."""
    made = paired(messages)
    assert shape(made) == (shape(messages) if expected is None else expected)
    assert expected is not None or list(made) == list(messages)


def test_functions_of_2023() -> None:
    """They have no ids: a result is that of the latest call."""
    call = Message(Role.ASSISTANT, (ToolCall("", "f", "{}", "function_call"),))
    answer = Message(Role.TOOL, (ToolResult("", (), type="function_call"),))
    messages = (call, said("A"), call, answer)
    assert paired(messages) == [said("A"), call, answer]
