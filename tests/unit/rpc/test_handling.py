"""Tests over a real socket of what happens around a call: when metadata is sent, and how failed writes are classified."""

import asyncio
import json
import logging
import time
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from structlog.testing import capture_logs

from antiphon.config import CUT_TRAILERS, MAX_MESSAGE_BYTES
from antiphon.domain.errors import ProviderRateLimited
from antiphon.domain.events import TextDelta
from antiphon.rpc import acceptor
from antiphon.v1 import chat_pb2
from tests.e2e.wire import DATA, END_HEADERS, END_STREAM, HEADERS, frame, http2
from tests.unit.framing import Frames
from tests.unit.rpc.test_server import HELLO, KEY, REST_SERVICE, Running, running
from tests.unit.scripted import START, STOP, USAGE, ScriptedProvider
from tests.waiting import until

WITH_ID = (*KEY, ("x-request-id", "abc-123"))


@pytest.fixture(autouse=True, params=["known", "unknown"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with a version of grpc.aio that `rpc.acceptor` knows, and with one that it does not."""
    if request.param == "unknown":
        monkeypatch.setattr(acceptor, "_is_known", lambda: False)


def ask(gateway: Running, kind: str) -> Any:
    return (gateway.chat.StreamGenerate if kind == "stream" else gateway.chat.Generate)(HELLO, metadata=WITH_ID)


class Held(ScriptedProvider):
    """A provider that sends nothing until `may` is set."""

    def __init__(self) -> None:
        super().__init__([START, TextDelta(0, "Hi")], [USAGE, STOP])
        self.may = asyncio.Event()

    async def stream(self, request: Any, warn: Any = None) -> Any:
        self.requests.append(request)
        await self.may.wait()
        frames = Frames()
        for batch in self.batches:
            yield frames.batch(batch)


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_metadata_leave_with_the_first_message(kind: str, unused_tcp_port: int) -> None:
    """Initial metadata, with the request id, is not sent before the first message, so that an unanswered call can be retried."""
    provider = Held()
    async with running(provider, unused_tcp_port) as gateway:
        call = ask(gateway, kind)
        metadata = asyncio.ensure_future(call.initial_metadata())
        while not provider.requests:
            await asyncio.sleep(0)
        await gateway.chat.Generate(chat_pb2.GenerateRequest(), metadata=KEY).code()  # wait for one round trip
        assert not metadata.done()
        provider.may.set()
        assert dict(await metadata)["x-request-id"] == "abc-123"
        assert len([answer async for answer in call]) if kind == "stream" else [await call]


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_the_request_id_of_a_call_that_fails_at_once_is_a_trailer(kind: str, unused_tcp_port: int) -> None:
    """If a call fails before its first message, the request id is in the trailers."""
    async with running(ScriptedProvider(ProviderRateLimited("Busy.", provider="scripted")), unused_tcp_port) as gateway:
        call = ask(gateway, kind)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await call.trailing_metadata())["x-request-id"] == "abc-123"
        assert "x-request-id" not in dict(await call.initial_metadata())


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_a_caller_that_leaves_in_a_write_has_cancelled(
    method: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller that closes its connection during a write is logged as CANCELLED, without an error or traceback."""
    text = TextDelta(0, "x" * 2_000_000)
    provider = ScriptedProvider([START, text], [text], [USAGE, STOP])
    with capture_logs() as lines, caplog.at_level(logging.INFO):
        async with running(provider, unused_tcp_port) as gateway:
            for _ in range(5):
                async with http2(f"127.0.0.1:{unused_tcp_port}") as caller:
                    head = caller.request(
                        f"/antiphon.v1.ChatService/{method}",
                        "POST",
                        content_type="application/grpc",
                        te="trailers",
                        authorization="Bearer sk-test",
                    )
                    data = HELLO.SerializeToString()
                    message = b"\0" + len(data).to_bytes(4, "big") + data
                    await caller.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, message))
                    while (received := await caller.receive()) is not None and received.kind != DATA:
                        pass
            async with asyncio.timeout(5):
                while gateway.service.in_flight:
                    await asyncio.sleep(0)
    events = [line["event"] for line in lines]
    assert "call_failed" not in events
    codes = [line["code"] for line in lines if line["event"] == "call"]
    assert codes == ["CANCELLED"] * 5
    assert caplog.text == ""


class Busy(ScriptedProvider):
    """A provider that keeps the whole server busy, for longer than the caller waits."""

    async def stream(self, request: Any, warn: Any = None) -> Any:
        for _ in range(3):
            time.sleep(0.2)  # nothing else may run
            await asyncio.sleep(0)
        await asyncio.Event().wait()
        yield []


async def test_a_call_that_gRPC_ends_at_its_deadline_is_logged_as_that(unused_tcp_port: int) -> None:  # its name
    """If the server is too busy to end a call before its deadline, the log does not say that the caller left."""
    with capture_logs() as lines:
        async with running(Busy(), unused_tcp_port) as gateway:
            assert await gateway.chat.Generate(HELLO, metadata=KEY, timeout=0.3).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(5):
                while gateway.service.in_flight:
                    await asyncio.sleep(0.01)
    assert [line["code"] for line in lines if line["event"] == "call"] == ["DEADLINE_EXCEEDED"]


def from_edge(timeout: str) -> Any:
    return (*KEY, ("x-antiphon-edge", "1"), ("x-antiphon-timeout", timeout))


@pytest.mark.parametrize("timeout", ["1H", "1M", "1S", "300m", "300000u", "300000000n"])
async def test_a_server_that_is_too_busy_still_answers_a_rest_call_at_its_deadline(timeout: str, unused_tcp_port: int) -> None:
    """The edge gives a REST caller's deadline in a header, in any unit of gRPC. gRPC does not know it, so cannot end the call."""
    is_short = timeout.startswith("300")
    async with asyncio.timeout(5), running(Busy() if is_short else ScriptedProvider(), unused_tcp_port) as gateway:
        call = gateway.post({"messages": [{"role": "user", "content": "Hi"}]}, from_edge(timeout))
        body = json.loads((await call.read()).data)
        assert (body.get("error") or {}).get("code") == ("deadline_exceeded" if is_short else None)
        assert await call.code() is (grpc.StatusCode.DEADLINE_EXCEEDED if is_short else grpc.StatusCode.OK)


async def test_the_deadline_of_a_rest_call_includes_the_arrival_of_its_request(unused_tcp_port: int) -> None:
    """A request that does not arrive in time is an error of the dialect, at the deadline."""
    async with asyncio.timeout(5), running(ScriptedProvider(), unused_tcp_port) as gateway:
        method = f"/{REST_SERVICE}/CreateChatCompletion"
        call = gateway.channel.stream_stream(method, response_deserializer=httpbody_pb2.HttpBody.FromString)(
            metadata=from_edge("200m")
        )
        start = time.monotonic()
        body = json.loads((await call.read()).data)
        assert 0.1 < time.monotonic() - start < 2
        assert body["error"]["code"] == "deadline_exceeded"


class Endless(ScriptedProvider):
    """A provider whose reply does not end."""

    sent = 0

    async def stream(self, request: Any, warn: Any = None) -> Any:
        frames = Frames()
        yield frames.batch([START])
        while True:
            self.sent += 1
            yield frames.batch([TextDelta(0, "x" * 100_000)])
            await asyncio.sleep(0)

    async def blocked(self) -> None:
        """Return when nothing was sent for a while, as the caller does not read."""
        before = -1
        while self.sent != before:
            before = self.sent
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("is_rest", [True, False])
async def test_a_stream_that_nobody_reads_ends_with_a_status(
    is_rest: bool, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that reads again after the end finds the status. The edge is made to break off, as the stream has no error event."""
    monkeypatch.setattr("antiphon.domain.deadline.CANCEL_DELAY", 0.1)
    provider = Endless()
    with capture_logs() as lines:
        async with asyncio.timeout(5), running(provider, unused_tcp_port) as gateway:
            body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
            call = gateway.post(body) if is_rest else gateway.chat.StreamGenerate(HELLO, metadata=KEY)
            await call.read()
            await provider.blocked()
            gateway.service.interrupt()
            await until(lambda: not gateway.service.in_flight)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await call.read() is not grpc.aio.EOF:
                    pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = [name for name, _ in caught.value.trailing_metadata()]
    assert trailers.count("x-antiphon-cut") == (len(CUT_TRAILERS) if is_rest else 0)
    assert [line["code"] for line in lines if line["event"] == "call"] == ["UNAVAILABLE"]


@pytest.mark.parametrize("timeout", ["", "1", "S", "1x", "-1S", "1.5S", "nan"])
async def test_a_deadline_that_the_edge_cannot_have_sent_is_ignored(timeout: str, unused_tcp_port: int) -> None:
    """Who reaches the server past the edge can send anything."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        call = gateway.post({"messages": [{"role": "user", "content": "Hi"}]}, from_edge(timeout))
        assert json.loads((await call.read()).data)["choices"]


async def test_a_reply_that_is_too_large_is_logged_as_that(unused_tcp_port: int) -> None:
    """A reply over gRPC's size limit is logged with the code that the caller gets."""
    provider = ScriptedProvider([START, TextDelta(0, "x" * MAX_MESSAGE_BYTES)], [STOP])
    with capture_logs() as lines:
        async with running(provider, unused_tcp_port) as gateway:
            assert await gateway.chat.Generate(HELLO, metadata=KEY).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [line["code"] for line in lines if line["event"] == "call"] == ["RESOURCE_EXHAUSTED"]
