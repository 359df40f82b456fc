"""Callers at a steady pace, however long answers take: a call is begun at its time, on a connection of its own at that time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import msgspec

from tests.bench.load import request

PATIENCE: Final = 30.0
"""Seconds after which a call without an end has failed."""

_names: Final = count(1)


class Call(msgspec.Struct):
    """A call, with its times in seconds of the monotonic clock. `status` is 0 without an answer."""

    name: str
    began: float
    ended: float = 0.0
    status: int = 0
    whole: bool = False
    """The answer came to its end, without an error in it."""


class Callers:
    """Call gateways in turn, every other time for a stream. Connections are kept, and used again when their call has ended."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._idle: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {each: [] for each in addresses}
        self._running: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []

    async def run(self, rate: float, seconds: float) -> None:
        """Make `rate` calls a second for so many seconds. Returns when the last one was begun."""
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            address = self._addresses[number // 2 % len(self._addresses)]
            task = asyncio.create_task(self._call(address, stream=number % 2 == 0))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Wait until every call has ended, and close the connections."""
        if self._running:
            await asyncio.wait(list(self._running))
        for _, writer in (one for each in self._idle.values() for one in each):
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _call(self, address: str, *, stream: bool) -> None:
        call = Call(f"call {next(_names)}", time.monotonic())
        self.calls.append(call)
        body = {"model": "m", "messages": [{"role": "user", "content": call.name}], "stream": stream}
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = self._idle[address].pop() if self._idle[address] else await _connect(address)
                writer.write(request(address, body))
                head = await reader.readuntil(b"\r\n\r\n")
                call.status = int(head.split(b" ", 2)[1])
                answer = await _read_body(reader, head)
            call.whole = call.status == 200 and b'"error"' not in answer and (b"[DONE]" in answer) is stream
            self._idle[address].append((reader, writer))
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            call.ended = time.monotonic()


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.partition(":")
    return await asyncio.open_connection(host, int(port))


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" in head:
        return await reader.readuntil(b"0\r\n\r\n")
    return await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
