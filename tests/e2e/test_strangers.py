"""Callers without a key: no memory is used for them at either port, however many streams they open.

The attacks are limited in size; memory is measured.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import grpc
import httpx2
import pytest
import pytest_asyncio

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway
from tests.e2e.test_up import ECHO, HELLO, children
from tests.e2e.wire import (
    ACK,
    DATA,
    DIALECTS,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2,
    close,
    connect,
    frame,
    http2,
    post,
    read_answer,
)

MIB = 1024 * 1024
WITH_KEY = {"authorization": f"Bearer {KEY}"}
GENERATE = "/antiphon.v1.ChatService/Generate"
ENGINE = "/api/engine/chat/echo"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Yield a gateway with one worker, whose memory is measured."""
    started = Gateway(tmp_path_factory.mktemp("door"), {**ECHO, "workers": 1})
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text


def memory(gateway: Gateway, of: str) -> float:
    """Return the memory that a part of the gateway uses, in MiB."""
    (pid,) = children(gateway, of)
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / MIB


class Peak:
    """The maximum growth of each part's memory while a block ran, in MiB."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._before = {part: memory(gateway, part) for part in ("antiphon.worker", "envoy")}
        self.grown = dict.fromkeys(self._before, 0.0)
        self.report = ""

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        self._look()
        for part, before in self._before.items():
            self.report += (
                f"{part}: {before:.0f} MiB before, {before + self.grown[part]:.0f} peak, {memory(self._gateway, part):.0f} after; "
            )

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.02)

    def _look(self) -> None:
        for part, before in self._before.items():
            self.grown[part] = max(self.grown[part], memory(self._gateway, part) - before)


# Refusals before the body is sent


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_large_body_without_a_key_is_401_before_it_is_sent(door: Gateway, path: str) -> None:
    """Without a key a large body gets 401 before it is sent, in the dialect's format, in HTTP/1.1 and HTTP/2."""
    lengths: list[dict[str, Any]] = [{"content-length": 30 * MIB}, {"content-length": 300_000}, {"transfer-encoding": "chunked"}]
    for length in lengths:
        for key in ({}, {"authorization": "Bearer sk-bad"}):
            request = post(path, headers={**key, **length})
            if "transfer-encoding" in length:
                request = request.replace(b"content-length: 0\r\n", b"")
            reader, writer = await connect(door.rest)
            writer.write(request)
            answer = await read_answer(reader)
            assert answer.status == 401, answer
            assert set(json.loads(answer.body)) <= DIALECTS[path]
            assert answer.headers["x-request-id"]
            assert "key" in answer.body.decode().lower()
            await close(writer)
    async with http2(door.rest) as caller:
        await caller.send(frame(HEADERS, END_HEADERS, 1, caller.request(path, "POST", content_type="application/json")))
        assert set(json.loads(await caller.answer(1))) <= DIALECTS[path]


async def test_a_body_that_holds_its_key_may_have_256_kib(door: Gateway) -> None:
    """A body with the key in it may have 256 KiB. A longer one needs the key in a header as well."""
    async with httpx2.AsyncClient(base_url=f"http://{door.rest}", trust_env=False, timeout=20) as http:
        empty = {"authorization": ""}
        for size, headers, status in ((200_000, {}, 200), (300_000, {}, 401), (300_000, empty, 401), (300_000, WITH_KEY, 200)):
            body = {"model": "echo", "chat_input": "x" * size, "api_key": KEY}
            assert (await http.post(ENGINE, json=body, headers=headers)).status_code == status, size


async def test_many_at_once_may_have_their_key_in_the_body(door: Gateway) -> None:
    """Many calls at once with their key in the body all succeed, as batches of the engine's clients send them."""
    body = {"model": "echo", "chat_input": "x" * 100_000, "api_key": KEY}
    async with httpx2.AsyncClient(base_url=f"http://{door.rest}", trust_env=False, timeout=20) as http:
        for _ in range(3):
            answers = await asyncio.gather(*(http.post(ENGINE, json=body) for _ in range(40)))
            assert {answer.status_code for answer in answers} == {200}


async def test_large_bodies_with_a_key_pass(door: Gateway) -> None:
    """With a key, large bodies pass, with and without a known length."""
    text = json.dumps({**HELLO, "messages": [{"role": "user", "content": "x" * 2_000_000}]}).encode()

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async with door.client() as http:
        for body in (text, pieces(text), pieces(json.dumps(HELLO).encode())):
            response = await http.post("/chat/completions", content=body, headers={"content-type": "application/json"})
            assert response.status_code == 200


# Attacks


class Sender:
    """Sends the bodies of several streams in one HTTP/2 connection, as much as flow control allows."""

    def __init__(self, caller: Http2, streams: dict[int, int]) -> None:
        """`streams` are the bytes to send in each stream after the five-byte prefix of the message."""
        self._caller = caller
        self._left = streams
        self._initial = 65535
        self._connection = 65535 - 5 * len(streams)
        self._windows = dict.fromkeys(streams, -5)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Send until all is sent, every stream has ended, or flow control allows no more."""
        reading = asyncio.create_task(self._read())
        with suppress(ConnectionError, TimeoutError):
            while self._left:
                self._changed.clear()
                moved = False
                for stream, left in [*self._left.items()]:
                    size = min(left, 16_384, self._connection, self._initial + self._windows[stream])
                    if size > 0 and stream in self._left:
                        self._left[stream] -= size
                        self._windows[stream] -= size
                        self._connection -= size
                        if not self._left[stream]:
                            del self._left[stream]
                        await self._caller.send(frame(DATA, 0, stream, bytes(size)))
                        moved = True
                if not moved:
                    await asyncio.wait_for(self._changed.wait(), 1)
        reading.cancel()

    async def _read(self) -> None:
        while (received := await self._caller.receive()) is not None:
            kind, flags, stream, payload = received
            if kind == SETTINGS and not flags:
                for at in range(0, len(payload), 6):
                    if payload[at + 1] == 4:
                        self._initial = int.from_bytes(payload[at + 2 : at + 6], "big")
                await self._caller.send(frame(SETTINGS, ACK))
            elif kind == PING and not flags:
                await self._caller.send(frame(PING, ACK, 0, payload))
            elif kind == WINDOW_UPDATE:
                if stream:
                    self._windows[stream] += int.from_bytes(payload, "big")
                else:
                    self._connection += int.from_bytes(payload, "big")
            elif kind == RST_STREAM or (kind == HEADERS and flags & 1):
                self._left.pop(stream, None)
            self._changed.set()
        self._left.clear()
        self._changed.set()


async def half_sent(address: str, path: str, streams: int, announced: int, size: int, headers: dict[str, str]) -> None:
    """Open streams in one connection, each announcing a message of `announced` bytes and sending only `size` of them."""
    async with http2(address) as caller:
        head = caller.request(path, "POST", content_type="application/grpc", te="trailers", **headers)
        numbers = [1 + 2 * number for number in range(streams)]
        prefix = b"\0" + announced.to_bytes(4, "big")
        for number in numbers:
            await caller.send(frame(HEADERS, END_HEADERS, number, head), frame(DATA, 0, number, prefix))
        await Sender(caller, dict.fromkeys(numbers, size)).run()


def typed(size: int) -> chat_pb2.GenerateRequest:
    text = message_pb2.Block(text=message_pb2.Text(text="x" * size))
    return chat_pb2.GenerateRequest(model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[text])])


async def whole_grpc(address: str, size: int, metadata: dict[str, str]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        with suppress(grpc.aio.AioRpcError):
            await stub.Generate(typed(size), metadata=[*metadata.items()])


async def whole_rest(door: Gateway, size: int, headers: dict[str, str]) -> None:
    body = json.dumps({**HELLO, "messages": [{"role": "user", "content": "x" * size}]}).encode()
    reader, writer = await connect(door.rest)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(post("/api/v1/chat/completions", body, {**headers, "connection": "close"}))
        await asyncio.wait([asyncio.create_task(_until_drained(writer)), asyncio.create_task(read_answer(reader))])
    await close(writer)


async def _until_drained(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        await writer.drain()


ATTACKS: dict[str, Callable[[Gateway], Awaitable[Any]]] = {
    "150 half-sent streams, gRPC through the edge": lambda to: half_sent(to.rest, GENERATE, 150, 31 * MIB, 24 * MIB, {}),
    "150 half-sent streams, gRPC": lambda to: half_sent(to.grpc, GENERATE, 150, 31 * MIB, 24 * MIB, {}),
    "six whole bodies at once, REST": lambda to: asyncio.gather(*(whole_rest(to, 31 * MIB, {}) for _ in range(6))),
    "six whole bodies at once, gRPC through the edge": lambda to: asyncio.gather(
        *(whole_grpc(to.rest, 31 * MIB, {}) for _ in range(6))
    ),
    "six whole bodies at once, gRPC": lambda to: asyncio.gather(*(whole_grpc(to.grpc, 31 * MIB, {}) for _ in range(6))),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
async def test_nothing_is_held_for_a_stranger(door: Gateway, attack: str) -> None:
    """An attack without a key does not use much memory in the worker or in Envoy, and others are served meanwhile."""
    async with door.client() as http, Peak(door) as peak:
        attacking = asyncio.ensure_future(ATTACKS[attack](door))
        while not attacking.done():
            assert (await http.post("/chat/completions", json=HELLO)).status_code == 200
            await asyncio.sleep(0.01)
        await attacking
    assert peak.grown["antiphon.worker"] < 40, peak.report
    assert peak.grown["envoy"] < 120, peak.report


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Check", "/antiphon.rest.v1.EngineService/CreateEngineChat"])
@pytest.mark.parametrize("port", ["edge", "server"])
async def test_little_is_held_where_no_key_is_needed(door: Gateway, path: str, port: str) -> None:
    """Methods without a key accept at most eight messages at a time."""
    async with door.client() as http, Peak(door) as peak:
        attacking = asyncio.ensure_future(half_sent(door.rest if port == "edge" else door.grpc, path, 60, 31 * MIB, 24 * MIB, {}))
        while not attacking.done():
            assert (await http.post("/chat/completions", json=HELLO)).status_code == 200
            await asyncio.sleep(0.01)
        await attacking
    assert peak.grown["antiphon.worker"] < 8 * 31 + 100, peak.report
