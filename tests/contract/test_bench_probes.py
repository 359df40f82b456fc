"""The counters of the benchmark."""

import asyncio
import linecache
import sys
from collections.abc import AsyncGenerator

import orjson
from msgspec import Struct
from msgspec.structs import replace

from antiphon.v1 import chat_pb2
from tests.bench.probes import Allocations, Trace, place


async def turns(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class Value(Struct, frozen=True):
    number: int = 0


async def test_hops_are_distinguished_from_resumed_awaits() -> None:
    """A generator of three values is called four times, and resumed after a wait three times."""
    trace = Trace()
    trace.start()
    async for _ in turns(3):
        pass
    trace.stop()
    assert trace.lists["async hops"][place(turns.__code__)] == 4
    assert trace.lists["awaits woken"][place(turns.__code__)] == 3


async def test_tasks_are_counted() -> None:
    """Tasks are counted by the name of their coroutine."""
    trace = Trace()
    trace.start()
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
    trace.stop()
    assert trace.lists["tasks"] == {"sleep": 2}
    assert trace.counts["tasks"] == 2


async def test_conversions_are_counted() -> None:
    """Conversions of JSON, protobuf and rebuilt values are counted by library."""
    data = chat_pb2.GenerateRequest(model="a").SerializeToString()
    trace = Trace()
    trace.start()
    orjson.loads(orjson.dumps({}))
    replace(Value(), number=1)
    chat_pb2.GenerateRequest.FromString(data).SerializeToString()
    trace.stop()
    kinds = ("JSON read", "JSON written", "values rebuilt", "protobuf parsed", "protobuf serialised")
    assert [trace.counts[kind] for kind in kinds] == [1] * 5


def test_blocks_that_are_freed_at_once_are_counted() -> None:
    """Short-lived allocations are counted by line, and the counter itself keeps no memory."""
    allocations = Allocations()
    allocations.start()
    for _ in range(1000):
        bytearray(100)
    allocations.stop()
    (line, count), *_ = allocations.lists["allocations"].most_common(1)
    assert "bytearray" in linecache.getline(__file__, int(line.rpartition(":")[2]))
    assert count == 2000, "the object, and its bytes"
    before = sys.getallocatedblocks()
    for _ in range(1000):
        bytearray(100)
    assert sys.getallocatedblocks() - before < 100
