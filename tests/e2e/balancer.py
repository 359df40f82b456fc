"""A TCP load balancer like a Kubernetes Service: it knows which gateways are ready, and does not look at the data."""

import asyncio
import contextlib
import itertools
from types import TracebackType
from typing import Self

from antiphon.config import split_address
from tests.e2e.wire import connect, read_answer

INTERVAL = 0.1
"""Seconds between two checks whether a gateway is ready."""


class Balancer:
    """Gives each new connection to the next gateway that was ready at the last check."""

    def __init__(self) -> None:
        self.address = ""
        self._gateways: dict[str, str] = {}
        self._ready: list[str] = []
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        tasks = [self._looking, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def add(self, rest: str, address: str) -> None:
        """Send connections to `address` while the edge at `rest` is ready."""
        self._gateways[address] = rest

    def ready(self, address: str) -> bool:
        """Return whether new connections go to this address."""
        return address in self._ready

    async def _look(self) -> None:
        while True:
            self._ready = [address for address, rest in [*self._gateways.items()] if await _is_ready(rest)]
            await asyncio.sleep(INTERVAL)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            host, port = split_address(self._ready[next(self._turn) % len(self._ready)])
            with contextlib.closing(writer):
                there, back = await asyncio.open_connection(host, port)
                with contextlib.closing(back):
                    await asyncio.gather(_pass(reader, back), _pass(there, writer))
        except (OSError, ZeroDivisionError, asyncio.CancelledError):  # asyncio would log a cancelled handler as an error
            writer.transport.abort()
        finally:
            self._tasks.discard(task)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _is_ready(rest: str) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await connect(rest)
            with contextlib.closing(writer):
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                return (await read_answer(reader)).status == 200
    except (OSError, EOFError, TimeoutError):
        return False
