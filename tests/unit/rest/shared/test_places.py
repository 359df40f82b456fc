"""Tests of the places of thoughts among the texts and calls of a reply."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import (
    Block,
    Image,
    Media,
    Message,
    RedactedThinking,
    Refusal,
    Role,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.events import BlockFinished, BlockStarted, InputDelta, TextDelta, ThinkingDelta
from antiphon.domain.reply import Reply
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion
from antiphon.rest.shared.content import MessageBody, message_of
from antiphon.rest.shared.message_json import message_json
from antiphon.rest.shared.places import BlockPlace, in_place, place_of, placed
from tests.unit.scripted import START, STOP

ORIGIN = domain.Origin("anthropic", "acme", "m", "acme")

A, B, HIDDEN = Thinking("a", state=State("sa")), Thinking("b", state=State("sb")), RedactedThinking(state=State("r"))
SEALED = Thinking("", state=State("se"))
SIGNED, LAST = Text("uv", state=State("s1")), Text("", state=State("s2"))
"""As Gemini signs texts: often there is an empty last one."""
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
    (A, SAID, B, Text("yz")),
    (A, SAID, B, Text("yz"), SEALED, Text("\n\N{EARTH GLOBE AMERICAS}"), CALL, HIDDEN, SECOND),
    (A, CALL, B, SAID),
    (SIGNED,),
    (SAID, LAST),
    (SIGNED, LAST),
    (A, SIGNED, SAID, LAST),
    (SAID, SIGNED, SAID, Text("s", state=State("s3"))),
    (LAST, CALL),
    (SIGNED, CALL, LAST),
    (SIGNED, A, LAST, SAID),
]


def kinds(blocks: tuple[Block, ...]) -> list[Any]:
    """Return what has to come back of blocks, in order."""
    return [
        replace(block, state=None if block.state is None else (block.state.opaque, block.state.fields, block.state.item))
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
                pieces = [TextDelta(number, piece) for piece in block.text]
                made += [BlockStarted(number, 0, replace(block, text="")), *pieces, BlockFinished(number)]
            case ToolCall():
                start = BlockStarted(number, 0, ToolCall(block.id, block.name, ""))
                made += [start, InputDelta(number, block.arguments), BlockFinished(number)]
            case _:
                pytest.fail("another kind")
    return [*made, STOP]


def added_up(data: bytes, *, joins: bool = False) -> dict[str, Any]:
    """Return the message of a stream, as clients add it up. `joins`: signatures are concatenated, else the last one stays."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for line in data.decode().split("\n\n"):
        delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"] if line.startswith("data: {") else {}
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        if "extra_content" in delta:
            known = message.get("extra_content", {"google": {"thought_signature": ""}})["google"]["thought_signature"]
            signature = (known if joins else "") + delta["extra_content"]["google"]["thought_signature"]
            message["extra_content"] = {"google": {"thought_signature": signature}}
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
    for joins in (True, False):
        assert kinds(read(added_up(ChunkWriter(include_usage=False).write(made), joins=joins))) == kinds(blocks)
        one_by_one = ChunkWriter(include_usage=False)
        assert kinds(read(added_up(b"".join(one_by_one.write([event]) for event in made), joins=joins))) == kinds(blocks)
    assert kinds(read(message_json(Message(Role.ASSISTANT, blocks, origin=ORIGIN)))) == kinds(blocks)


def test_a_thought_alone_is_not_repeated() -> None:
    """The text of the first thought is sent once in a stream."""
    data = ChunkWriter(include_usage=False).write(events((Thinking("once", state=State("s")), SAID)))
    assert added_up(data)["reasoning_content"] == "once"
    assert "text" not in added_up(data)["reasoning_details"][0]


def test_a_thought_between_two_texts() -> None:
    """It cuts the text, which the client has joined. An earlier version did not say where; then it comes after both."""
    between = Thinking("b", state=State("sb"))
    blocks = [A, between, Text("xy"), CALL]
    assert in_place(blocks, [None, BlockPlace(1, 0, 1)]) == [A, Text("x"), between, Text("y"), CALL]
    assert in_place(blocks, [None, BlockPlace(1, 0, None)]) == [A, Text("xy"), between, CALL]


@pytest.mark.parametrize("given", ["rs_1", "after-1", "after--1-0", "after-99999-0", "after-1-0-x", None, 5])
def test_an_id_of_a_provider(given: object) -> None:
    """It says nothing about a place, and stays."""
    assert place_of({"id": given}) is None
    assert placed({"id": given}, BlockPlace(1)) == {"id": given}


def test_a_place_in_an_entry() -> None:
    """It is an id, unless nothing came before. That of an earlier version has no number of characters."""
    assert placed({}, BlockPlace()) == {}
    assert placed({}, BlockPlace(2, 1, 7)) == {"id": "after-2-1-7"}
    assert place_of({"id": "after-2-1-7"}) == BlockPlace(2, 1, 7)
    assert place_of({"id": "after-2-1"}) == BlockPlace(2, 1, None)


def test_a_place_that_is_not_there() -> None:
    """A client may have left out what came before a thought, or have made the text shorter."""
    place = BlockPlace(7, 7, 7)
    assert in_place([A], [place]) == [A]
    assert in_place([A, CALL], [place]) == [CALL, A]
    assert in_place([A, SAID, CALL], [place]) == [SAID, CALL, A]


def test_a_text_that_a_client_has_changed() -> None:
    """Its pieces are not found, so that it keeps the last state, as a text without pieces has it."""
    states = [(BlockPlace(0, 0, 0, 4), State("a")), (BlockPlace(1, 0, 4, 9), State("b"))]
    assert in_place([Text("short")], [], states) == [Text("short", state=State("b"))]
    assert in_place([Text("ab"), Text("cdefghi")], [], states) == [Text("ab"), Text("cdefghi", state=State("b"))]
    marked = Text("abcdefghi", extra={"x": 1})
    assert in_place([marked], [], states) == [replace(marked, state=State("b"))]
    overlap = [(BlockPlace(0, 0, 3, 3), State("a")), (BlockPlace(1, 0, 1, 4), State("b"))]
    assert in_place([Text("abcd"), CALL], [], overlap) == [Text("abcd", state=State("b")), CALL]


def test_other_blocks_stay_between_the_text_and_the_calls() -> None:
    """Pictures and refusals have no places of their own."""
    image, refusal = Image(Media("u")), Refusal("no")
    assert in_place([A, B, SAID, refusal, image, CALL], [None, BlockPlace(1, 1, 1)]) == [A, SAID, refusal, image, CALL, B]
