"""A reply that a client received stays stored, through kills of the server and failures of the database."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import READY, Gateway
from tests.e2e.test_grpc import METADATA, reason
from tests.e2e.test_up import ECHO, children
from tests.odd_upstream import HANG, LAST, OddUpstream, chunk, delta, head, sse
from tests.postgres import Postgres
from tests.waiting import until

KILLS = int(os.environ.get("ANTIPHON_TEST_KILLS", "6"))
"""How often the server is killed; more for a longer test."""

WRITERS = 16


class ReceivedTurn(NamedTuple):
    """A turn whose complete reply a client received."""

    conversation: str
    message: str
    request: str
    prompt: str
    reply: str


def turn(prompt: str, request: str, conversation: str = "", model: str = "echo") -> chat_pb2.GenerateRequest:
    return chat_pb2.GenerateRequest(
        model=model,
        messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=prompt))])],
        recording=chat_pb2.Recording(conversation_id=conversation, request_id=request),
    )


async def write(stub: chat_pb2_grpc.ChatServiceStub, number: int, received: list[ReceivedTurn], stop: asyncio.Event) -> None:
    """Act as one client: record conversations of five turns, and retry a failed turn under the same request id, until `stop`."""
    conversation, turns, count = "", 0, 0
    while not stop.is_set():
        count += 1
        request = f"{number}-{count}"
        prompt = f"{request} {random.random()}"
        while not stop.is_set():
            try:
                answer = await stub.Generate(turn(prompt, request, conversation), metadata=METADATA, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ABORTED:
                    break  # the turn broke off with the server that was killed, or is not settled yet
                await asyncio.sleep(0.02)
            else:
                text = answer.choices[0].message.blocks[0].text.text
                received.append(ReceivedTurn(answer.conversation_id, answer.message_id, request, prompt, text))
                conversation, turns = answer.conversation_id, turns + 1
                break
        if turns == 5:
            conversation, turns = "", 0


async def stored(stub: history_pb2_grpc.HistoryServiceStub) -> dict[str, list[Any]]:
    """Return every conversation with its messages."""
    found: dict[str, list[Any]] = {}
    token = ""
    while True:
        page = await stub.ListConversations(
            history_pb2.ListConversationsRequest(page_size=1000, page_token=token), metadata=METADATA
        )
        for conversation in page.conversations:
            request = history_pb2.ListMessagesRequest(conversation_id=conversation.id, page_size=1000)
            found[conversation.id] = list((await stub.ListMessages(request, metadata=METADATA)).messages)
        token = page.next_page_token
        if not token:
            return found


@pytest_asyncio.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], loop_scope="session")
async def recorded(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: OddUpstream
) -> AsyncGenerator[tuple[Gateway, Postgres | None], None]:
    """Yield a gateway with a history, and its PostgreSQL if it has one, for each kind of database."""
    postgres: Postgres | None = None
    url = f"sqlite:///{tmp_path}/history.db"
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        assert postgres is not None
        name = f"t{random.randrange(10**9)}"
        postgres.run(f"CREATE DATABASE {name}")
        url = postgres.url_of(name)
    odd = {"base_url": upstream.base_url, "models": ["odd-*"]}
    config = {**ECHO, "providers": {**ECHO["providers"], "odd": odd}, "database": {"url": url, "timeout": 2}}
    gateway = Gateway(tmp_path, config)
    await asyncio.to_thread(gateway.wait_for, READY)
    yield gateway, postgres
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "pg-password" not in gateway.output_text


@pytest.mark.timeout(240)
@pytest.mark.slow
async def test_no_received_turn_is_lost_when_the_server_is_killed(recorded: tuple[Gateway, Postgres | None]) -> None:
    """Under load and kills, every turn whose reply a client received is stored once, and no turn is left in progress."""
    gateway, _ = recorded
    received: list[ReceivedTurn] = []
    stop = asyncio.Event()
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        writers = [asyncio.create_task(write(stub, number, received, stop)) for number in range(WRITERS)]
        for _ in range(KILLS):
            enough = len(received) + 20 + random.randrange(40)  # the server works again, and is killed at a random moment
            await until(lambda: len(received) >= enough)  # noqa: B023 - awaited here
            for worker in children(gateway, "antiphon.worker"):
                os.kill(worker, signal.SIGKILL)
        stop.set()
        await asyncio.gather(*writers)
        history = history_pb2_grpc.HistoryServiceStub(channel)

        async def settled() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                states = {message.state for messages in (await stored(history)).values() for message in messages}
                return history_pb2.MESSAGE_STATE_IN_PROGRESS not in states
            return False

        await until(settled, 60)  # turns of a dead process are settled within seconds
        found = await stored(history)
    assert len(received) > KILLS * 20
    by_id = {message.id: message for messages in found.values() for message in messages}
    for turn_ in received:
        assert by_id[turn_.message].message.blocks[0].text.text == turn_.reply == f"You said: {turn_.prompt}"
        assert by_id[turn_.message].state == history_pb2.MESSAGE_STATE_COMPLETE
        matches = [m for m in found[turn_.conversation] if m.message.blocks and m.message.blocks[0].text.text == turn_.prompt]
        assert len(matches) == 1, "it is stored once"
    for messages in found.values():  # each path is complete
        assert [message.parent_message_id for message in messages] == ["", *(message.id for message in messages)][:-1]


async def test_a_caller_that_leaves_has_its_partial_reply_stored(
    recorded: tuple[Gateway, Postgres | None], upstream: OddUpstream
) -> None:
    """If the caller leaves, the partial reply is stored as cancelled."""
    gateway, _ = recorded
    upstream.script("odd-left", [head(), chunk(sse(delta("Hel"), delta("lo 🎼"))), HANG])
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(turn("Hi", "r1", model="odd-left"), metadata=METADATA)
        started = (await call.read()).events[0].started
        call.cancel()
        history = history_pb2_grpc.HistoryServiceStub(channel)

        async def settled() -> bool:
            return (await stored(history))[started.conversation_id][-1].state != history_pb2.MESSAGE_STATE_IN_PROGRESS

        await until(settled)
        found = (await stored(history))[started.conversation_id]
    assert [message.state for message in found] == [history_pb2.MESSAGE_STATE_COMPLETE, history_pb2.MESSAGE_STATE_CANCELLED]
    assert found[1].message.blocks[0].text.text == "Hello 🎼"


async def test_the_text_of_a_reply_survives_its_worker(recorded: tuple[Gateway, Postgres | None], upstream: OddUpstream) -> None:
    """If a worker is killed in mid-stream, the text so far stays, and its successor soon marks the reply as incomplete."""
    gateway, _ = recorded
    upstream.script("odd-slow", [head(), chunk(sse(delta("Never "), delta("lose a word 🎼"))), HANG])
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(turn("Hi", "", model="odd-slow"), metadata=METADATA)
        started = (await call.read()).events[0].started
        history = history_pb2_grpc.HistoryServiceStub(channel)
        (worker,) = children(gateway, "antiphon.worker")
        found: list[Any] = []

        async def look() -> Any:
            """Return the last message."""
            nonlocal found
            with contextlib.suppress(grpc.aio.AioRpcError):
                found = (await stored(history))[started.conversation_id]
            return found[-1]

        async def has_text() -> bool:
            return bool((await look()).message.blocks)

        async def settled() -> bool:
            return (await look()).state != history_pb2.MESSAGE_STATE_IN_PROGRESS

        await until(has_text)
        assert found[-1].state == history_pb2.MESSAGE_STATE_IN_PROGRESS
        os.kill(worker, signal.SIGKILL)
        await until(settled)
        with pytest.raises(grpc.aio.AioRpcError):
            while await call.read():
                pass
    assert gateway.process.poll() is None
    assert found[-1].state == history_pb2.MESSAGE_STATE_INCOMPLETE
    assert found[-1].message.blocks[0].text.text == "Never lose a word 🎼"
    assert (found[-1].model, found[-1].provider) == ("odd-model", "odd")


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_turn_whose_worker_was_killed_before_a_word_is_tried_again(
    recorded: tuple[Gateway, Postgres | None], upstream: OddUpstream, *, goes_on: bool
) -> None:
    """A turn whose worker was killed before any text can be retried under its request id.

    The retry is first refused as in progress, then answered by the model in the same place, and stored once.
    """
    gateway, _ = recorded
    model = f"odd-killed-{gateway.rest.rpartition(':')[2]}-{goes_on}"
    upstream.script(model, [HANG])

    def request_count() -> int:
        return sum(bool(request.body) and request.json["model"] == model for request in upstream.requests)

    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        history = history_pb2_grpc.HistoryServiceStub(channel)
        before = (await stub.Generate(turn("One", ""), metadata=METADATA)).conversation_id if goes_on else ""
        request = turn("Hi", "again", before, model)
        call = stub.Generate(request, metadata=METADATA)
        await until(lambda: request_count() or call.done())
        assert not call.done()
        (worker,) = children(gateway, "antiphon.worker")
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        upstream.script(model, [head(), chunk(sse(delta("Hello", "stop"), "[DONE]")), LAST])
        answer: Any = None

        async def answered() -> bool:
            nonlocal answer
            try:
                answer = await stub.Generate(request, metadata=METADATA)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE and reason(error) != "TURN_IN_PROGRESS":
                    raise
            return answer is not None

        await until(answered, 30)
        assert answer.choices[0].message.blocks[0].text.text == "Hello"
        assert answer.conversation_id == before or not goes_on
        assert (await stub.Generate(request, metadata=METADATA)).message_id == answer.message_id
        found = await stored(history)
    assert request_count() == 2
    assert list(found) == [answer.conversation_id]
    states = [(message.message.blocks[0].text.text, message.state) for message in found[answer.conversation_id]][-2:]
    assert states == [("Hi", history_pb2.MESSAGE_STATE_COMPLETE), ("Hello", history_pb2.MESSAGE_STATE_COMPLETE)]
    assert len(found[answer.conversation_id]) == (4 if goes_on else 2)


@pytest.mark.slow
async def test_calls_survive_a_database_that_hangs_or_stops(recorded: tuple[Gateway, Postgres | None]) -> None:
    """If the database hangs or stops, recorded calls fail with a clear error within the time-out.

    Calls that are not recorded go on. When the database is back, no restart is needed, and nothing is lost.
    """
    gateway, postgres = recorded
    if postgres is None:
        pytest.skip("a file does not hang; a full disk is tested with the store")
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        first = await stub.Generate(turn("one", "r1"), metadata=METADATA)
        for number, (fail, mend) in enumerate(((postgres.pause, postgres.resume), (postgres.stop, postgres.start))):
            await asyncio.to_thread(fail)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(turn("two", f"lost-{number}", first.conversation_id), metadata=METADATA, timeout=20)
            assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert loop.time() - began < 6
            unrecorded = turn("x", "")
            unrecorded.ClearField("recording")
            assert (await stub.Generate(unrecorded, metadata=METADATA)).choices
            await asyncio.to_thread(mend)

            async def back() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.Generate(turn("three", f"back-{number}", first.conversation_id), metadata=METADATA)  # noqa: B023
                    return True
                return False

            await until(back)
        found = await stored(history_pb2_grpc.HistoryServiceStub(channel))
    texts = [message.message.blocks[0].text.text for message in found[first.conversation_id]]
    assert texts[:2] == ["one", "You said: one"]
    assert texts.count("three") == 2
