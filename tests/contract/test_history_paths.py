"""What a worker keeps of a conversation saves reads, and never differs from the database, whoever else writes there."""

import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from antiphon.database.open import open_database
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ConversationNotFound, MessageNotFound
from antiphon.history import rows, tree
from antiphon.history.base import BEGINNING, MessageState, PartialReply, Store, Turn, TurnEnd
from antiphon.history.paths import AGE, Paths
from antiphon.history.sql import SqlStore

ME = "me"
EMPTY = Message(Role.ASSISTANT, ())
ENDS = [
    TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("done"),))),
    TurnEnd(MessageState.INCOMPLETE, Message(Role.ASSISTANT, (Text("half"),))),
    TurnEnd(MessageState.CANCELLED, EMPTY),
    TurnEnd(MessageState.FAILED, EMPTY, error_reason="INTERNAL"),
]


def user(*texts: str) -> list[Message]:
    return [Message(Role.USER, (Text(each),)) for each in texts]


@pytest_asyncio.fixture
async def other(url: str) -> AsyncGenerator[SqlStore, None]:
    """Yield the store of another worker on the same database."""
    opened = SqlStore(open_database(url))
    yield opened
    await opened._database.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the rows that are read from now on."""
    ids: list[str] = []
    stored = rows.stored

    def see(row: Sequence[Any]) -> Any:
        ids.append(row[0])
        return stored(row)

    monkeypatch.setattr(rows, "stored", see)
    return ids


async def new(store: Store, *texts: str) -> str:
    return (await store.create(ME, title="", source="", pinned=False, messages=user(*texts))).id


async def turn(store: Store, conversation: str, text: str, end: TurnEnd = ENDS[0]) -> Turn:
    begun = await store.begin_turn(ME, conversation, user(text))
    await store.end_turn(ME, begun.reply.id, end)
    return begun


async def test_a_turn_reads_only_what_is_new(store: Store, other: SqlStore, read: list[str]) -> None:
    """A worker reads a conversation once, and from then on what was added, by itself or by another worker."""
    conversation = await new(store, *map(str, range(20)))
    first = await turn(store, conversation, "a")
    read.clear()
    second = await turn(store, conversation, "b")
    assert read == [first.path[-1].id, first.reply.id], "neither what was known nor what it stored itself"
    third = await turn(other, conversation, "c")
    read.clear()
    fourth = await turn(store, conversation, "d")
    added = [second.path[-1], second.reply, third.path[-1], third.reply]
    assert read == [each.id for each in added]
    assert [each.id for each in fourth.path[:20]] == [each.id for each in first.path[:20]]


async def test_a_reply_that_may_change_is_read_each_time(store: Store, other: SqlStore) -> None:
    """A reply that another worker ends, or that was ended too early, is not kept as it was."""
    conversation = await new(store, "a")
    begun = await other.begin_turn(ME, conversation, user("b"))
    assert (await turn(store, conversation, "c")).path[2].state is MessageState.IN_PROGRESS
    await other.checkpoint([PartialReply(begun.reply.id, Message(Role.ASSISTANT, (Text("so far"),)), "m", "p")])
    assert (await turn(store, conversation, "d")).path[2].message.blocks == (Text("so far"),)
    await other.end_turn(ME, begun.reply.id, ENDS[0])
    assert (await turn(store, conversation, "e")).path[2].message.blocks == (Text("done"),)


async def test_a_deleted_conversation_is_not_found(store: Store, other: SqlStore) -> None:
    """What a worker keeps does not outlive the conversation; a fork of it is complete."""
    conversation = await new(store, "a", "b")
    await turn(store, conversation, "c")
    fork = (await other.fork(ME, conversation)).id
    await other.delete(ME, conversation)
    with pytest.raises(ConversationNotFound):
        await turn(store, conversation, "d")
    assert len((await turn(store, fork, "e")).path) == 5


async def test_every_path_is_that_of_the_database(store: Store, other: SqlStore) -> None:
    """Each turn begins with the path that is stored, whatever two workers did with the conversations before."""
    chance = random.Random(3)
    conversations = [await new(store, *"abc"), await new(store)]
    known: list[str] = []
    for number in range(120):
        by: Store = chance.choice((store, other))
        at = chance.choice(conversations)
        match chance.randrange(6):
            case 0:
                await by.append(ME, at, user("added"))
            case 1:
                conversations.append((await by.fork(ME, at, message_id=None)).id)
            case _:
                try:
                    parent = chance.choice([None, None, None, BEGINNING, *known[-4:]])
                    begun = await by.begin_turn(ME, at, user(f"turn {number}"), parent_id=parent)
                except MessageNotFound:
                    continue
                stored = (await store.messages(ME, at)).messages
                assert (*begun.path, begun.reply) == stored
                known += [begun.path[-1].id, begun.reply.id]
                await by.end_turn(ME, begun.reply.id, chance.choice(ENDS))


async def test_what_is_kept_is_bounded(store: Store, read: list[str]) -> None:
    """The paths used longest ago are dropped for others and after a while, and one that is too large is not kept."""
    assert isinstance(store, SqlStore)
    database, now = store._database, 0.0
    paths = Paths(10_000, lambda: now)
    small = [await new(store, "x" * 4000) for _ in range(3)]
    large = await new(store, *["x" * 4000] * 3)

    async def count_read(conversation: str) -> int:
        """Return how many messages have to be read for the path of a conversation."""

        def work(connection: Any) -> int:
            row = tree.find(connection, ME, conversation)
            read.clear()
            found = paths.read(connection, row, row.head_id)
            assert len(found) == row.message_count
            return len(read)

        return await database.read(work)

    assert [await count_read(each) for each in (*small[:2], *small[:2])] == [1, 1, 0, 0]
    assert [await count_read(each) for each in (small[2], small[1], small[0])] == [1, 0, 1]
    assert [await count_read(large) for _ in range(2)] == [3, 3]
    assert await count_read(small[0]) == 0
    now = AGE - 1
    paths.forget()
    assert await count_read(small[0]) == 0
    now += AGE + 1
    paths.forget()
    assert await count_read(small[0]) == 1
