"""Tests of receiving requests over a real socket: early refusals, and the limits for unfinished requests."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from antiphon.rpc import receiver
from antiphon.rpc.handlers import CallHandlers
from antiphon.v1 import chat_pb2, models_pb2
from tests.e2e.wire import DATA, END_HEADERS, END_STREAM, HEADERS, frame, http2
from tests.unit.rpc.test_server import HELLO, KEY, SCOPES, Running, details, running
from tests.unit.scripted import ScriptedProvider
from tests.waiting import until

GENERATE = "/antiphon.v1.ChatService/Generate"
CHECK = "/grpc.health.v1.Health/Check"


def unfinished(to: Running, method: str = GENERATE, metadata: Any = KEY) -> Any:
    """Start a call that never sends its request."""
    return to.channel.stream_unary(method)(metadata=metadata)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """Return the error that the call ends with."""
    async with asyncio.timeout(5):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    return caught.value


@asynccontextmanager
async def unfinished_calls(gateway: Running, count: int, **more: Any) -> AsyncIterator[list[Any]]:
    """Run `count` calls without requests that have reached the server, and cancel them at the end."""
    calls = [unfinished(gateway, **more) for _ in range(count)]
    await asyncio.gather(*(call.wait_for_connection() for call in calls))
    # A connection's streams are served in order: when this call is answered, the others have arrived.
    await gateway.models.ListModels(models_pb2.ListModelsRequest(), metadata=KEY)
    yield calls
    for call in calls:
        call.cancel()


async def test_a_bad_key_is_refused_before_the_request_is_there(unused_tcp_port: int) -> None:
    """A call with a missing or wrong key is refused before its request is received, so that nothing is held for it."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        for metadata in ((), (("authorization", "Bearer sk-other"),)):
            error = await refusal(unfinished(gateway, metadata=metadata))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert details(error)["ErrorInfo"].reason == "UNAUTHENTICATED"


async def test_a_call_without_a_request_is_at_fault(unused_tcp_port: int) -> None:
    """A call that ends without a message is INVALID_ARGUMENT."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        call = unfinished(gateway)
        await call.done_writing()
        assert (await refusal(call)).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_that_does_not_come_ends(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not arrive in time is INVALID_ARGUMENT, with or without a key."""
    monkeypatch.setattr(receiver, "MESSAGE_TIMEOUT", 0.0)
    monkeypatch.setattr(receiver, "KEYLESS_TIMEOUT", 0.0)
    monkeypatch.setattr(receiver, "CHECK_INTERVAL", 0.01)
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        for method in (GENERATE, CHECK):
            error = await refusal(unfinished(gateway, method))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "did not arrive" in str(error.details())


async def test_few_requests_without_a_key_are_waited_for(unused_tcp_port: int) -> None:
    """Of more than MAX_KEYLESS waiting health checks the oldest is refused; one whose request comes is answered."""
    async with (
        running(ScriptedProvider(), unused_tcp_port) as gateway,
        unfinished_calls(gateway, receiver.MAX_KEYLESS, method=CHECK) as calls,
    ):
        assert not any(call.done() for call in calls)
        found = await gateway.health.Check(health_pb2.HealthCheckRequest())
        assert found.status == health_pb2.HealthCheckResponse.SERVING
        done, pending = await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], return_when="FIRST_COMPLETED")
        assert [ended.result() for ended in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        for waiting in pending:
            waiting.cancel()


async def test_large_requests_share_a_limit_of_bytes(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests may take a limited number of bytes together.

    A slow one counts as the largest possible, a received one with its size until its call ends, and small ones always pass.
    """
    monkeypatch.setattr(receiver, "SLOW_AFTER", 0.0)
    monkeypatch.setattr(receiver, "CHECK_INTERVAL", 0.01)
    large = chat_pb2.GenerateRequest(model="x" * 5_000_000, messages=HELLO.messages)
    async with running(ScriptedProvider(), unused_tcp_port, max_request_bytes=40_000_000) as gateway:
        async with unfinished_calls(gateway, 1) as (first,):
            assert (await refusal(unfinished(gateway))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            monkeypatch.setattr(receiver, "SLOW_AFTER", 60.0)
            for _ in range(3):
                # 33 of 40 million bytes are in use. A call of 5 million fits: only its model is refused, each time.
                assert (await refusal(gateway.chat.Generate(large, metadata=KEY))).code() is grpc.StatusCode.NOT_FOUND
            larger = chat_pb2.GenerateRequest(model="x" * 7_000_000, messages=HELLO.messages)
            error = await refusal(gateway.chat.Generate(larger, metadata=KEY))
            assert details(error)["ErrorInfo"].metadata["limit"] == "request_bytes_per_worker"
            await gateway.chat.Generate(HELLO, metadata=KEY)
            assert not first.done()

        async def room() -> bool:
            return (await refusal(gateway.chat.Generate(larger, metadata=KEY))).code() is grpc.StatusCode.NOT_FOUND

        await until(room)


@pytest.mark.parametrize("method", [GENERATE, "/antiphon.rest.v1.OpenAIService/CreateChatCompletion"])
async def test_only_the_edge_can_say_that_a_request_is_whole(
    method: str, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow request at the server's own port counts as the largest possible, whatever its metadata say."""
    monkeypatch.setattr(receiver, "SLOW_AFTER", 0.0)
    monkeypatch.setattr(receiver, "CHECK_INTERVAL", 0.01)
    whole = (*KEY, ("x-antiphon-edge", "1"))
    async with (
        running(ScriptedProvider(), unused_tcp_port, max_request_bytes=40_000_000) as gateway,
        unfinished_calls(gateway, 2, method=method, metadata=whole) as calls,
    ):
        codes = [asyncio.ensure_future(call.code()) for call in calls]
        async with asyncio.timeout(5):
            (refused,), (pending,) = await asyncio.wait(codes, return_when="FIRST_COMPLETED")
        assert refused.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
        pending.cancel()


async def test_a_stop_ends_what_has_no_request_and_no_key(unused_tcp_port: int) -> None:
    """A stop ends unfinished requests, reflection and health watches, while a call that is being answered goes on."""
    provider = ScriptedProvider(None)
    async with running(provider, unused_tcp_port) as gateway:
        half = unfinished(gateway)
        reflection = gateway.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        await reflection.write(b"\x3a\x00")
        assert await reflection.read()
        watch = gateway.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        answered = gateway.chat.StreamGenerate(HELLO, metadata=KEY)
        reading = asyncio.create_task(answered.read())
        await until(lambda: provider.requests)
        stopping = asyncio.create_task(gateway.server.stop(600, gateway.service.interrupt))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert (await refusal(half)).code() is grpc.StatusCode.UNAVAILABLE
        assert await reflection.code() is grpc.StatusCode.UNAVAILABLE
        assert (stopping.done(), reading.done()) == (False, False)
        answered.cancel()
        async with asyncio.timeout(10):
            await stopping
        await asyncio.wait([reading])


async def test_a_watcher_that_does_not_read_is_no_fault_of_the_server(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A health watch whose caller does not read neither delays a stop nor is logged as an error."""
    with caplog.at_level(logging.INFO):
        async with (
            running(ScriptedProvider(), unused_tcp_port) as gateway,
            http2(f"127.0.0.1:{unused_tcp_port}", settings=b"\0\4" + bytes(4)) as caller,
        ):
            head = caller.request("/grpc.health.v1.Health/Watch", "POST", content_type="application/grpc", te="trailers")
            await caller.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, bytes(5)))
            while (received := await caller.receive()) is not None and received.kind != HEADERS:
                pass
            async with asyncio.timeout(10):  # after 20 seconds, gRPC gives up a caller that does not answer its ping
                await gateway.server.stop(600, gateway.service.interrupt)
    assert caplog.text == ""


async def test_calls_are_counted_while_their_keys_are_judged(unused_tcp_port: int) -> None:
    """A call counts towards the limit while its key is checked, which may take long; one too many is refused."""

    class Slow:
        judging = 0
        go_on = asyncio.Event()

        async def authenticate(self, credential: str) -> None:
            self.judging += 1
            await self.go_on.wait()

    keys = Slow()
    server = CallHandlers(keys, SCOPES, {}, max_calls=1)
    async with running(ScriptedProvider(), unused_tcp_port, handlers=server) as gateway:
        first = asyncio.ensure_future(refusal(gateway.chat.Generate(HELLO, metadata=KEY)))
        await until(lambda: keys.judging)
        assert (await refusal(gateway.chat.Generate(HELLO, metadata=KEY))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        keys.go_on.set()
        assert (await first).code() is grpc.StatusCode.UNAUTHENTICATED
        assert keys.judging == 1


async def test_open_calls_give_their_bytes_back(unused_tcp_port: int) -> None:
    """Calls without a key return their bytes to the limit when they end."""
    async with running(ScriptedProvider(), unused_tcp_port, max_request_bytes=500_000) as gateway:
        for _ in range(8):
            refused = await refusal(gateway.health.Check(health_pb2.HealthCheckRequest(service="x" * 200_000)))
            assert refused.code() is grpc.StatusCode.NOT_FOUND
