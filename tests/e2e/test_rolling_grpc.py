"""Replicas that gRPC clients reach without an edge, replaced one after the other, or reconfigured, while calls go on."""

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
"""The number of channels of each kind."""

SLOW = 120
"""Seconds to wait for a gateway, which is slow while clients use every core."""


def documented() -> dict[str, Any]:
    """Return the service config that the guide recommends."""
    found = re.search(r"```json\n(\{\"loadBalancingConfig\".*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    config: dict[str, Any] = json.loads(found[1])
    return config


def one_channel() -> dict[str, Any]:
    """Return the same for a channel with one connection at a time, as channels have by default."""
    return {"methodConfig": documented()["methodConfig"]}


class Callers:
    """Channels on which unary and streamed calls follow each other without a pause."""

    def __init__(self, addresses: list[str], configs: dict[str, dict[str, Any]]) -> None:
        """Take the addresses, and service configs by the name of the kind of channel."""
        self._target = "ipv4:" + ",".join(addresses)  # as the name of a headless Service resolves
        self._configs = configs
        self._over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.failed: list[str] = []

    async def _repeat(self, kind: str, call: Callable[[], Awaitable[object]]) -> None:
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
            (
                "grpc.max_reconnect_backoff_ms",
                1000,
            ),  # a new pod has a new address, but here the address stays and would be in backoff
        ]
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            models, chat = models_pb2_grpc.ModelServiceStub(channel), chat_pb2_grpc.ChatServiceStub(channel)

            async def unary() -> None:
                await models.ListModels(models_pb2.ListModelsRequest(), metadata=METADATA, timeout=30)

            async def stream() -> None:
                answers = [answer async for answer in chat.StreamGenerate(WORDS, metadata=METADATA, timeout=60)]
                assert answers[-1].events[-1].WhichOneof("event") == "finished"

            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(f"{kind}, unary", unary))
                group.create_task(self._repeat(f"{kind}, stream", stream))

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Make calls during the block, and then wait until each call has ended."""
        async with asyncio.TaskGroup() as group:
            for kind, config in self._configs.items():
                for _ in range(EACH):
                    group.create_task(self._channel(kind, config))
            try:
                yield
            finally:
                self._over.set()

    async def all_have_called(self) -> None:
        """Wait until one more call of each kind has ended."""
        before = self.calls.copy()
        kinds = [f"{kind}, {method}" for kind in self._configs for method in ("unary", "stream")]
        await until(lambda: all(self.calls[kind] > before[kind] for kind in kinds), SLOW)


async def start(folder: Path, address: str, name: str) -> Gateway:
    """Start a replica at this address, and wait until it is up."""
    (folder / name).mkdir()
    gateway = Gateway(folder / name, {**ECHO, "grpc": {"listen": address}})
    await until(lambda: READY in gateway.output_text, SLOW)
    return gateway


def connections(address: str) -> int:
    """Return the number of established connections at a replica's port."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net", name).read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_rolling_restart_costs_no_call_of_a_caller_past_the_edge(tmp_path: Path) -> None:
    """With the guide's service config, no call fails while two replicas are replaced."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    replicas = [await start(tmp_path, address, f"old-{number}") for number, address in enumerate(addresses)]
    callers = Callers(addresses, {"round robin": documented(), "one channel": one_channel()})
    async with callers.calling():
        for number, address in enumerate(addresses):
            await callers.all_have_called()
            assert await asyncio.to_thread(replicas[number].stop) == 0
            replicas[number] = await start(tmp_path, address, f"new-{number}")
            await until(lambda: connections(address) >= EACH, SLOW)  # noqa: B023  # the connections of "round robin"
        await callers.all_have_called()
    assert callers.failed == []
    for replica in replicas:
        assert await asyncio.to_thread(replica.stop) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_reload_costs_no_call_of_a_caller_past_the_edge(tmp_path: Path) -> None:
    """No call fails while both workers of a single gateway are replaced."""
    address = f"127.0.0.1:{free_port()}"
    config = {**with_models("echo"), "workers": 2, "grpc": {"listen": address}}
    gateway = Daemon(tmp_path, config)
    await until(lambda: READY in gateway.output_text, SLOW)
    callers = Callers([address], {"round robin": documented(), "one channel": one_channel()})
    async with callers.calling():
        for count in (1, 2):
            await callers.all_have_called()
            gateway.process.send_signal(signal.SIGHUP)
            await until(lambda: gateway.output_text.count("Reloaded.") == count, SLOW)  # noqa: B023  # awaited here
        await callers.all_have_called()
    assert callers.failed == []
    assert await asyncio.to_thread(gateway.stop) == 0
