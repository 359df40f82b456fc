"""Tests of writing a whole chat as JSON in pieces."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ConversationNotFound
from antiphon.history.base import MessagePage, MessageState, TurnEnd
from antiphon.rest.assistant.fetched import fetch
from tests.unit.memory_store import MemoryStore


class Watched(MemoryStore):
    """A store that records how many messages are read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    async def messages(self, owner: str, conversation: str, **options: Any) -> MessagePage:
        page = await super().messages(owner, conversation, **options)
        self.read.append(len(page.messages))
        return page


def user(text: str) -> Message:
    return Message(Role.USER, (Text(text),))


async def test_a_large_chat_is_read_and_written_in_pieces() -> None:
    """A large chat is read and written in pieces of little more than a message, which together are one JSON object."""
    store = Watched()
    made = await store.create("ann", title="t", source="", pinned=False, messages=[user(f"{at}" * 1_500_000) for at in range(7)])
    pieces = [piece async for piece in fetch(store, "ann", made.id, "")]
    assert max(map(len, pieces)) < 2_000_000
    assert store.read == [2, 2, 2, 1]
    chat = json.loads(b"".join(pieces))
    assert [message["content"][0] for message in chat["messages"]] == list("0123456")
    assert (chat["chatId"], chat["messageCount"], chat["branches"], chat["nextBranchToken"]) == (made.id, 7, [], None)


async def test_a_small_chat_is_one_piece() -> None:
    """A small or empty chat is one piece. A reply without output is left out."""
    store = MemoryStore()
    made = await store.create("ann", title="t", source="", pinned=False, messages=[])
    (piece,) = [piece async for piece in fetch(store, "ann", made.id, "")]
    assert (json.loads(piece)["messages"], json.loads(piece)["messageCount"]) == ([], 0)
    turn = await store.begin_turn("ann", made.id, [user("a")])
    await store.end_turn("ann", turn.reply.id, TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ())))
    await store.append("ann", made.id, [user("b")])
    (piece,) = [piece async for piece in fetch(store, "ann", made.id, "")]
    assert [message["content"] for message in json.loads(piece)["messages"]] == ["a", "b"]


async def test_a_chat_that_is_deleted_while_it_is_read_gives_invalid_json() -> None:
    """If the chat is deleted while it is written, the call raises, and the pieces so far are not valid JSON."""
    store = MemoryStore()
    made = await store.create("ann", title="t", source="", pinned=False, messages=[user("x" * 3_000_000)] * 3)
    pieces = []
    with pytest.raises(ConversationNotFound):
        async for piece in fetch(store, "ann", made.id, ""):
            pieces.append(piece)
            await store.delete("ann", made.id)
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"".join(pieces))
