"""The behaviour of every store under concurrent calls, cancelled callers and killed processes."""

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


def user_messages(*texts: str) -> list[Message]:
    return [Message(Role.USER, (Text(each),)) for each in texts]


DONE = TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("done"),)))
FAILED = TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ()), error_reason="INTERNAL")


def texts(found: tuple[StoredMessage, ...]) -> list[str]:
    return ["".join(part.text for part in stored.message.blocks if isinstance(part, Text)) for stored in found]


@pytest_asyncio.fixture
async def other(url: str) -> AsyncGenerator[Store, None]:
    """Yield the store of another worker on the same database."""
    opened = SqlStore(open_database(url))
    yield opened
    await opened._database.close()


async def new(store: Store, *content: str) -> str:
    return (await store.create(ME, title="", source="", pinned=False, messages=user_messages(*content))).id


async def whole_path(store: Store, conversation: str) -> tuple[StoredMessage, ...]:
    """Return the path, and check that each message follows the one before and that the count is right."""
    found = (await store.messages(ME, conversation)).messages
    assert [stored.parent_id for stored in found] == [None, *(stored.id for stored in found)][: len(found)]
    now = await store.get(ME, conversation)
    assert (now.message_count, now.head_id) == (len(found), found[-1].id if found else None)
    return found


async def finish_cancelled_work(store: Store) -> None:
    """Wait until everything that cancelled callers have left running is done."""
    assert isinstance(store, SqlStore)
    if isinstance(store._database, PostgresDatabase):
        while store._database._running:
            await asyncio.wait(store._database._running)
    else:
        await store.heartbeat()  # SQLite has one writer, which runs this after everything else


async def test_concurrent_appends_are_put_one_after_the_other(store: Store, other: Store) -> None:
    """Concurrent appends by two workers are all stored, none is split, and each task's stay in order."""
    conversation = await new(store)

    async def write(task: int) -> None:
        for number in range(20):
            await (store, other)[task % 2].append(ME, conversation, user_messages(f"{task} {number} a", f"{task} {number} b"))

    await asyncio.gather(*map(write, range(16)))
    found = texts(await whole_path(store, conversation))
    assert len(found) == 640
    assert all(found[at][:-1] + "b" == found[at + 1] for at in range(0, 640, 2))
    for task in range(16):
        assert [each for each in found if each.split()[0] == str(task)] == [f"{task} {n} {c}" for n in range(20) for c in "ab"]


async def test_an_expected_head_lets_one_through(store: Store, other: Store) -> None:
    """Of many appends that expect the same head, exactly one is stored."""
    conversation = await new(store, "a")
    head = (await store.get(ME, conversation)).head_id
    calls = [(store, other)[n % 2].append(ME, conversation, user_messages(str(n)), expected_head=head) for n in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert len(await whole_path(store, conversation)) == 2


@pytest.mark.parametrize("fresh", [True, False])
async def test_one_request_id_begins_one_turn(store: Store, other: Store, *, fresh: bool) -> None:
    """Of many concurrent calls with one request id, one writes the turn, and all get the same one."""
    conversation = None if fresh else await new(store)
    for number in range(5):
        calls = [(store, other)[n % 2].begin_turn(ME, conversation, user_messages("a"), request_id=f"r{number}") for n in range(20)]
        turns = await asyncio.gather(*calls)
        assert sum(not turn.existing for turn in turns) == 1
        assert len({(turn.conversation.id, turn.reply.id) for turn in turns}) == 1
        assert all(turn.path == turns[0].path for turn in turns)
        assert len(await whole_path(store, turns[0].conversation.id)) == (2 if fresh else 2 * number + 2)
    assert len((await store.list(ME, size=50)).conversations) == (5 if fresh else 1)


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_failed_turn_is_begun_again_once(store: Store, other: Store, *, fresh: bool) -> None:
    """Of many concurrent retries of a failed turn, one restarts it, and the others get `TurnInProgress`."""
    conversation = None if fresh else await new(store)
    for number in range(5):

        async def begin(by: Store, name: str = f"r{number}") -> Turn:
            return await by.begin_turn(ME, conversation, user_messages("a"), request_id=name)

        first = await begin(store)
        assert await store.end_turn(ME, first.reply.id, FAILED)
        found = await asyncio.gather(*(begin((store, other)[n % 2]) for n in range(20)), return_exceptions=True)
        turns = [each for each in found if isinstance(each, Turn)]
        assert all(isinstance(each, Turn | TurnInProgress) for each in found)
        assert sum(not turn.existing for turn in turns) == 1
        assert {(turn.reply.id, turn.reply.state) for turn in turns} == {(first.reply.id, MessageState.IN_PROGRESS)}


async def test_a_turn_is_not_begun_again_before_its_worker_knows_that_it_ended(store: Store, other: Store) -> None:
    """A turn restarts only when its worker knows that it ended, so that a repeated end never ends another attempt."""
    assert isinstance(store, SqlStore)
    write = store._database.write

    async def lost(work: Callable[[Connection], Any], **options: Any) -> Any:
        await write(work, **options)
        raise StoreUnavailable

    async def begin(by: Store) -> Turn:
        return await by.begin_turn(ME, None, user_messages("a"), request_id="r")

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
    assert not (await begin(other)).existing, "another worker may at once, because the turn's worker is stored"
    assert not await store.end_turn(ME, first.reply.id, FAILED)
    assert (await begin(store)).existing
    assert await other.end_turn(ME, first.reply.id, DONE)


async def test_a_turn_whose_end_cannot_be_written_at_all_is_settled(store: Store) -> None:
    """A turn whose end failed with an unexpected error is settled, and does not stay in progress."""
    assert isinstance(store, SqlStore)
    write = store._database.write

    async def fail(_: Callable[[Connection], Any], **_options: Any) -> Any:
        raise RuntimeError("a fault")

    turn = await store.begin_turn(ME, None, user_messages("a"), request_id="r")
    store._database.write = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await store.end_turn(ME, turn.reply.id, DONE)
    store._database.write = write  # type: ignore[method-assign]
    assert await store.settle() == 1
    assert await last(store, turn.conversation.id) == (MessageState.FAILED, "")


async def test_a_caller_that_leaves_while_its_turn_is_begun_may_try_again(store: Store) -> None:
    """A caller cancelled at any moment of `begin` may retry as soon as the cancellation is stored."""
    recorder = Recorder(store)
    for steps in range(40):
        record = Record(ME, request_id=str(steps))
        task = asyncio.create_task(recorder.begin(record, user_messages("a")))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result().cancel()
        await recorder.close(10)
        again = await recorder.begin(record, user_messages("a"))
        assert not again.turn.existing
        again.cancel()
    await recorder.close(10)
    found = (await store.list(ME, size=1000)).conversations
    assert len(found) == 40
    assert {await last(store, each.id) for each in found} == {(MessageState.CANCELLED, "")}
    assert await store.settle() == 0


async def test_forks_branches_and_deletes_at_once(store: Store, other: Store, count_messages: Callable[[], Awaitable[int]]) -> None:
    """After concurrent forks, branches and deletes, every path is complete, and deleting all leaves no message."""
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
                        turn = await mine.begin_turn(ME, at, user_messages("x"), parent_id=chance.choice([None, *known]))
                        known.append(turn.reply.id)
                        await mine.end_turn(ME, turn.reply.id, DONE)
                    case 2:
                        await mine.append(ME, at, user_messages("y"))
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
    """A cancelled caller's change is stored completely or not at all, and does not block the next call."""
    conversation = await new(store, "a")
    kinds: list[Callable[[], Awaitable[object]]] = [
        lambda: store.append(ME, conversation, user_messages("b", "c")),
        lambda: store.begin_turn(ME, conversation, user_messages("d", "e")),
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
    await finish_cancelled_work(store)
    await store.append(ME, conversation, user_messages("last"))
    found = texts(await whole_path(store, conversation))
    assert found.count("b") == found.count("c")
    assert found.count("d") == found.count("e")
    assert found[-1] == "last"


async def test_a_turn_whose_caller_was_cancelled_is_settled(store: Store) -> None:
    """A turn whose caller was cancelled before it got the result is settled by its worker."""
    conversation = await new(store)
    known = await store.begin_turn(ME, conversation, user_messages("known"))
    tasks = [asyncio.ensure_future(store.begin_turn(ME, conversation, user_messages(str(n)))) for n in range(8)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await finish_cancelled_work(store)
    lost = [each for each in await whole_path(store, conversation) if each.state is MessageState.IN_PROGRESS]
    assert await store.settle() == len(lost) - 1
    left = [each.id for each in await whole_path(store, conversation) if each.state is MessageState.IN_PROGRESS]
    assert left == [known.reply.id]
    assert await store.settle() == 0


async def age(store: Store, seconds: int) -> None:
    """Make every worker's last heartbeat look this old."""
    assert isinstance(store, SqlStore)
    change = update(workers).values(seen=workers.c.seen - seconds * 1_000_000)
    await store._database.write(lambda connection: connection.execute(change).rowcount)


async def test_a_dead_workers_turns_are_settled(store: Store, other: Store) -> None:
    """Turns of a worker with an old heartbeat are settled, ended ones do not change, and the conversation can go on."""
    turn = await other.begin_turn(ME, None, user_messages("a"))
    ended = await other.begin_turn(ME, None, user_messages("b"))
    await other.end_turn(ME, ended.reply.id, DONE)
    assert await store.settle() == 0, "it is alive: beginning a turn counts as a heartbeat"
    await age(store, 14)
    assert await store.settle() == 0
    await age(store, 2)
    assert await store.settle() == 1
    assert await store.settle() == 0
    states = [(await store.messages(ME, each.conversation.id)).messages[-1].state for each in (turn, ended)]
    assert states == [MessageState.FAILED, MessageState.COMPLETE]
    assert texts((await store.begin_turn(ME, turn.conversation.id, user_messages("c"))).path) == ["a", "", "c"]


async def test_a_living_workers_turns_are_left_alone(store: Store, other: Store) -> None:
    """Turns of a worker with a recent heartbeat are not settled, however old they are."""
    await other.begin_turn(ME, None, user_messages("a"))
    await age(store, 60)
    await other.heartbeat()
    assert await store.settle() == 0
    await age(store, 60)
    assert await other.settle() == 0, "a worker never settles its own turns as a dead one's"


async def test_a_worker_that_was_taken_for_dead_may_still_end_its_turn(store: Store, other: Store) -> None:
    """A worker that was only slow may still end its settled turn, because its reply is better than a guess."""
    turn = await other.begin_turn(ME, None, user_messages("a"))
    await age(store, 60)
    assert await store.settle() == 1
    await other.end_turn(ME, turn.reply.id, DONE)
    reply = (await store.messages(ME, turn.conversation.id)).messages[-1]
    assert (reply.state, texts((reply,))) == (MessageState.COMPLETE, ["done"])


@pytest.mark.parametrize("makes", [True, False])
async def test_a_dead_workers_turn_without_text_is_begun_again(store: Store, other: Store, *, makes: bool) -> None:
    """A dead worker's turn without text can be restarted by another worker under its request id; its messages are stored once."""
    conversation = None if makes else await new(store, "before")

    async def begin(by: Store) -> Turn:
        return await by.begin_turn(ME, conversation, user_messages("a"), request_id="r")

    first = await begin(other)
    assert (await begin(store)).existing, "it is still in progress"
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


async def test_a_turn_belongs_to_the_worker_that_restarted_it(store: Store, other: Store) -> None:
    """After another worker has restarted a turn, the slow first worker can no longer write to it, end it or drop it."""
    turn = await other.begin_turn(ME, None, user_messages("a"), request_id="r")
    await age(store, 60)
    await store.settle()
    again = await store.begin_turn(ME, None, user_messages("a"), request_id="r")
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


async def test_checkpoints_survive_their_worker(store: Store, other: Store) -> None:
    """Checkpoints of several turns survive their worker, and the latest one counts."""
    turns = [await other.begin_turn(ME, None, user_messages("a")) for _ in range(3)]
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


async def test_a_late_checkpoint_changes_nothing(store: Store, other: Store) -> None:
    """A late checkpoint changes nothing if the turn has ended, was settled, belongs to another worker, or is deleted."""
    ended, settled, deleted = [await other.begin_turn(ME, None, user_messages("a")) for _ in range(3)]
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
    assert await last(store, settled.conversation.id) == (MessageState.COMPLETE, "done"), "the worker was only slow"


def start(url: str, conversation: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(PROCESS), url, conversation, str(count)], stdout=subprocess.PIPE, text=True)


async def test_several_processes_share_a_database(store: Store, url: str) -> None:
    """Several processes append to one conversation, and no message is lost."""
    conversation = await new(store)
    processes = [start(url, conversation, 40) for _ in range(3)]
    mine = [(await store.append(ME, conversation, user_messages("x")))[1][0].id for _ in range(40)]
    reported = set(mine)
    for process in processes:
        output, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
        reported |= set(output.split())
    assert len(reported) == 160
    assert {each.id for each in await whole_path(store, conversation)} == reported


async def test_a_killed_process_loses_nothing_that_it_reported(store: Store, url: str) -> None:
    """After SIGKILL everything that the process has reported is stored, and its turns in progress are settled."""
    for moment in (1, 7, 20):
        conversation = await new(store)
        process = start(url, conversation, 0)
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(moment * 3)]
        process.kill()
        rest, _ = await asyncio.to_thread(process.communicate)
        # The last line may have been cut.
        lines += rest.splitlines(keepends=True)
        reported = [line.split() for line in lines if line.endswith("\n")]
        # Its last write may still be running; this append waits for its lock.
        await store.append(ME, conversation, user_messages("last"))
        await age(store, 60)
        await store.settle()
        found = {each.id: each for each in await whole_path(store, conversation)}
        assert {line[0] for line in reported} <= set(found)
        assert {found[line[0]].state for line in reported if len(line) == 2} <= {MessageState.COMPLETE}
        assert MessageState.IN_PROGRESS not in {each.state for each in found.values()}
    assert isinstance(store, SqlStore)
    if url.startswith("sqlite"):
        check = text("PRAGMA integrity_check")
        assert await store._database.read(lambda connection: connection.execute(check).scalar_one()) == "ok"
    doubled = select(func.count()).select_from(messages).group_by(messages.c.parent_id, messages.c.conversation_id)
    assert set(await store._database.read(lambda connection: connection.execute(doubled).scalars().all())) == {1}
