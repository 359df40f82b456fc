"""A thousand callers that leave in mid-stream leave nothing behind."""

import asyncio
import gc
import resource
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from antiphon.app import App
from antiphon.config import AuthConfig, Config, DatabaseConfig, GrpcConfig, KeyConfig, ProviderConfig, RestConfig
from antiphon.database.migrate import migrate
from antiphon.edge import files as edge
from antiphon.up.readiness import missing
from antiphon.v1 import chat_pb2_grpc
from tests.e2e.conftest import KEY
from tests.e2e.test_grpc import METADATA, generate_request
from tests.odd_upstream import HANG, OddUpstream, chunk, delta, head, sse
from tests.ports import free_port
from tests.waiting import until

AT_ONCE = 50


class Here(NamedTuple):
    """A server in this process, where its tasks can be counted, behind a real Envoy."""

    app: App
    grpc: str
    rest_port: int


@asynccontextmanager
async def gateway_here(folder: Path, upstream: OddUpstream) -> AsyncGenerator[Here, None]:
    config = Config(
        grpc=GrpcConfig(listen=f"127.0.0.1:{free_port()}"),
        providers={"odd": ProviderConfig(base_url=upstream.base_url, models=("odd-leak",))},
        auth=AuthConfig(keys=(KeyConfig(name="test", key_env="K"),)),
        database=DatabaseConfig(url=f"sqlite:///{folder}/leaks.db"),
    )
    await migrate(config.database.url)
    app = App(config, {"K": KEY})
    stop = asyncio.Event()
    serving = asyncio.create_task(app.serve([config.grpc.listen, f"unix:{folder}/worker-0.sock"], stop))
    port = free_port()
    edge.prepare(folder, RestConfig(listen=f"127.0.0.1:{port}"), ["worker-0.sock"])
    envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=folder, stderr=asyncio.subprocess.DEVNULL)
    try:
        await until(lambda: not missing(folder, 1))
        yield Here(app, config.grpc.listen, port)
    finally:
        envoy.send_signal(signal.SIGTERM)
        await envoy.wait()
        stop.set()
        await serving


async def leave_rest(here: Here) -> None:
    """Read the first words of a stream, then close the connection."""
    body = b'{"model": "odd-leak", "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    reader, writer = await asyncio.open_connection("127.0.0.1", here.rest_port)
    writer.write(
        b"POST /api/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (KEY.encode(), len(body), body)
    )
    await reader.readuntil(b"Hel")
    writer.close()
    await writer.wait_closed()


async def leave_grpc(here: Here) -> None:
    """Read the first event of a stream, then cancel the call."""
    async with grpc.aio.insecure_channel(here.grpc) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(generate_request("odd-leak"), metadata=METADATA)
        await call.read()
        call.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("leave", [leave_rest, leave_grpc])
async def test_a_thousand_cancelled_streams_leave_nothing(leave: Callable[[Here], Awaitable[None]], tmp_path: Path) -> None:
    """Cancelled streams leave no task, provider connection or call, and memory does not grow with their number."""
    async with OddUpstream() as upstream, gateway_here(tmp_path, upstream) as here:
        upstream.script("odd-leak", [head(), chunk(sse(delta("Hel"))), HANG])

        async def settled(count: int) -> tuple[int, int]:
            """Cancel `count` calls, and return the number of tasks and of live objects."""
            for _ in range(count // AT_ONCE):
                await asyncio.gather(*(leave(here) for _ in range(AT_ONCE)))
            await until(lambda: not upstream.open_connections and not here.app.in_flight)
            upstream.requests.clear()
            gc.collect()
            return len(asyncio.all_tasks()), len(gc.get_objects())

        tasks, objects = await settled(200)  # caches and pools are warm
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        after_tasks, after_objects = await settled(1000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        assert upstream.connections >= 1200
        assert upstream.left.qsize() == 1200, "every one was cancelled at the provider"
        assert after_tasks <= tasks + 2
        assert after_objects - objects < 1000, "fewer than one object for each call"
        assert grown < 10_000, "kB"
