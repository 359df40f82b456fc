"""The limits in docs/reference/bounds.md for what one caller can use, through real sockets, and the answers beyond them.

Times and numbers that a test cannot wait for are reduced in a second edge, with the same files, in front of the same server.
"""

import asyncio
import json
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from antiphon.config import MAX_KEYLESS_BYTES, MAX_MESSAGE_BYTES, RestConfig
from antiphon.edge import files as edge
from antiphon.net.json_bounds import MAX_VALUES
from antiphon.rpc.server import MAX_CONCURRENT_STREAMS
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.e2e.wire import (
    CONTINUATION,
    DATA,
    DIALECTS,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Answer,
    Frame,
    Http2,
    ask,
    close,
    connect,
    fields,
    frame,
    http2,
    post,
    read_answer,
    until_closed,
)
from tests.odd_upstream import HANG, LAST, OddUpstream, Pause, chunk, delta, head, sse
from tests.ports import free_port
from tests.waiting import until

CHAT = "/api/v1/chat/completions"
WITH_KEY = {"authorization": f"Bearer {KEY}"}
ASK = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}

LARGE = {"60 KiB": {"x-large": "x" * 62_000}, "100 of them": {f"x-{number}": "x" for number in range(101)}}
"""Headers that are too large, or too many."""

Edge = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def smaller_edge(admin_gateway: Gateway, tmp_path: Path) -> Edge:
    """Return a context manager that runs an edge with some figures replaced, and yields its address. The key is an admin's."""

    @asynccontextmanager
    async def made(*figures: tuple[str, str]) -> AsyncIterator[str]:
        address = f"127.0.0.1:{free_port()}"
        edge.prepare(tmp_path, RestConfig(listen=address), [])
        (tmp_path / "endpoints.yaml").write_text(
            (edge.gateway_files() / "endpoints.yaml").read_text().replace("50051", admin_gateway.grpc.rpartition(":")[2])
        )
        for figure, smaller in figures:
            (path,) = (path for path in tmp_path.glob("*.yaml") if figure in path.read_text())
            path.write_text(path.read_text().replace(figure, smaller))
        with (tmp_path / "output.txt").open("wb") as output:
            envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        try:
            await until(lambda: answers(address))
            yield address
        finally:
            envoy.terminate()
            await envoy.wait()

    return made


async def answers(address: str) -> bool:
    """Return whether a new caller gets an answer."""
    with suppress(ConnectionError):
        found = await ask(address, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return [answer.status for answer in found] == [200]
    return False


def check_shape(path: str, answer: Answer, status: int) -> None:
    """Check the status, that the body has the dialect's format, and that the answer does not name Envoy."""
    assert answer.status == status, answer
    assert set(json.loads(answer.body)) == DIALECTS[path], answer
    assert "envoy" not in str(answer).lower()


# Sizes


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_body_that_is_too_large_is_413(admin_gateway: Gateway, path: str) -> None:
    """A body that is too large gets 413 in the dialect's format."""
    request = post(path, headers={**WITH_KEY, "content-length": MAX_MESSAGE_BYTES + 1}) + b" " * (MAX_MESSAGE_BYTES + 1)
    (answer,) = await ask(admin_gateway.rest, request)
    check_shape(path, answer, 413)


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("headers", LARGE.values(), ids=LARGE)
async def test_headers_that_are_too_large_are_431(gateway: Gateway, path: str, headers: dict[str, str]) -> None:
    """Headers that are too large get 431 in the dialect's format, and other calls on the connection go on."""
    request = post(path, json.dumps(ASK).encode(), {**WITH_KEY, "connection": "close", **headers})
    (answer,) = await ask(gateway.rest, request)
    check_shape(path, answer, 431)
    assert (answer.headers["x-should-retry"], bool(answer.headers["x-request-id"])) == ("false", True)
    async with http2(gateway.rest) as caller:
        await caller.send(*in_frames(1, caller.request(path, "POST", **WITH_KEY, **headers)))
        assert set(json.loads(await caller.answer(1))) == DIALECTS[path]
        await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, caller.request("/health")))
        assert b"healthy" in await caller.answer(3)


async def test_headers_within_the_bounds_pass(gateway: Gateway) -> None:
    """100 headers, and 60 KiB minus what Envoy adds, are accepted."""
    for headers in ({f"x-{number}": "x" for number in range(96)}, {"x-large": "x" * 60_500}):
        request = post(CHAT, json.dumps(ASK).encode(), {**WITH_KEY, "connection": "close", **headers})
        (answer,) = await ask(gateway.rest, request)
        assert answer.status == 200, answer


async def test_headers_that_no_filter_sees(gateway: Gateway) -> None:
    """Beyond Envoy's own limits, the answer is 431 in the default format; in HTTP/2 only that stream is reset."""
    headers = {f"x-{number}": "x" for number in range(500)}
    (answer,) = await ask(gateway.rest, post(CHAT, b"", {**WITH_KEY, **headers}))
    assert (answer.status, set(json.loads(answer.body))) == (431, {"error", "message", "code"})
    async with http2(gateway.rest) as caller:
        await caller.send(*in_frames(1, caller.request(CHAT, "POST", **WITH_KEY, **headers)))
        found = await caller.receive()
        while found is not None and found.kind != RST_STREAM:
            found = await caller.receive()
        assert found is not None
        await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, caller.request("/health")))
        assert b"healthy" in await caller.answer(3)


@pytest.mark.parametrize("headers", LARGE.values(), ids=LARGE)
async def test_headers_of_grpc_that_are_too_large(gateway: Gateway, headers: dict[str, str]) -> None:
    """Over gRPC, headers that are too large get RESOURCE_EXHAUSTED with a message from the edge."""
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(chat_pb2.GenerateRequest(), metadata=[*WITH_KEY.items(), *headers.items()])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "The headers of the request are too large."


def in_frames(stream: int, block: bytes, size: int = 16_000) -> list[bytes]:
    """Split a block of headers into as many frames as it needs."""
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    return [
        frame(CONTINUATION if number else HEADERS, END_HEADERS if number == len(pieces) - 1 else 0, stream, piece)
        for number, piece in enumerate(pieces)
    ]


@pytest.mark.parametrize("large", ["headers", "message"])
async def test_sizes_of_grpc(channel: grpc.aio.Channel, large: str) -> None:
    """A message of more than 32 MiB gets RESOURCE_EXHAUSTED. Metadata of more than 64 KiB is refused as well."""
    stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
    text = "x" * (MAX_MESSAGE_BYTES if large == "message" else 10)
    request = chat_pb2.GenerateRequest(
        model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])]
    )
    metadata = [("authorization", f"Bearer {KEY}")] + ([("x-large", "x" * 90_000)] if large == "headers" else [])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(request, metadata=metadata)
    expected = {grpc.StatusCode.RESOURCE_EXHAUSTED} | ({grpc.StatusCode.UNAVAILABLE} if large == "headers" else set())
    assert caught.value.code() in expected, caught.value


@pytest.mark.parametrize("path", [path for path in DIALECTS if "/proxy/" not in path])
@pytest.mark.parametrize("depth", [101, 5_000, 500_000])
async def test_json_that_is_too_deep_is_refused(admin_gateway: Gateway, path: str, depth: int) -> None:
    """JSON that is nested too deeply gets 400, or 422 in the dialects that use it for invalid bodies."""
    deep = "[" * depth + "]" * depth
    body = json.dumps({**ASK, "chat_input": "x", "chat_history": ASK["messages"], "deep": 0}).replace(
        '"deep": 0', f'"deep": {deep}'
    )
    (answer,) = await ask(admin_gateway.rest, post(path, body.encode(), {**WITH_KEY, "connection": "close"}))
    assert answer.status in {400, 422}, answer
    assert set(json.loads(answer.body)) <= DIALECTS[path] | {"details"}


@pytest.mark.parametrize(
    ("path", "field"), [(CHAT, "messages"), ("/api/v1/chat/generate", "chat_history"), ("/api/v1/ai/chat", "messages")]
)
async def test_messages_that_are_too_many_are_refused(admin_gateway: Gateway, path: str, field: str) -> None:
    """More than 10,000 messages are refused."""
    body = json.dumps({"model": "echo", field: ASK["messages"] * 10_001})
    (answer,) = await ask(admin_gateway.rest, post(path, body.encode(), {**WITH_KEY, "connection": "close"}))
    assert answer.status in {400, 422}, answer
    assert "10000 entries" in answer.body.decode()


@pytest.mark.parametrize("path", [path for path in DIALECTS if "/proxy/" not in path])
@pytest.mark.parametrize("entry", ["[]", '{"a":0}', "0"])
async def test_json_that_holds_too_much_is_refused(admin_gateway: Gateway, path: str, entry: str) -> None:
    """A body with more than 65,536 JSON values is refused in the dialect's format, wherever the values are."""
    valid = {**ASK, "chat_input": "x", "chat_history": ASK["messages"]}
    many = ",".join([entry] * 2 * MAX_VALUES)
    body = f'{json.dumps(valid)[:-1]},"extra":[{{"more":[{many}]}}]}}'.encode()
    (answer,) = await ask(admin_gateway.rest, post(path, body, {**WITH_KEY, "connection": "close"}))
    assert answer.status in {400, 422}, answer
    assert set(json.loads(answer.body)) <= DIALECTS[path] | {"details"}
    assert "must not hold more than 65536 values" in answer.body.decode()


async def test_a_long_body_has_no_key_in_it(admin_gateway: Gateway) -> None:
    """The engine looks for a key only in bodies up to 256 KiB. For a longer one it asks for the header, which then works."""
    path = "/api/engine/chat/echo"
    body = json.dumps({"model": "echo", "chat_input": "x" * MAX_KEYLESS_BYTES, "api_key": KEY}).encode()
    (answer,) = await ask(admin_gateway.rest, post(path, body, {"connection": "close"}))
    check_shape(path, answer, 401)
    assert "Authorization: Bearer" in answer.body.decode()
    (answer,) = await ask(admin_gateway.rest, post(path, body, {**WITH_KEY, "connection": "close"}))
    assert answer.status == 200
    short = json.dumps({"model": "echo", "chat_input": "x", "api_key": KEY}).encode()
    (answer,) = await ask(admin_gateway.rest, post(path, short, {"connection": "close"}))
    assert answer.status == 200


async def test_grpc_messages_that_hold_too_much_are_refused(gateway: Gateway) -> None:
    """A gRPC request with more than 65,536 values is refused, at the edge and at the server's own port."""
    many = chat_pb2.GenerateRequest(
        model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="x"))])]
    )
    many.extra.update({"x": [[]] * MAX_VALUES})
    parts = [message_pb2.Block(text=message_pb2.Text(text="x"))] * MAX_VALUES
    long = chat_pb2.GenerateRequest(model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=parts)])
    for address in (gateway.grpc, gateway.rest):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
            for request in (many, long):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Generate(request, metadata=[*WITH_KEY.items()])
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert caught.value.details() == "The request must not hold more than 65536 values."


async def test_grpc_messages_that_are_too_many_are_refused(gateway: Gateway) -> None:
    """Over gRPC too, more than 10,000 messages are refused."""
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="x"))])
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(chat_pb2.GenerateRequest(model="echo", messages=[message] * 10_001), metadata=[*WITH_KEY.items()])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# Time


async def test_headers_that_trickle_are_408(smaller_edge: Edge) -> None:
    """Headers that are not complete within request_headers_timeout get 408, in HTTP/1.1 and HTTP/2, even if bytes keep coming."""
    async with smaller_edge(("request_headers_timeout: 10s", "request_headers_timeout: 0.5s")) as address:
        reader, writer = await connect(address)
        trickling = asyncio.create_task(trickle(writer, b"x-a: b\r\n"))
        writer.write(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\n")
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        await until_closed(reader)
        await ended(trickling)
        async with http2(address) as caller:
            await caller.send(frame(HEADERS, 0, 1, caller.request(CHAT, "POST")))
            assert b"took too long" in await caller.answer(1)


@pytest.mark.slow
async def test_bodies_that_trickle_are_408(smaller_edge: Edge) -> None:
    """A body that is not complete within request_timeout gets 408 in the dialect's format, and the connection is closed."""

    async def check(address: str, path: str) -> None:
        for length in ({"content-length": 1000}, {"transfer-encoding": "chunked", "x-none": ""}):
            request = post(path, b"", {**WITH_KEY, **length})
            if "transfer-encoding" in length:
                request = request.replace(b"content-length: 0\r\n", b"")
            reader, writer = await connect(address)
            trickling = asyncio.create_task(trickle(writer, b" " if "content-length" in length else b"1\r\n \r\n"))
            writer.write(request)
            check_shape(path, await read_answer(reader), 408)
            await until_closed(reader)
            await ended(trickling)
        async with http2(address) as caller:
            head = caller.request(path, "POST", content_type="application/json", **WITH_KEY)
            await caller.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, 0, 1, b"{"))
            assert set(json.loads(await caller.answer(1))) == DIALECTS[path]

    async with smaller_edge(("request_timeout: 300s", "request_timeout: 0.5s")) as address:
        await asyncio.gather(*(check(address, path) for path in DIALECTS))


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Write a piece now and then, until the other side has closed the connection."""
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
    writer.close()


async def ended(trickling: asyncio.Task[None]) -> None:
    async with asyncio.timeout(10):
        await trickling


@pytest.mark.slow
async def test_idle_connections_are_closed(smaller_edge: Edge) -> None:
    """Idle connections are closed after idle_timeout, whether or not they had a call before."""
    async with smaller_edge(("idle_timeout: 900s", "idle_timeout: 0.5s")) as address:
        reader, writer = await connect(address)
        await until_closed(reader)
        await close(writer)
        async with http2(address) as caller:
            await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, caller.request("/health")))
            assert b"healthy" in await caller.answer(1)
            assert GOAWAY in {found.kind for found in await caller.until_closed()}


# Numbers


async def test_connections_are_counted(smaller_edge: Edge) -> None:
    """A connection beyond the maximum is closed at once. Others go on, and a closed one makes room for another."""
    most = "max_active_downstream_connections: "
    async with smaller_edge((f"{most}20000", f"{most}3")) as address, http2(address) as kept:
        held = [await connect(address) for _ in range(2)]
        reader, writer = await connect(address)
        await until_closed(reader)
        await close(writer)
        await kept.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, kept.request("/health")))
        assert b"healthy" in await kept.answer(1)
        for _, writer in held:
            await close(writer)
        await until(lambda: answers(address))


@pytest.mark.parametrize("port", ["edge", "server"])
async def test_streams_of_a_connection_are_counted(gateway: Gateway, port: str) -> None:
    """A connection may have 1,000 streams, as its settings state. The edge refuses only a stream beyond that."""
    async with http2(gateway.rest if port == "edge" else gateway.grpc) as caller:
        hello = await caller.receive()
        assert hello is not None
        assert (hello.kind, settings(hello)[3]) == (SETTINGS, MAX_CONCURRENT_STREAMS)
        if port == "server":
            return
        request = caller.request(CHAT, "POST", content_type="application/json")
        most = MAX_CONCURRENT_STREAMS
        await caller.send(*(frame(HEADERS, END_HEADERS, 1 + 2 * number, request) for number in range(most + 1)))
        refused = await caller.receive()
        while refused is not None and refused.kind != RST_STREAM:
            refused = await caller.receive()
        assert refused is not None
        assert (refused.stream, refused.code) == (1 + 2 * most, REFUSED_STREAM)
    assert await answers(gateway.rest)


@pytest.mark.slow
async def test_as_many_streams_as_a_connection_may_have(gateway: Gateway, upstream: OddUpstream) -> None:
    """None is refused, though the worker still counts those that have just ended when their callers begin the next ones."""
    upstream.script("odd-crowd", [head(), Pause(1), chunk(sse(delta("Hi", "stop"), "[DONE]")), LAST])
    body = {**ASK, "model": "odd-crowd", "stream": True}
    connector, patient = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, headers=WITH_KEY, timeout=patient) as http:

        async def caller() -> Counter[int]:
            found: Counter[int] = Counter()
            for _ in range(3):
                async with http.post(f"{gateway.url}/chat/completions", json=body) as answer:
                    await answer.read()
                    found[answer.status] += 1
            return found

        found = await asyncio.gather(*(caller() for _ in range(MAX_CONCURRENT_STREAMS)))
    assert sum(found, Counter()) == {200: 3 * MAX_CONCURRENT_STREAMS}


def settings(found: Frame) -> dict[int, int]:
    """Return the values of a SETTINGS frame by identifier; 3 is SETTINGS_MAX_CONCURRENT_STREAMS."""
    pairs = [found.payload[at : at + 6] for at in range(0, len(found.payload), 6)]
    return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


async def test_calls_of_a_worker_are_counted(upstream: OddUpstream, llm: Any, tmp_path: Path) -> None:
    """A call beyond a worker's maximum gets 429 with a time to retry, or RESOURCE_EXHAUSTED. A bad key still gets 401."""
    upstream.script("odd-busy", [HANG])
    held = Gateway(tmp_path, configuration(upstream, llm, limits={"calls_per_worker": 2, "drain": 0}))
    try:
        await asyncio.to_thread(held.wait_for, READY)
        async with held.client() as http, grpc.aio.insecure_channel(held.grpc) as channel:
            before = len(upstream.requests)
            calls = [asyncio.create_task(http.post("/chat/completions", json={**ASK, "model": "odd-busy"})) for _ in range(2)]
            await until(lambda: len(upstream.requests) >= before + 2)
            response = await http.post("/chat/completions", json=ASK)
            assert (response.status_code, response.headers["retry-after"]) == (429, "1")
            assert response.json()["error"]["type"] == "rate_limit_error"
            assert "x-should-retry" not in response.headers
            assert (await http.get("/models", headers={"authorization": "Bearer sk-bad"})).status_code == 401
            stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(chat_pb2.GenerateRequest(), metadata=[*WITH_KEY.items()])
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            health: Any = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
            for call in calls:
                call.cancel()

            async def room() -> bool:
                return (await http.post("/chat/completions", json=ASK)).status_code == 200

            await until(room)
    finally:
        assert await asyncio.to_thread(held.stop) == 0


# Floods of HTTP/2


def _floods(caller: Http2) -> dict[str, list[bytes]]:
    request = caller.request(CHAT, "POST", content_type="application/json", **WITH_KEY)
    opened = frame(HEADERS, END_HEADERS, 1, request)
    reset = frame(RST_STREAM, 0, 0, b"\0\0\0\x08")
    return {
        "rapid reset": [
            frame(HEADERS, END_HEADERS, n, request) + reset[:5] + n.to_bytes(4, "big") + reset[9:] for n in range(1, 6000, 2)
        ],
        "continuation": [
            frame(HEADERS, 0, 1, request),
            *[frame(CONTINUATION, 0, 1, fields({f"x-{n}": "y" * 1000})) for n in range(2000)],
        ],
        "empty continuation": [frame(HEADERS, 0, 1, request), *[frame(CONTINUATION, 0, 1)] * 20_000],
        "empty data": [opened, *[frame(DATA, 0, 1)] * 20_000],
        "settings": [frame(SETTINGS)] * 20_000,
        "ping": [frame(PING, payload=bytes(8))] * 20_000,
        "priority": [frame(2, 0, n, bytes([0, 0, 0, 0, 1])) for n in range(1, 40_000, 2)],
        "window update": [frame(WINDOW_UPDATE, 0, 0, bytes([0, 0, 0, 1]))] * 20_000,
    }


@pytest.mark.parametrize("port", ["edge", "server"])
@pytest.mark.parametrize(
    "flood",
    ["rapid reset", "continuation", "empty continuation", "empty data", "settings", "ping", "priority", "window update"],
)
async def test_a_flood_harms_nobody_else(gateway: Gateway, port: str, flood: str) -> None:
    """During and after a flood, other connections are served. The edge closes the connection of the flood."""
    address = gateway.rest if port == "edge" else gateway.grpc
    async with http2(address) as caller:
        sending = asyncio.create_task(caller.send(*_floods(caller)[flood]))
        for _ in range(5):
            assert await answers(gateway.rest)
        with suppress(ConnectionError):
            await sending
        if port == "edge" and flood != "continuation":  # after that one, only the stream is closed
            await caller.until_closed()
    async with gateway.client() as http:
        assert (await http.post("/chat/completions", json=ASK)).status_code == 200


async def test_pings_without_a_call_end_the_connection(gateway: Gateway) -> None:
    """At the server's own port, the third ping within 10 seconds without a call ends the connection, as gRPC specifies."""
    async with http2(gateway.grpc) as caller:
        await caller.send(*[frame(PING, payload=bytes(8))] * 5)
        codes = [found.code for found in await caller.until_closed() if found.kind == GOAWAY]
    assert ENHANCE_YOUR_CALM in codes


@pytest.mark.slow
async def test_a_connection_that_says_nothing_is_closed(gateway: Gateway) -> None:
    """The server's own port closes a connection that sends nothing within the time for its handshake."""
    reader, writer = await connect(gateway.grpc)
    await until_closed(reader)
    await close(writer)


# Smuggling

GET = "GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
SECOND = b"GET /api/v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n"


TWO_LENGTHS = [
    "content-length: 5\r\ncontent-length: {0}",
    "content-length: 0\r\ncontent-length: {0}",
    "content-length: {0}, {0}",
    "content-length: +{0}",
    "content-length: 0x10",
    "content-length: -1",
    "content-length : {0}",
    "content-length: {0}\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: {0}",
    "transfer-encoding: xchunked",
    "transfer-encoding: chunked, identity",
    "transfer-encoding : chunked",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    "transfer-encoding:\x0bchunked",
]


async def test_a_length_that_can_be_read_in_two_ways_is_400(gateway: Gateway) -> None:
    """An ambiguous length gets one answer, 400, on a connection that is then closed. The body is never read as a request."""
    body = b"0\r\n\r\n" + SECOND
    heads = [f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{headers.format(len(body))}\r\n\r\n" for headers in TWO_LENGTHS]
    found = await asyncio.gather(*(ask(gateway.rest, head.encode("latin-1") + body) for head in heads))
    assert {headers: [answer.status for answer in all_of] for headers, all_of in zip(TWO_LENGTHS, found, strict=True)} == {
        headers: [400] for headers in TWO_LENGTHS
    }


NO_HEADERS = [
    "x-a: b\r\n authorization: {}",
    "x-a: b\r\n\tauthorization: {}",
    "x-a: b\rauthorization: {}",
    "x-a: b\0authorization: {}",
    "author_ization: {}",
    "authorization : {}",
    ": x\r\nx: {}",
    "x-a: authorization: {}",
    "x_authorization: {}",
    "authorization: Bearer sk-bad\r\nauthorization: {}",
    "grpc-authorization: {}",
]


async def test_a_malformed_header_never_authenticates(gateway: Gateway) -> None:
    """A malformed header never authenticates: folded lines, bare line ends, odd names and duplicates get 400 or 401."""
    heads = [
        f"GET /api/v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers.format(f'Bearer {KEY}')}\r\n\r\n"
        for headers in NO_HEADERS
    ]
    found = await asyncio.gather(*(ask(gateway.rest, head.encode()) for head in heads))
    for headers, (answer,) in zip(NO_HEADERS, found, strict=True):
        assert answer.status in {400, 401}, headers


OPEN = "/health?/../{}"
"""What follows the question mark is the query of a path that needs no key."""

TARGETS = [
    OPEN,
    "http://elsewhere/{}",
    "http://user:password@elsewhere/{}",
    "//{}",
    "/./{}",
    "/%2e/{}",
    "/x/../{}",
    "/x/%2e%2e/{}",
    "/x/%2E%2e/{}",
    "/x/..%2f{}",
    "/x/%2e%2e%2f{}",
    "/x/%252e%252e/{}",
    "/x/..;/{}",
    "/x\\..\\{}",
    "/health/../{}",
    "/health/..//{}",
    "/health%2f..%2f{}",
    "/{}%00",
    "/{}%20",
    "/{}/",
    "/{};x=1",
    "/{}#x",
    "/\t{}",
    "/%09{}",
    "{}",
    "*",
    "elsewhere:80",
]


@pytest.mark.parametrize(
    "path", ["api/v1/models", "api/v1/chat/history", "api/engine/providers", "antiphon.v1.AdminService/ListKeys"]
)
async def test_no_spelling_of_a_path_avoids_the_key(gateway: Gateway, path: str) -> None:
    """No spelling of a path avoids the key: it is refused, or it needs the key of the path that it means."""
    found = await asyncio.gather(*(ask(gateway.rest, GET.format(target.format(path)).encode("latin-1")) for target in TARGETS))
    for target, (answer,) in zip(TARGETS, found, strict=True):
        assert answer.status in ({200} if target == OPEN else {400, 401, 404, 405}), (target, answer)
        assert not re.search(rb"envoy|echo|gpt-4o", answer.body), (target, answer)
