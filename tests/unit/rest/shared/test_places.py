"""Tests of the places of thoughts among the texts and calls of a reply."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import Block, Message, RedactedThinking, Role, State, Text, Thinking, ToolCall
from antiphon.domain.events import BlockFinished, BlockStarted, InputDelta, TextDelta, ThinkingDelta
from antiphon.domain.reply import Reply
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion
from antiphon.rest.shared.content import MessageBody, message_of
from antiphon.rest.shared.message_json import message_json
from antiphon.rest.shared.places import in_place, placed
from tests.unit.scripted import START, STOP

ORIGIN = domain.Origin("anthropic", "acme", "m", "acme")

A, B, HIDDEN = Thinking("a", state=State("sa")), Thinking("b", state=State("sb")), RedactedThinking(state=State("r"))
SEALED = Thinking("", state=State("se"))
SAID, CALL, SECOND = Text("x"), ToolCall("c", "f", "{}"), ToolCall("d", "f", "{}")

REPLIES = [
    (A, SAID, CALL),
    (A, SAID, B, CALL),
    (A, HIDDEN, SAID, B, CALL, SECOND),
    (SEALED, SAID, B, CALL),
    (A, B, SAID, SEALED, CALL),
    (SAID, A, CALL, B, SECOND),
    (CALL, HIDDEN, SECOND),
    (A, CALL, B, SECOND),
    (SAID, A),
]


def kinds(blocks: tuple[Block, ...]) -> list[Any]:
    """Return what has to come back of blocks, in order."""
    return [
        (block.text if isinstance(block, Thinking) else "", block.state.opaque)
        if isinstance(block, Thinking | RedactedThinking) and block.state is not None
        else block
        for block in blocks
    ]


def events(blocks: tuple[Block, ...]) -> list[domain.Event]:
    """Return the events of a reply, whose signatures come at the end of their blocks."""
    made: list[domain.Event] = [replace(START, origin=ORIGIN)]
    for number, block in enumerate(blocks):
        match block:
            case Thinking():
                made += [BlockStarted(number, 0, Thinking("")), *(ThinkingDelta(number, piece) for piece in block.text)]
                made.append(BlockFinished(number, block.state))
            case RedactedThinking():
                made += [BlockStarted(number, 0, block), BlockFinished(number)]
            case Text():
                made += [BlockStarted(number, 0, Text("")), TextDelta(number, block.text), BlockFinished(number)]
            case ToolCall():
                start = BlockStarted(number, 0, ToolCall(block.id, block.name, ""))
                made += [start, InputDelta(number, block.arguments), BlockFinished(number)]
            case _:
                pytest.fail("another kind")
    return [*made, STOP]


def added_up(data: bytes) -> dict[str, Any]:
    """Return the message of a stream, as clients add it up."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for line in data.decode().split("\n\n"):
        delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"] if line.startswith("data: {") else {}
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        for name in ("reasoning_details", "tool_calls"):
            for entry in delta.get(name, ()):
                known = message.setdefault(name, [])
                if entry["index"] == len(known):
                    known.append(entry)
                elif name == "tool_calls":
                    known[entry["index"]]["function"]["arguments"] += entry["function"]["arguments"]
                else:
                    known[entry["index"]] |= entry
    return message


def read(message: dict[str, Any]) -> tuple[Block, ...]:
    return message_of(MessageBody.model_validate(json.loads(json.dumps(message))), ()).blocks


@pytest.mark.parametrize("blocks", REPLIES)
def test_a_reply_comes_back_as_it_was(blocks: tuple[Block, ...]) -> None:
    """Whole, streamed or from the history: each thought has its own text and signature, and stands where it stood."""
    made = events(blocks)
    reply = Reply()
    for event in made:
        reply.add(event)
    assert kinds(read(json.loads(json.dumps(completion(reply)))["choices"][0]["message"])) == kinds(blocks)
    writer = ChunkWriter(include_usage=False)
    assert kinds(read(added_up(writer.write(made)))) == kinds(blocks)
    assert kinds(read(message_json(Message(Role.ASSISTANT, blocks, origin=ORIGIN)))) == kinds(blocks)


def test_a_thought_alone_is_not_repeated() -> None:
    """The text of the first thought is sent once in a stream."""
    data = ChunkWriter(include_usage=False).write(events((Thinking("once", state=State("s")), SAID)))
    assert added_up(data)["reasoning_content"] == "once"
    assert "text" not in added_up(data)["reasoning_details"][0]


def test_a_thought_between_two_texts() -> None:
    """It comes after both, which the client has joined; what follows it stays behind it."""
    entry = {"reasoning_details": {"type": "reasoning.text", "id": "after-1-0"}}
    between = Thinking("b", state=State("sb", entry))
    assert in_place([A, between, Text("xy"), CALL]) == [A, Text("xy"), between, CALL]


@pytest.mark.parametrize("given", ["rs_1", "after-1", "after--1-0", "after-99999-0", None, 5])
def test_an_id_of_a_provider(given: object) -> None:
    """It says nothing about a place, and stays."""
    thought = Thinking("b", state=State("sb", {"reasoning_details": {"id": given}}))
    assert in_place([thought, SAID]) == [thought, SAID]
    assert placed({"id": given}, 1, 0) == {"id": given}


def test_a_place_that_is_not_there() -> None:
    """A client may have left out what came before a thought."""
    thought = Thinking("b", state=State("sb", {"reasoning_details": {"id": "after-7-7"}}))
    assert in_place([thought]) == [thought]
    assert in_place([thought, CALL]) == [CALL, thought]
