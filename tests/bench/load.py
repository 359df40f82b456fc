"""Clients of a gateway's edge that use as little CPU as Python can: one connection each, and requests built beforehand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from tests.e2e.conftest import KEY

GOOD: Final = b"HTTP/1.1 200"

LONGEST: Final = 4 * 1024 * 1024
"""The longest answer, in bytes."""


def request(address: str, body: dict[str, Any], key: str = KEY) -> bytes:
    """Return the bytes of a chat completion."""
    return post(address, "/api/v1/chat/completions", [f"authorization: Bearer {key}"], json.dumps(body).encode())


def post(address: str, path: str, headers: Sequence[str], body: bytes) -> bytes:
    """Return the bytes of a request with a JSON body."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {address}",
        *headers,
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def load(address: str, requests: Iterable[bytes], connections: int) -> list[bytes]:
    """Make the calls over `connections` connections, and return the answers that failed."""
    left = iter(requests)
    bad: list[bytes] = []

    async def run() -> None:
        async with _connected(address) as (reader, writer):
            for sent in left:
                writer.write(sent)
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"transfer-encoding: chunked" in head, head
                body = await reader.readuntil(b"\r\n0\r\n\r\n")
                if not head.startswith(GOOD):
                    bad.append(head + body)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(run())
    return bad


@asynccontextmanager
async def open_streams(address: str, requests: Sequence[bytes], at_once: int = 50) -> AsyncIterator[None]:
    """Keep the streams open during the block, once each has sent something; what follows is read and dropped."""
    turn = asyncio.Semaphore(at_once)
    started: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in requests]

    async def hold(sent: bytes, has_begun: asyncio.Future[None]) -> None:
        try:
            async with _connected(address) as (reader, writer):
                async with turn:
                    writer.write(sent)
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(GOOD), head
                    await reader.readuntil(b"data: ")
                    has_begun.set_result(None)
                while await reader.read(65536):
                    pass
        except Exception as error:  # noqa: BLE001  # raised where `has_begun` is awaited
            if not has_begun.done():
                has_begun.set_exception(error)

    tasks = [asyncio.create_task(hold(*each)) for each in zip(requests, started, strict=True)]
    try:
        await asyncio.gather(*started)
        yield
        assert not [task for task in tasks if task.done()], "a stream ended before its time"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=LONGEST)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
