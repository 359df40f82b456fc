"""Tests of a worker's heartbeats to its supervisor."""

import os
from collections.abc import Iterator

import pytest

from antiphon.up import heartbeat
from tests.waiting import block_until, until


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)


async def test_a_running_event_loop_sends_heartbeats(pipe: tuple[int, int]) -> None:
    """A running event loop sends heartbeats until the end."""
    reader, writer = pipe
    read = bytearray()

    def signs() -> bool:
        try:
            read.extend(os.read(reader, 1000))
        except BlockingIOError:
            return False
        return len(read) >= 3

    async with heartbeat.Heart().beating(writer):
        await until(signs)
    os.close(writer)


async def test_a_supervisor_that_is_gone_harms_nobody(pipe: tuple[int, int]) -> None:
    """A supervisor that is gone or does not read does not stop the worker."""
    _, writer = pipe
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    async with heartbeat.Heart().beating(writer):
        await until(lambda: True)
    os.close(writer)


async def test_without_a_supervisor_no_heartbeats_are_sent() -> None:
    """Without a supervisor, as with `antiphon serve`, no heartbeats are sent."""
    async with heartbeat.Heart().beating(None):
        pass


async def test_a_heart_is_silent_when_the_event_loop_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heart is silent while the event loop hangs, and not before its start or after its end."""
    monkeypatch.setattr(heartbeat, "HANG_AFTER", 0.05)
    heart = heartbeat.Heart()
    assert not heart.is_silent
    async with heart.beating(None):
        await until(lambda: heart._last is not None)
        block_until(lambda: heart.is_silent)  # this blocks the event loop
    assert not heart.is_silent
