"""Gateways behind a balancer, exchanged one after the other, or reconfigured, while all kinds of clients go on asking."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import openai
import pytest

from antiphon.v1 import models_pb2, models_pb2_grpc
from tests.e2e.balancer import Balancer
from tests.e2e.conftest import KEY, READY, Gateway
from tests.waiting import until

ECHO: dict[str, Any] = {
    "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0.01}},
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
    "limits": {"drain_delay": 3},
}
HELLO: list[Any] = [{"role": "user", "content": "Hello, how do you do today?"}]
LONG: list[Any] = [{"role": "user", "content": "word " * 150}]
BEARER = {"authorization": f"Bearer {KEY}"}

EACH = 4
"""Clients of each kind."""


class Callers:
    """Clients that ask again and again, each over connections that it keeps; no client tries a call again by itself."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.failed: list[str] = []

    async def _again(self, kind: str, call: Callable[[], Awaitable[object]]) -> None:
        while not self._over.is_set():
            try:
                await call()
            except (httpx2.HTTPError, openai.OpenAIError, grpc.aio.AioRpcError, AssertionError) as error:
                self.failed.append(f"{kind}: {error!r}")
            self.calls[kind] += 1

    async def _http(self) -> None:
        async with httpx2.AsyncClient(base_url=f"http://{self._address}", headers=BEARER, trust_env=False, timeout=20) as client:

            async def call() -> None:
                assert (await client.get("/api/v1/models")).status_code == 200

            await self._again("http", call)

    async def _sdk(self, *, stream: bool) -> None:
        async with openai.AsyncOpenAI(base_url=f"http://{self._address}/v1", api_key=KEY, max_retries=0, timeout=20) as client:

            async def whole() -> None:
                reply = await client.chat.completions.create(model="echo", messages=HELLO)
                assert reply.choices[0].finish_reason == "stop"

            async def streamed() -> None:
                chunks = [chunk async for chunk in await client.chat.completions.create(model="echo", messages=LONG, stream=True)]
                assert any(chunk.choices[0].finish_reason == "stop" for chunk in chunks if chunk.choices)

            await self._again("stream" if stream else "sdk", streamed if stream else whole)

    async def _grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = models_pb2_grpc.ModelServiceStub(channel)

            async def call() -> None:
                await stub.ListModels(models_pb2.ListModelsRequest(), metadata=list(BEARER.items()), timeout=20)

            await self._again("grpc", call)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask for as long as the block lasts, and then until each call has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(EACH):
                for ask in (self._http(), self._sdk(stream=False), self._sdk(stream=True), self._grpc()):
                    group.create_task(ask)
            try:
                yield
            finally:
                self._over.set()


@pytest.mark.slow
async def test_a_rolling_restart_costs_no_call(tmp_path: Path) -> None:
    """Two gateways are exchanged one after the other: no call of any client fails, and no stream is cut."""
    made: list[Gateway] = []

    async def start(balancer: Balancer) -> Gateway:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        gateway = Gateway(folder, ECHO)
        made.append(gateway)
        await asyncio.to_thread(gateway.wait_for, READY)
        balancer.add(gateway.rest, gateway.rest)
        await until(lambda: balancer.ready(gateway.rest), 90)  # the clients and the balancer share a core with it
        return gateway

    async with Balancer() as balancer:
        gateways = [await start(balancer), await start(balancer)]
        callers = Callers(balancer.address)
        async with callers.asking():
            for old in gateways:
                await start(balancer)
                before = callers.calls.copy()
                assert await asyncio.to_thread(old.stop) == 0
                assert all(callers.calls[kind] > before[kind] for kind in ("http", "sdk", "stream", "grpc"))
        for gateway in made[2:]:
            assert await asyncio.to_thread(gateway.stop) == 0
    assert callers.failed == []
