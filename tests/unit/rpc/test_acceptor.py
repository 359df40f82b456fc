"""Tests of how a server accepts calls, over a real socket."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest

from antiphon.rpc import acceptor
from antiphon.rpc.acceptor import READY, aio_server
from tests.waiting import until

CALLS = 2 * READY
ECHO = "/test.Echo/Echo"


class Handlers(grpc.GenericRpcHandler):
    """Answers each call, and records in which turn of the event loop it was accepted."""

    def __init__(self) -> None:
        self.turn = 0
        self.accepted: list[int] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.accepted.append(self.turn)
        return request

    def count(self) -> None:
        """Count the turns of an event loop that is busy in each."""
        self.turn += 1
        time.sleep(0.001)
        asyncio.get_running_loop().call_soon(self.count)


async def turns_per_call(server: grpc.aio.Server, handlers: Handlers, port: int) -> float:
    """Return how many turns of the event loop each call needs until it is accepted, of many that arrive while the loop is busy."""
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary(ECHO)
        await asyncio.to_thread(echo, b"")
        handlers.accepted.clear()
        replies = [echo.future(b"%d" % number) for number in range(CALLS)]
        time.sleep(0.5)  # the calls arrive, and nobody looks
        handlers.count()
        assert await asyncio.to_thread(lambda: [reply.result(timeout=30) for reply in replies]) == [b"%d" % n for n in range(CALLS)]
    await server.stop(None)
    return handlers.accepted[-1] / CALLS


async def test_a_call_is_accepted_in_few_turns_of_the_event_loop(unused_tcp_port_factory: Any) -> None:
    """Calls that wait need fewer turns than with grpc.aio's own server. If an update changes that, `_Acceptor` is not needed."""

    async def fewest(make: Callable[[Handlers], Any]) -> float:
        # Of several: on a busy machine calls arrive one by one, and each gets turns of its own.
        tries = [Handlers() for _ in range(5)]
        return min([await turns_per_call(make(each), each, unused_tcp_port_factory()) for each in tries])

    turns = await fewest(lambda handlers: aio_server([handlers], [], [ECHO]))
    usual = await fewest(lambda handlers: grpc.aio.server(handlers=[handlers]))
    assert turns < usual / 2


async def test_a_server_of_another_version_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """If grpc.aio's own functions change, nothing of them is used."""
    monkeypatch.delattr(acceptor.cygrpc, "_schedule_rpc_coro")
    assert type(cast(Any, aio_server([Handlers()], [], [ECHO]))._server) is acceptor.cygrpc.AioServer


async def test_an_unknown_method_is_answered(unused_tcp_port: int) -> None:
    """grpc.aio itself answers calls of methods that nobody named."""
    server = aio_server([Handlers()], [], ["/test.Echo/Other"])
    server.add_insecure_port(f"127.0.0.1:{unused_tcp_port}")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        echo: Any = channel.unary_unary(ECHO)
        assert [await echo(b"%d" % number, timeout=10) for number in range(3)] == [b"0", b"1", b"2"]
    await server.stop(None)


@pytest.mark.parametrize("calls", [1, READY, 2 * READY])
async def test_calls_that_are_ready_are_served_before_a_stop(calls: int, unused_tcp_port: int) -> None:
    """A stop drops no call that has arrived."""
    handlers = Handlers()
    server = aio_server([handlers], [], [ECHO])
    server.add_insecure_port(f"127.0.0.1:{unused_tcp_port}")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        echo: Any = channel.unary_unary(ECHO)
        await echo(b"")
        pending = [asyncio.ensure_future(echo(b"x")) for _ in range(calls)]
        while len(handlers.accepted) < 2:
            await asyncio.sleep(0)
        await server.stop(5)
        results = await asyncio.gather(*pending, return_exceptions=True)
    answered = sum(result == b"x" for result in results)
    refused = sum(isinstance(result, grpc.aio.AioRpcError) and result.code() is grpc.StatusCode.UNAVAILABLE for result in results)
    assert answered + refused == calls
    assert answered >= 1


async def test_a_method_that_nobody_has_called_takes_little_memory(unused_tcp_port: int) -> None:
    """One task waits for the first call of each method, and `READY` of them from then on."""
    methods = [ECHO, *(f"/test.Echo/Other{number}" for number in range(20))]
    server = aio_server([Handlers()], [], methods)
    server.add_insecure_port(f"127.0.0.1:{unused_tcp_port}")
    await server.start()
    tasks = cast(Any, server)._server._tasks
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        echo: Any = channel.unary_unary(ECHO)
        for expected in (len(methods), len(methods) - 1 + READY, len(methods) - 1 + READY):
            await until(lambda expected=expected: len(tasks) == expected)
            await echo(b"", timeout=10)
    await server.stop(None)
