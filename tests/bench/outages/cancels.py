"""How soon every try of a call ends when its caller leaves, at any moment: in a try, between two, or waiting for a place."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, NamedTuple

import grpc
import msgspec

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.bench.load import request
from tests.bench.outages.fleet import two_deployments
from tests.bench.outages.provider import Mode, Provider
from tests.e2e.conftest import KEY, Gateway

LATEST: Final = 0.3
"""Seconds after which a caller has left for sure."""
REST: Final = 1.0
"""Seconds after which a try that still runs counts as one that was never cancelled."""

_names: Final = count(1)


class Kind(NamedTuple):
    """Calls of one kind, and what the providers do with them."""

    name: str
    api: str
    mode: Mode
    model: str = "m"
    at_once: int = 4


KINDS: Final = (
    Kind("streams", "SSE", Mode.ENDLESS),
    Kind("whole replies", "JSON", Mode.ENDLESS),
    Kind("streams over gRPC", "gRPC", Mode.ENDLESS),
    Kind("streams behind a failure", "SSE", Mode.FAILS_ONCE),
    Kind("whole replies behind a failure", "JSON", Mode.FAILS_ONCE),
    Kind("streams, one at once for each deployment", "SSE", Mode.ENDLESS, "n", 12),
)


class Cancels(msgspec.Struct):
    """What became of calls of one kind whose caller left."""

    kind: str
    calls: int
    tries: int
    """Those that ran when their caller left; the other calls were waiting, or between two tries."""
    p50: float
    """Milliseconds from the moment when the caller left until the provider's connection was closed."""
    p99: float
    late: int
    """Tries that began more than 50 ms after their caller had left, or never ended."""


def configuration(east: str, west: str) -> dict[str, Any]:
    """Return the configuration with a provider for all kinds but one, and `narrow`, whose deployments have one call at a time."""
    config = two_deployments(east, west)
    narrow = {**config["providers"]["shared"], "models": ["n"], "concurrent": 1, "queue": {"wait": 10}}
    config["providers"]["narrow"] = narrow
    config["routing"] = {"budget": 1, "backoff": {"first": 0.05}, "breaker": {"consecutive": 10**6, "of": 10**6}}
    return config


async def measure(kind: Kind, gateway: Gateway, providers: Sequence[Provider], calls: int) -> tuple[Cancels, list[float]]:
    """Make calls and leave them. Return what became of them, and the milliseconds of every try."""
    for provider in providers:
        provider.mode = kind.mode
        provider.received.clear()
    numbers, left = iter(range(calls)), dict[str, float]()

    async def caller(channel: grpc.aio.Channel) -> None:
        for number in numbers:
            name = f"cancel {next(_names)}"
            async with _calling(kind, gateway, channel, name, resets=number % 2 == 0):
                await asyncio.sleep(random.uniform(0, LATEST))
                left[name] = time.monotonic()

    async with grpc.aio.insecure_channel(gateway.rest) as channel, asyncio.TaskGroup() as group:
        for _ in range(kind.at_once):
            group.create_task(caller(channel))
    await asyncio.sleep(REST)
    taken, late = [], 0
    for provider in providers:
        for call in provider.received:
            gone = left[call.name]
            if call.ended is None or call.began > gone + 0.05:
                late += 1
            elif call.left:
                taken.append(max(0.0, call.ended - gone) * 1000)
    taken.sort()
    p50, p99 = (taken[min(len(taken) - 1, int(len(taken) * part))] if taken else 0.0 for part in (0.5, 0.99))
    return Cancels(kind.name, calls, len(taken), p50, p99, late), taken


@asynccontextmanager
async def _calling(kind: Kind, gateway: Gateway, channel: grpc.aio.Channel, name: str, *, resets: bool) -> AsyncIterator[None]:
    """Make a call during the block, and leave it at the end: by a reset of its connection, or in order."""
    if kind.api == "gRPC":
        text = message_pb2.Block(text=message_pb2.Text(text=name))
        asked = chat_pb2.GenerateRequest(model=kind.model, messages=[message_pb2.Message(role="ROLE_USER", blocks=[text])])
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        call = stub.StreamGenerate(asked, metadata=(("authorization", f"Bearer {KEY}"),))
        reading = asyncio.create_task(_read(call))
        try:
            yield
        finally:
            call.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return
    host, _, port = gateway.rest.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = {"model": kind.model, "messages": [{"role": "user", "content": name}], "stream": kind.api == "SSE"}
    writer.write(request(gateway.rest, body))
    try:
        yield
    finally:
        if resets:
            writer.transport.abort()
        else:
            writer.close()


async def _read(call: Any) -> None:
    async for _ in call:
        pass
