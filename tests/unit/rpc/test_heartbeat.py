"""Tests of a stream's heartbeat, without a server."""

import asyncio
import gc
from contextlib import suppress
from typing import Any
from weakref import ref

import pytest

from antiphon.domain.call import Call, Heartbeat
from antiphon.rpc.heartbeat import WRITING, HeartbeatWriter
from tests.waiting import until


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
    if pulse.beat is not None:
        await pulse.beat
    pulse.last = WRITING
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
