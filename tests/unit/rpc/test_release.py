"""Tests over a real socket that a failed call releases its memory without the garbage collector."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
import structlog

from antiphon.domain.errors import AntiphonError, ProviderProtocolError, ProviderRateLimited
from antiphon.domain.events import TextDelta
from antiphon.rpc.release import drop_tracebacks
from antiphon.v1 import chat_pb2, message_pb2
from tests.unit.framing import Frames
from tests.unit.rpc.test_server import KEY, Running, running
from tests.unit.scripted import START, ScriptedProvider

TEXT = "x" * 10_000
TALK = {"messages": [{"role": "user", "content": TEXT}]}
REQUEST = chat_pb2.GenerateRequest(
    messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=TEXT))])]
)
INVALID = chat_pb2.GenerateRequest(messages=[message_pb2.Message(role="ROLE_USER")] * 50)
BUSY = ProviderRateLimited("Busy.", provider="scripted")
CALLS = 20

LEFT_BY_EVERY_CALL = {
    "_Metadatum",
    "_HandlerCallDetails",
    "__pyx_scope_struct_35__find_method_handler",
    "cython_function_or_method",
    "tuple",
    "ReferenceType",
    "TimerHandle",
    "Context",
    "hamt",
    "hamt_bitmap_node",
    "HeartbeatWriter",
}
"""Types of objects that every call leaves, failed or not, and that do not refer to the request.

gRPC keeps the metadata until the next collection of young objects. asyncio keeps up to 100 cancelled timers with their contexts.
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Drop all log lines, because the test run's own log would keep them."""

    def drop(_logger: object, _method: str, _event: structlog.types.EventDict) -> structlog.types.EventDict:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    yield
    structlog.reset_defaults()


def caused() -> AntiphonError:
    """Return an error with a cause, both with tracebacks."""
    try:
        try:
            int(TEXT)
        except ValueError as error:
            raise ProviderProtocolError("Cut.", provider="scripted") from error
    except ProviderProtocolError as error:
        return error


async def read_all(call: Any) -> None:
    """Read all answers."""
    with suppress(grpc.aio.AioRpcError):
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call


async def read_and_cancel(call: Any) -> None:
    """Read the first answer of a stream, and cancel."""
    await call.read()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call.code()


def broken(gateway: Running) -> Any:
    """Start a call with a request that is not a protobuf message."""
    raw = gateway.channel.unary_unary("/antiphon.v1.ChatService/Generate", request_serializer=bytes)
    return raw(b"\x0a\x03\xff\xff\xff", metadata=KEY)


KINDS: dict[str, tuple[list[Any], Callable[[Running], Any], Callable[[Any], Awaitable[None]]]] = {
    "no key": ([], lambda to: to.chat.Generate(REQUEST), read_all),
    "no key, a stream": ([], lambda to: to.chat.StreamGenerate(REQUEST), read_all),
    "no key, REST": ([], lambda to: to.post(TALK, metadata=()), read_all),
    "not readable": ([], broken, read_all),
    "invalid": ([], lambda to: to.chat.Generate(INVALID, metadata=KEY), read_all),
    "invalid, REST": ([], lambda to: to.post({"messages": TEXT}), read_all),
    "the provider fails": ([BUSY], lambda to: to.chat.Generate(REQUEST, metadata=KEY), read_all),
    "the provider fails, REST": ([BUSY], lambda to: to.post(TALK), read_all),
    "the provider fails, a cause": ([caused()], lambda to: to.chat.StreamGenerate(REQUEST, metadata=KEY), read_all),
    "late": ([[START, TextDelta(0, "Hi")], caused()], lambda to: to.chat.StreamGenerate(REQUEST, metadata=KEY), read_all),
    "late, REST": ([[START, TextDelta(0, "Hi")], BUSY], lambda to: to.post({**TALK, "stream": True}), read_all),
    "a fault of ours": ([ZeroDivisionError()], lambda to: to.chat.Generate(REQUEST, metadata=KEY), read_all),
    "the deadline": ([None], lambda to: to.chat.Generate(REQUEST, metadata=KEY, timeout=0.1), read_all),
    "cancelled": ([[START, TextDelta(0, "Hi")], None], lambda to: to.chat.StreamGenerate(REQUEST, metadata=KEY), read_and_cancel),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_failed_leaves_nothing(kind: str, unused_tcp_port: int) -> None:
    """After failed calls no frame, request, reply or exception is left: no type has grown by about one object per call."""
    batches, call, end = KINDS[kind]
    assert await left_by(ScriptedProvider(*batches), call, end, unused_tcp_port) == {}


class SlowToClose(ScriptedProvider):
    """A provider that sends a long text, and whose calls wait at their end for `may_close`."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()

    async def stream(self, request: Any, warn: Any = None) -> Any:
        self.requests.append(request)
        frames = Frames()
        try:
            yield frames.batch([START, TextDelta(0, "x" * 2_000_000)])
        finally:
            self.closing.set()
            await self.may_close.wait()


async def test_a_call_that_is_cancelled_while_it_fails_leaves_nothing(unused_tcp_port: int) -> None:
    """The server stops while the caller does not read, and the caller leaves while the provider's call is closed."""
    provider = SlowToClose()

    def call(gateway: Running) -> Any:
        return gateway.service, gateway.chat.StreamGenerate(REQUEST, metadata=KEY)

    async def end(started: Any) -> None:
        service, stream = started
        provider.closing.clear()
        await stream.initial_metadata()
        service.interrupt()
        await stream.read()
        await provider.closing.wait()
        stream.cancel()
        with suppress(asyncio.CancelledError):
            await stream.code()

    assert await left_by(provider, call, end, unused_tcp_port) == {}


async def left_by(
    provider: ScriptedProvider, call: Callable[[Running], Any], end: Callable[[Any], Awaitable[None]], port: int
) -> dict[str, int]:
    """Return the types that have grown by about one object per call, with the number of these objects."""
    async with running(provider, port) as gateway:

        async def live(calls: int) -> Counter[str]:
            for _ in range(calls):
                await end(call(gateway))
            async with asyncio.timeout(5):
                while gateway.service.in_flight:
                    await asyncio.sleep(0)
            provider.requests.clear()
            return Counter(type(one).__name__ for one in gc.get_objects())

        await live(3)  # so that objects which are created once exist
        gc.collect()
        gc.disable()
        try:
            before = await live(0)
            grown = await live(CALLS)
        finally:
            gc.enable()
    grown.subtract(before)
    return {name: count for name, count in grown.items() if count > CALLS / 2 and name not in LEFT_BY_EVERY_CALL}


def test_tracebacks_of_all_that_an_error_came_from_go() -> None:
    """Tracebacks are dropped from an error, its cause, its context and the errors of a group, even if they form a cycle."""
    error = caused()
    inner = caused()
    group = ExceptionGroup("several", [inner])
    error.__context__ = group
    inner.__context__ = error
    drop_tracebacks(error)
    assert error.__cause__ is not None
    assert [one.__traceback__ for one in (error, error.__cause__, group, inner)] == [None] * 4
