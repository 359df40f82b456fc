"""Replicas that gRPC callers reach without an edge, exchanged one after the other, or reconfigured, while calls go on."""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc
from tests.e2e.conftest import KEY, READY, Gateway
from tests.e2e.test_rolling import ECHO, Daemon, with_models
from tests.ports import free_port
from tests.waiting import until

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "operate.md"
METADATA = (("authorization", f"Bearer {KEY}"),)
WORDS = chat_pb2.GenerateRequest(
    model="echo",
    messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="word " * 100))])],
)

EACH = 2
"""Channels of each kind."""

SLOW = 120
"""Seconds: all that a gateway does is slow while clients take every core."""


def documented() -> dict[str, Any]:
    """The service config that the guide gives to callers."""
    found = re.search(r"```json\n(\{\"loadBalancingConfig\".*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    config: dict[str, Any] = json.loads(found[1])
    return config


def one_channel() -> dict[str, Any]:
    """The same for a channel that has one connection at a time, as channels have without a service config."""
    return {"methodConfig": documented()["methodConfig"]}


class Callers:
    """Channels on which calls of both kinds go on without a pause."""

    def __init__(self, addresses: list[str], configs: dict[str, dict[str, Any]]) -> None:
        """`configs` are service configs, by the name of the kind of channel."""
        self._target = "ipv4:" + ",".join(addresses)  # as the name of a headless Service has them
        self._configs = configs
        self._over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.failed: list[str] = []

    async def _again(self, kind: str, call: Callable[[], Awaitable[object]]) -> None:
        while not self._over.is_set():
            try:
                await call()
            except (grpc.aio.AioRpcError, AssertionError) as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "CUT"
                self.failed.append(f"{kind}: {code}: {error!r}")
            self.calls[kind] += 1

    async def _channel(self, kind: str, config: dict[str, Any]) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config", json.dumps(config)),
            ("grpc.max_reconnect_backoff_ms", 1000),  # the address is the same, while a new pod has one that nobody waits for
        ]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            models, chat = models_pb2_grpc.ModelServiceStub(channel), chat_pb2_grpc.ChatServiceStub(channel)

            async def unary() -> None:
                await models.ListModels(models_pb2.ListModelsRequest(), metadata=METADATA, timeout=30)

            async def stream() -> None:
                answers = [answer async for answer in chat.StreamGenerate(WORDS, metadata=METADATA, timeout=60)]
                assert answers[-1].events[-1].WhichOneof("event") == "finished"

            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(f"{kind}, unary", unary))
                group.create_task(self._again(f"{kind}, stream", stream))

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask for as long as the block lasts, and then until each call has ended."""
        async with asyncio.TaskGroup() as group:
            for kind, config in self._configs.items():
                for _ in range(EACH):
                    group.create_task(self._channel(kind, config))
            try:
                yield
            finally:
                self._over.set()

    async def all_have_called(self) -> None:
        """Return when each kind of call has ended once more."""
        before = self.calls.copy()
        kinds = [f"{kind}, {method}" for kind in self._configs for method in ("unary", "stream")]
        await until(lambda: all(self.calls[kind] > before[kind] for kind in kinds), SLOW)


async def start(folder: Path, address: str, name: str) -> Gateway:
    """A replica at this address."""
    (folder / name).mkdir()
    gateway = Gateway(folder / name, {**ECHO, "grpc": {"listen": address}})
    await until(lambda: READY in gateway.said, SLOW)
    return gateway


def connections(address: str) -> int:
    """Connections that a replica has, of which callers know in a moment."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net", name).read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_rolling_restart_costs_no_call_of_a_caller_past_the_edge(tmp_path: Path) -> None:
    """Two replicas are exchanged: with the service config of the guide no call fails, however many connections a channel has."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    replicas = [await start(tmp_path, address, f"old-{number}") for number, address in enumerate(addresses)]
    callers = Callers(addresses, {"round robin": documented(), "one channel": one_channel()})
    async with callers.asking():
        for number, address in enumerate(addresses):
            await callers.all_have_called()
            assert await asyncio.to_thread(replicas[number].stop) == 0
            replicas[number] = await start(tmp_path, address, f"new-{number}")
            await until(lambda: connections(address) >= EACH, SLOW)  # noqa: B023  # those of "round robin"
        await callers.all_have_called()
    assert callers.failed == []
    for replica in replicas:
        assert await asyncio.to_thread(replica.stop) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_reload_costs_no_call_of_a_caller_past_the_edge(tmp_path: Path) -> None:
    """Nor does the exchange of both workers of the only gateway there is."""
    address = f"127.0.0.1:{free_port()}"
    config = {**with_models("echo"), "workers": 2, "grpc": {"listen": address}}
    gateway = Daemon(tmp_path, config)
    await until(lambda: READY in gateway.said, SLOW)
    callers = Callers([address], {"round robin": documented(), "one channel": one_channel()})
    async with callers.asking():
        for count in (1, 2):
            await callers.all_have_called()
            gateway.process.send_signal(signal.SIGHUP)
            await until(lambda: gateway.said.count("Reloaded.") == count, SLOW)  # noqa: B023  # awaited here
        await callers.all_have_called()
    assert callers.failed == []
    assert await asyncio.to_thread(gateway.stop) == 0
