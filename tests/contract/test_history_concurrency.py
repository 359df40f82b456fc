"""What holds for every store when calls meet, callers leave, and processes die."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, func, select, text, update

from antiphon.database.open import open_database
from antiphon.database.postgres import PostgresDatabase
from antiphon.database.tables import messages, workers
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ConversationNotFound, MessageNotFound, StoreUnavailable, TurnInProgress
from antiphon.history.base import MessageState, PartialReply, Store, StoredMessage, Turn, TurnEnd
from antiphon.history.recorder import Record, Recorder
from antiphon.history.sql import SqlStore

ME = "me"
PROCESS = Path(__file__).with_name("history_process.py")


def said(*texts: str) -> list[Message]:
    return [Message(Role.USER, (Text(each),)) for each in texts]


DONE = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("done"),)))
FAILED = TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ()), error_reason="INTERNAL")


def texts(found: tuple[StoredMessage, ...]) -> list[str]:
    return ["".join(part.text for part in stored.message.blocks if isinstance(part, Text)) for stored in found]


@pytest_asyncio.fixture
async def other(url: str) -> AsyncGenerator[Store, None]:
    """Another worker on the same database."""
    opened = SqlStore(open_database(url))
    yield opened
    await opened._database.close()


async def new(store: Store, *content: str) -> str:
    return (await store.create(ME, title="", source="", pinned=False, messages=said(*content))).id


async def whole_path(store: Store, conversation: str) -> tuple[StoredMessage, ...]:
    """The path, each message behind the one before, and as long as the conversation says."""
    found = (await store.messages(ME, conversation)).messages
    assert [stored.parent_id for stored in found] == [None, *(stored.id for stored in found)][: len(found)]
    now = await store.get(ME, conversation)
    assert (now.message_count, now.head_id) == (len(found), found[-1].id if found else None)
    return found


async def quiet(store: Store) -> None:
    """Until what cancelled callers have left running is at its end."""
    assert isinstance(store, SqlStore)
    if isinstance(store._database, PostgresDatabase):
        while store._database._running:
            await asyncio.wait(store._database._running)
    else:
        await store.heartbeat()  # there is one writer, which comes to it last


async def test_concurrent_appends_are_put_one_after_the_other(store: Store, other: Store) -> None:
    """16 tasks of two workers, 20 appends each of two messages: none is lost, none torn apart, each task's stay in order."""
    conversation = await new(store)

    async def write(task: int) -> None:
        for number in range(20):
            await (store, other)[task % 2].append(ME, conversation, said(f"{task} {number} a", f"{task} {number} b"))

    await asyncio.gather(*map(write, range(16)))
    found = texts(await whole_path(store, conversation))
    assert len(found) == 640
    assert all(found[at][:-1] + "b" == found[at + 1] for at in range(0, 640, 2))
    for task in range(16):
        assert [each for each in found if each.split()[0] == str(task)] == [f"{task} {n} {c}" for n in range(20) for c in "ab"]


async def test_an_expected_head_lets_one_through(store: Store, other: Store) -> None:
    """Of many appends that know the same head, one is stored."""
    conversation = await new(store, "a")
    head = (await store.get(ME, conversation)).head_id
    calls = [(store, other)[n % 2].append(ME, conversation, said(str(n)), expected_head=head) for n in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert len(await whole_path(store, conversation)) == 2


@pytest.mark.parametrize("fresh", [True, False])
async def test_one_request_id_begins_one_turn(store: Store, other: Store, *, fresh: bool) -> None:
    """However many calls carry it at once, in two workers: one writes, and all have the same turn."""
    conversation = None if fresh else await new(store)
    for number in range(5):
        calls = [(store, other)[n % 2].begin_turn(ME, conversation, said("a"), request_id=f"r{number}") for n in range(20)]
        turns = await asyncio.gather(*calls)
        assert sum(not turn.existing for turn in turns) == 1
        assert len({(turn.conversation.id, turn.reply.id) for turn in turns}) == 1
        assert all(turn.path == turns[0].path for turn in turns)
        assert len(await whole_path(store, turns[0].conversation.id)) == (2 if fresh else 2 * number + 2)
    assert len((await store.list(ME, size=50)).conversations) == (5 if fresh else 1)


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_failed_turn_is_begun_again_once(store: Store, other: Store, *, fresh: bool) -> None:
    """By however many callers at once, in two workers: one of them asks the model, the others are told that it goes on."""
    conversation = None if fresh else await new(store)
    for number in range(5):

        async def begin(by: Store, name: str = f"r{number}") -> Turn:
            return await by.begin_turn(ME, conversation, said("a"), request_id=name)

        first = await begin(store)
        assert await store.end_turn(ME, first.reply.id, FAILED)
        found = await asyncio.gather(*(begin((store, other)[n % 2]) for n in range(20)), return_exceptions=True)
        turns = [each for each in found if isinstance(each, Turn)]
        assert all(isinstance(each, Turn | TurnInProgress) for each in found)
        assert sum(not turn.existing for turn in turns) == 1
        assert {(turn.reply.id, turn.reply.state) for turn in turns} == {(first.reply.id, MessageState.IN_PROGRESS)}


async def test_a_turn_is_not_begun_again_before_its_worker_knows_that_it_ended(store: Store, other: Store) -> None:
    """The answer to the commit was lost, and the end comes again: it never ends another attempt."""
    assert isinstance(store, SqlStore)
    write = store._database.write

    async def lost(work: Callable[[Connection], Any]) -> Any:
        await write(work)
        raise StoreUnavailable

    async def begin(by: Store) -> Turn:
        return await by.begin_turn(ME, None, said("a"), request_id="r")

    first = await begin(store)
    store._database.write = lost  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await store.end_turn(ME, first.reply.id, FAILED)
    store._database.write = write  # type: ignore[method-assign]
    assert await last(store, first.conversation.id) == (MessageState.FAILED, "")
    with pytest.raises(TurnInProgress):
        await begin(store)
    assert await store.end_turn(ME, first.reply.id, FAILED)
    assert not (await begin(store)).existing
    assert await store.end_turn(ME, first.reply.id, FAILED)
    assert not (await begin(other)).existing, "another worker may at once: whose a turn is, is stored"
    assert not await store.end_turn(ME, first.reply.id, FAILED)
    assert (await begin(store)).existing
    assert await other.end_turn(ME, first.reply.id, DONE)


async def test_a_turn_whose_end_cannot_be_written_at_all_is_settled(store: Store) -> None:
    """After a fault that nobody foresaw nobody tries again: the turn does not go on until the worker is started anew."""
    assert isinstance(store, SqlStore)
    write = store._database.write

    async def fail(_: Callable[[Connection], Any]) -> Any:
        raise RuntimeError("a fault")

    turn = await store.begin_turn(ME, None, said("a"), request_id="r")
    store._database.write = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await store.end_turn(ME, turn.reply.id, DONE)
    store._database.write = write  # type: ignore[method-assign]
    assert await store.settle() == 1
    assert await last(store, turn.conversation.id) == (MessageState.FAILED, "")


async def test_a_caller_that_leaves_while_its_turn_is_begun_may_try_again(store: Store) -> None:
    """At whatever moment it left: as soon as that is written down, there is no turn that goes on."""
    recorder = Recorder(store)
    for steps in range(40):
        record = Record(ME, request_id=str(steps))
        task = asyncio.create_task(recorder.begin(record, said("a")))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result().cancel()
        await recorder.close(10)
        again = await recorder.begin(record, said("a"))
        assert not again.turn.existing
        again.cancel()
    await recorder.close(10)
    found = (await store.list(ME, size=1000)).conversations
    assert len(found) == 40
    assert {await last(store, each.id) for each in found} == {(MessageState.CANCELLED, "")}
    assert await store.settle() == 0


async def test_forks_branches_and_deletes_at_once(store: Store, other: Store, count_messages: Callable[[], Awaitable[int]]) -> None:
    """On one tree, by two workers: every conversation that is left has a whole path, and nothing is left when all are gone."""
    chance = random.Random(7)
    root = await new(store, *"abcdef")
    known = [stored.id for stored in await whole_path(store, root)]
    conversations = {root}

    async def work(task: int) -> None:
        mine = (store, other)[task % 2]
        for _ in range(25):
            at = chance.choice(sorted(conversations) or [root])
            try:
                match chance.randrange(4):
                    case 0:
                        conversations.add((await mine.fork(ME, at, message_id=chance.choice([None, *known]))).id)
                    case 1:
                        turn = await mine.begin_turn(ME, at, said("x"), parent_id=chance.choice([None, *known]))
                        known.append(turn.reply.id)
                        await mine.end_turn(ME, turn.reply.id, DONE)
                    case 2:
                        await mine.append(ME, at, said("y"))
                    case 3:
                        await mine.delete(ME, at)
                        conversations.discard(at)
            except (ConversationNotFound, MessageNotFound):
                pass

    await asyncio.gather(*map(work, range(8)))
    left = (await store.list(ME, size=1000)).conversations
    assert {each.id for each in left} == conversations
    for each in left:
        await whole_path(store, each.id)
    for each in left:
        await store.delete(ME, each.id)
    assert await count_messages() == 0


async def test_a_cancelled_caller_leaves_nothing_open(store: Store, count_messages: Callable[[], Awaitable[int]]) -> None:
    """At whatever moment it goes: its change is there whole or not at all, and the next call is not held up."""
    conversation = await new(store, "a")
    kinds: list[Callable[[], Awaitable[object]]] = [
        lambda: store.append(ME, conversation, said("b", "c")),
        lambda: store.begin_turn(ME, conversation, said("d", "e")),
        lambda: store.messages(ME, conversation),
        lambda: new(store, "f", "g"),
    ]
    for steps in range(40):
        for kind in kinds:
            task = asyncio.ensure_future(kind())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
    await quiet(store)
    await store.append(ME, conversation, said("last"))
    found = texts(await whole_path(store, conversation))
    assert found.count("b") == found.count("c")
    assert found.count("d") == found.count("e")
    assert found[-1] == "last"


async def test_a_turn_that_nobody_was_told_of_is_settled(store: Store) -> None:
    """Its caller was cancelled before it heard of it: the worker knows that it will never end it."""
    conversation = await new(store)
    told = await store.begin_turn(ME, conversation, said("told"))
    tasks = [asyncio.ensure_future(store.begin_turn(ME, conversation, said(str(n)))) for n in range(8)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await quiet(store)
    lost = [each for each in await whole_path(store, conversation) if each.state is MessageState.IN_PROGRESS]
    assert await store.settle() == len(lost) - 1
    left = [each.id for each in await whole_path(store, conversation) if each.state is MessageState.IN_PROGRESS]
    assert left == [told.reply.id]
    assert await store.settle() == 0


async def age(store: Store, seconds: int) -> None:
    """As if every worker's last heartbeat were so long ago."""
    assert isinstance(store, SqlStore)
    change = update(workers).values(seen=workers.c.seen - seconds * 1_000_000)
    await store._database.write(lambda connection: connection.execute(change).rowcount)


async def test_a_dead_workers_turns_are_settled(store: Store, other: Store) -> None:
    """Once its heartbeat is old; those that have ended stay as they are, and its conversation can go on."""
    turn = await other.begin_turn(ME, None, said("a"))
    ended = await other.begin_turn(ME, None, said("b"))
    await other.end_turn(ME, ended.reply.id, DONE)
    assert await store.settle() == 0, "it lives: to begin a turn is a sign of life"
    await age(store, 14)
    assert await store.settle() == 0
    await age(store, 2)
    assert await store.settle() == 1
    assert await store.settle() == 0
    states = [(await store.messages(ME, each.conversation.id)).messages[-1].state for each in (turn, ended)]
    assert states == [MessageState.FAILED, MessageState.COMPLETE]
    assert texts((await store.begin_turn(ME, turn.conversation.id, said("c"))).path) == ["a", "", "c"]


async def test_a_living_workers_turns_are_left_alone(store: Store, other: Store) -> None:
    """Its heartbeat is new, however old the turn."""
    await other.begin_turn(ME, None, said("a"))
    await age(store, 60)
    await other.heartbeat()
    assert await store.settle() == 0
    await age(store, 60)
    assert await other.settle() == 0, "nobody takes itself for dead"


async def test_a_worker_that_was_taken_for_dead_may_still_end_its_turn(store: Store, other: Store) -> None:
    """It was only asleep: what it has to say is worth more than a guess, and is kept."""
    turn = await other.begin_turn(ME, None, said("a"))
    await age(store, 60)
    assert await store.settle() == 1
    await other.end_turn(ME, turn.reply.id, DONE)
    reply = (await store.messages(ME, turn.conversation.id)).messages[-1]
    assert (reply.state, texts((reply,))) == (MessageState.COMPLETE, ["done"])


@pytest.mark.parametrize("makes", [True, False])
async def test_a_dead_workers_turn_of_which_nothing_was_said_is_begun_again(store: Store, other: Store, *, makes: bool) -> None:
    """By its request id, in the conversation that it made or went on with, by another worker; its messages are stored once."""
    conversation = None if makes else await new(store, "before")

    async def begin(by: Store) -> Turn:
        return await by.begin_turn(ME, conversation, said("a"), request_id="r")

    first = await begin(other)
    assert (await begin(store)).existing, "it is still going on"
    await age(store, 60)
    assert await store.settle() == 1
    assert await last(store, first.conversation.id) == (MessageState.FAILED, "")
    again = await begin(store)
    assert (again.existing, again.created_conversation, again.reply.id, again.path) == (False, False, first.reply.id, first.path)
    assert await store.settle() == 0
    await store.end_turn(ME, again.reply.id, DONE)
    assert texts(await whole_path(store, first.conversation.id)) == [*([] if makes else ["before"]), "a", "done"]
    assert await last(store, first.conversation.id) == (MessageState.COMPLETE, "done")
    assert (await begin(store)).existing


async def test_a_turn_that_another_worker_has_begun_again_is_that_ones(store: Store, other: Store) -> None:
    """One that was only asleep neither ends it, nor writes to it, nor takes back the conversation that it made."""
    turn = await other.begin_turn(ME, None, said("a"), request_id="r")
    await age(store, 60)
    await store.settle()
    again = await store.begin_turn(ME, None, said("a"), request_id="r")
    before = await store.get(ME, turn.conversation.id)
    await other.checkpoint([so_far(turn.reply.id, "late")])
    assert not await other.end_turn(ME, turn.reply.id, DONE)
    await other.drop_turn(ME, turn, TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ())))
    assert await last(store, turn.conversation.id) == (MessageState.IN_PROGRESS, "")
    assert await store.get(ME, turn.conversation.id) == before
    await store.checkpoint([so_far(again.reply.id, "he")])
    await age(store, 60)
    await other.settle()
    assert await last(store, turn.conversation.id) == (MessageState.INCOMPLETE, "he")


def so_far(reply_id: str, text: str) -> PartialReply:
    return PartialReply(reply_id, Message(Role.ASSISTANT, (Text(text),)), "m", "p")


async def last(store: Store, conversation: str) -> tuple[MessageState, str]:
    reply = (await store.messages(ME, conversation)).messages[-1]
    return reply.state, "".join(texts((reply,)))


async def test_what_was_kept_of_a_turn_outlives_its_worker(store: Store, other: Store) -> None:
    """Of several turns in one transaction; a later word takes the place of an earlier one; the rows are settled with it."""
    turns = [await other.begin_turn(ME, None, said("a")) for _ in range(3)]
    await other.checkpoint([so_far(turn.reply.id, "He") for turn in turns])
    await other.checkpoint([so_far(turn.reply.id, "Hello\0") for turn in reversed(turns)])
    await other.checkpoint([])
    for turn in turns:
        assert await last(store, turn.conversation.id) == (MessageState.IN_PROGRESS, "Hello\ufffd")
    await age(store, 60)
    assert await store.settle() == 3
    for turn in turns:
        assert await last(store, turn.conversation.id) == (MessageState.INCOMPLETE, "Hello\ufffd")
        reply = (await store.messages(ME, turn.conversation.id)).messages[-1]
        assert (reply.model, reply.provider) == ("m", "p")


async def test_a_word_that_comes_too_late_changes_nothing(store: Store, other: Store) -> None:
    """The turn has ended, was settled by another worker, belongs to another worker, or is gone with its conversation."""
    ended, settled, deleted = [await other.begin_turn(ME, None, said("a")) for _ in range(3)]
    await other.end_turn(ME, ended.reply.id, DONE)
    await other.checkpoint([so_far(settled.reply.id, "kept")])
    await store.checkpoint([so_far(settled.reply.id, "another's")])
    assert await last(store, settled.conversation.id) == (MessageState.IN_PROGRESS, "kept")
    await store.delete(ME, deleted.conversation.id)
    await age(store, 60)
    await store.settle()
    await other.checkpoint([so_far(turn.reply.id, "late") for turn in (ended, settled, deleted)])
    assert await last(store, ended.conversation.id) == (MessageState.COMPLETE, "done")
    assert await last(store, settled.conversation.id) == (MessageState.INCOMPLETE, "kept")
    await other.end_turn(ME, settled.reply.id, DONE)
    assert await last(store, settled.conversation.id) == (MessageState.COMPLETE, "done"), "it was only asleep"


def start(url: str, conversation: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(PROCESS), url, conversation, str(count)], stdout=subprocess.PIPE, text=True)


async def test_several_processes_share_a_database(store: Store, url: str) -> None:
    """Three processes and this one append to one conversation: none is lost."""
    conversation = await new(store)
    processes = [start(url, conversation, 40) for _ in range(3)]
    mine = [(await store.append(ME, conversation, said("x")))[1][0].id for _ in range(40)]
    told = set(mine)
    for process in processes:
        output, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
        told |= set(output.split())
    assert len(told) == 160
    assert {each.id for each in await whole_path(store, conversation)} == told


async def test_a_killed_process_loses_nothing_that_it_told(store: Store, url: str) -> None:
    """SIGKILL in the middle of its turns: what it said is stored is stored, and what is in progress is settled."""
    for moment in (1, 7, 20):
        conversation = await new(store)
        process = start(url, conversation, 0)
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(moment * 3)]
        process.kill()
        rest, _ = await asyncio.to_thread(process.communicate)
        # The last line may have been cut.
        lines += rest.splitlines(keepends=True)
        told = [line.split() for line in lines if line.endswith("\n")]
        # What it sent last may still be on its way: whoever locks the conversation comes behind it.
        await store.append(ME, conversation, said("last"))
        await age(store, 60)
        await store.settle()
        found = {each.id: each for each in await whole_path(store, conversation)}
        assert {line[0] for line in told} <= set(found)
        assert {found[line[0]].state for line in told if len(line) == 2} <= {MessageState.COMPLETE}
        assert MessageState.IN_PROGRESS not in {each.state for each in found.values()}
    assert isinstance(store, SqlStore)
    if url.startswith("sqlite"):
        check = text("PRAGMA integrity_check")
        assert await store._database.read(lambda connection: connection.execute(check).scalar_one()) == "ok"
    doubled = select(func.count()).select_from(messages).group_by(messages.c.parent_id, messages.c.conversation_id)
    assert set(await store._database.read(lambda connection: connection.execute(doubled).scalars().all())) == {1}
