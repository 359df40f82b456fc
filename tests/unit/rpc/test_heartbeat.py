"""Tests of a stream's heartbeat, without a server."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any
from weakref import ref

import pytest
from google.api import httpbody_pb2
from pydantic import SecretStr

from antiphon.auth.api_keys.static import KeyRing
from antiphon.domain.call import NO_OBSERVER, Call, Heartbeat, current
from antiphon.domain.principal import Principal, Scope
from antiphon.rest.openai.errors import render_error
from antiphon.rpc.admission import Admission, MethodRules
from antiphon.rpc.handling import Handling, ServedMethod
from antiphon.rpc.heartbeat import WRITING, HeartbeatWriter
from antiphon.rpc.receiver import Receiver
from tests.waiting import until

INTERVAL = 0.02


class Wire:
    """A connection that records what is written. Writes wait while `open` is cleared."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[Any] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()
        self.writing = 0

    async def write(self, message: Any) -> None:
        self.writing += 1
        assert self.writing == 1, "a call takes one write at a time"
        await self.open.wait()
        self.written.put_nowait(message)
        self.writing -= 1


async def write(pulse: HeartbeatWriter, wire: Wire, message: Any) -> None:
    """Write a message as a call with a heartbeat does."""
    pulse.last = WRITING
    if pulse.beat is not None:
        await pulse.beat
    await wire.write(message)
    pulse.last = pulse.time()


async def test_silence_is_broken_again_and_again() -> None:
    """A heartbeat is sent each time the interval passes without a message."""
    wire = Wire()
    beat = Heartbeat("beat")
    pulse = HeartbeatWriter(0.01, wire.write, beat)
    assert not beat.sent
    assert [await wire.written.get() for _ in range(3)] == ["beat"] * 3
    assert beat.sent
    await pulse.stop()


async def test_headers_alone_go_out_once() -> None:
    """Without a comment to send, only the headers are sent, once."""
    wire = Wire()
    pulse = HeartbeatWriter(0.01, wire.write, Heartbeat())
    assert await wire.written.get() is None
    await write(pulse, wire, "reply")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            assert await wire.written.get() == "reply"
            await wire.written.get()
    await pulse.stop()


async def test_a_message_waits_for_the_heartbeat_that_is_being_written() -> None:
    """A message waits for a heartbeat that is being written, and no heartbeat is sent during a write."""
    wire = Wire()
    pulse = HeartbeatWriter(0.01, wire.write, Heartbeat("beat"))
    wire.open.clear()
    await until(lambda: wire.writing)
    message = asyncio.create_task(write(pulse, wire, "reply"))
    await asyncio.sleep(0)
    wire.open.set()
    await message
    await pulse.stop()
    assert [wire.written.get_nowait() for _ in range(2)] == ["beat", "reply"]


class Slow:
    """A context and a sender of a call whose caller takes each message late."""

    def __init__(self) -> None:
        self.sent: list[bytes | None] = []
        self.overlaps = 0
        self._sending = False

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer sk-test"),)

    def time_remaining(self) -> None:
        return None

    async def read(self) -> bytes:
        return b""

    def send(self, metadata: Any, message: bytes | None) -> Awaitable[None]:
        self.overlaps += self._sending  # gRPC would refuse it
        self._sending = True
        self.sent.append(message)
        loop = asyncio.get_running_loop()
        sent = loop.create_future()

        def take() -> None:
            time.sleep(2 * INTERVAL)  # when the write has ended, the next heartbeat is due at once
            self._sending = False
            sent.set_result(None)

        loop.call_later(INTERVAL / 2, take)
        return sent

    end = send


async def test_a_heartbeat_that_is_late_is_not_followed_by_another_beside_the_message() -> None:
    """A message that waited for a heartbeat is the next to be written, also if the next heartbeat is due at that moment."""
    wire = Slow()

    async def serve(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        beat = current().heartbeat(httpbody_pb2.HttpBody(data=b"beat"))
        await until(lambda: beat.sent)
        yield httpbody_pb2.HttpBody(data=b"reply")

    keys = KeyRing([(Principal("test", owner="test"), SecretStr("sk-test"))])
    rules = MethodRules("Test/Test", Scope.CHAT, render_error, key_in_body=False)
    method = ServedMethod(rules, bytes, serve, Admission(keys, None), Receiver(), None, NO_OBSERVER, INTERVAL)
    context: Any = wire
    await Handling(method, context, context).stream()
    assert [message and httpbody_pb2.HttpBody.FromString(message).data for message in wire.sent] == [b"beat", b"reply", None]
    assert wire.overlaps == 0


async def test_without_an_interval_or_a_call_there_is_none() -> None:
    """An interval of 0, or a call without a writer, sends no heartbeat."""
    wire = Wire()
    beat = Heartbeat("beat")
    pulse = HeartbeatWriter(0, wire.write, beat)
    await asyncio.sleep(0)
    assert not beat.sent
    assert not Call().heartbeat("beat").sent
    await pulse.stop()
    assert wire.written.empty()


async def test_a_heartbeat_that_finds_the_caller_gone_does_not_hide_how_the_call_ends() -> None:
    """An error while a heartbeat is written is not raised; the next message would raise it."""

    async def gone(message: Any) -> None:
        raise ConnectionError

    beat = Heartbeat("beat")
    pulse = HeartbeatWriter(0.001, gone, beat)
    await until(lambda: beat.sent)
    await pulse.stop()


@pytest.mark.parametrize("lost", [asyncio.CancelledError, ConnectionError])
async def test_a_heartbeat_that_could_not_be_written_keeps_nothing_of_its_call(lost: type[BaseException]) -> None:
    """Whether the caller left while a heartbeat was written, or before, the call's memory is free without the garbage collector."""

    class Request:
        pass

    writers: list[HeartbeatWriter] = []  # as a timer may keep them

    async def handle(request: Request) -> None:
        async def gone(_: Any) -> None:
            assert request
            raise lost

        pulse = HeartbeatWriter(0.001, gone, Heartbeat("beat"))
        writers.append(pulse)
        try:
            await until(lambda: pulse.beat is not None and pulse.beat.done())
            raise ZeroDivisionError
        finally:
            await pulse.stop()

    request = Request()
    kept = ref(request)
    gc.disable()
    try:
        with suppress(ZeroDivisionError, asyncio.CancelledError):
            await handle(request)
        del request
        assert kept() is None
    finally:
        gc.enable()
