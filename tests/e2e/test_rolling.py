"""Gateways behind a balancer, replaced one after the other, or reconfigured, while clients of all kinds keep calling."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import openai
import pytest
from llmock.testing import LLMockServer

from antiphon.v1 import models_pb2, models_pb2_grpc
from tests.e2e.balancer import Balancer
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse
from tests.postgres import Postgres
from tests.waiting import block_until, until

ECHO: dict[str, Any] = {
    "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0.01}},
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
    "limits": {"drain_delay": 3},
}
HELLO: list[Any] = [{"role": "user", "content": "Hello, how do you do today?"}]
LONG: list[Any] = [{"role": "user", "content": "word " * 150}]
BEARER = {"authorization": f"Bearer {KEY}"}

EACH = 2
"""The number of clients of each kind."""


class Callers:
    """Clients that call repeatedly over connections that they keep. None retries by itself."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.failed: list[str] = []

    async def _repeat(self, kind: str, call: Callable[[], Awaitable[object]]) -> None:
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

            await self._repeat("http", call)

    async def _sdk(self, *, stream: bool) -> None:
        async with openai.AsyncOpenAI(base_url=f"http://{self._address}/v1", api_key=KEY, max_retries=0, timeout=20) as client:

            async def whole() -> None:
                reply = await client.chat.completions.create(model="echo", messages=HELLO)
                assert reply.choices[0].finish_reason == "stop"

            async def streamed() -> None:
                chunks = [chunk async for chunk in await client.chat.completions.create(model="echo", messages=LONG, stream=True)]
                assert any(chunk.choices[0].finish_reason == "stop" for chunk in chunks if chunk.choices)

            await self._repeat("stream" if stream else "sdk", streamed if stream else whole)

    async def _grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = models_pb2_grpc.ModelServiceStub(channel)

            async def call() -> None:
                await stub.ListModels(models_pb2.ListModelsRequest(), metadata=list(BEARER.items()), timeout=20)

            await self._repeat("grpc", call)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Make calls during the block, and then wait until each call has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(EACH):
                for client in (self._http(), self._sdk(stream=False), self._sdk(stream=True), self._grpc()):
                    group.create_task(client)
            try:
                yield
            finally:
                self._over.set()


@pytest.mark.slow
async def test_a_rolling_restart_costs_no_call(tmp_path: Path) -> None:
    """When two gateways are replaced one after the other, no call fails and no stream is cut."""
    made: list[Gateway] = []

    async def start(balancer: Balancer) -> Gateway:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        gateway = Gateway(folder, ECHO)
        made.append(gateway)
        await asyncio.to_thread(gateway.wait_for, READY)
        balancer.add(gateway.rest, gateway.rest)
        await until(lambda: balancer.ready(gateway.rest), 90)  # it shares its core with the clients and the balancer
        return gateway

    async with Balancer() as balancer:
        gateways = [await start(balancer), await start(balancer)]
        callers = Callers(balancer.address)
        async with callers.calling():
            for old in gateways:
                await start(balancer)
                before = callers.calls.copy()
                assert await asyncio.to_thread(old.stop) == 0
                assert all(callers.calls[kind] > before[kind] for kind in ("http", "sdk", "stream", "grpc"))
        for gateway in made[2:]:
            assert await asyncio.to_thread(gateway.stop) == 0
    assert callers.failed == []


class Daemon(Gateway):
    """A gateway without a terminal, as a service manager starts it."""

    session = True


def workers(gateway: Gateway) -> set[int]:
    """Return the process ids of the workers."""
    found = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    return {int(child) for child in found if b"antiphon.worker" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")}


async def models(gateway: Gateway, key: str = KEY) -> list[str] | int:
    """Return the names of the models, or the status if it is not 200."""
    async with gateway.client(headers={"authorization": f"Bearer {key}"}) as http:
        answer = await http.get("/models")
        return [model["id"] for model in answer.json()["data"]] if answer.status_code == 200 else answer.status_code


def with_models(*names: str) -> dict[str, Any]:
    return {**ECHO, "providers": {"echo": {**ECHO["providers"]["echo"], "models": list(names)}}, "limits": {}}


@pytest.mark.slow
async def test_a_reload_costs_no_call(tmp_path: Path) -> None:
    """A changed file, and SIGHUP, replace both workers under load. New models are served, and no call fails."""
    gateway = Daemon(tmp_path, {**with_models("echo"), "workers": 2})
    await asyncio.to_thread(gateway.wait_for, READY)
    before = workers(gateway)
    callers = Callers(gateway.rest)
    async with callers.calling():
        gateway.configure({**with_models("echo", "second"), "workers": 2})
        await until(lambda: "Reloaded." in gateway.output_text, 90)
        assert await models(gateway) == ["echo", "second"]
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: gateway.output_text.count("Reloaded.") == 2, 90)
    assert callers.failed == []
    assert all(callers.calls[kind] for kind in ("http", "sdk", "stream", "grpc"))
    await until(lambda: len(workers(gateway)) == 2)
    assert not workers(gateway) & before
    assert await asyncio.to_thread(gateway.stop) == 0


async def test_a_stream_outlives_a_reload(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """An old worker stays until its stream ends, even longer than `limits.drain`, which applies to a stop."""
    gate = asyncio.Event()
    upstream.script("odd-reload", [head(), chunk(sse(delta("Hel"))), gate, chunk(sse(delta("lo", "stop"), "[DONE]")), LAST])
    config = configuration(upstream, llm, limits={"drain": 0.1})
    config["providers"]["odd"]["timeouts"] = {"stall": 60}
    gateway = Daemon(tmp_path, config)
    await asyncio.to_thread(gateway.wait_for, READY)
    (old,) = workers(gateway)
    body = {"model": "odd-reload", "messages": HELLO, "stream": True}
    async with gateway.client() as http, http.stream("POST", "/chat/completions", json=body) as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if "Hel" in text and not gate.is_set():
                gateway.configure({**config, "prices": {"odd-reload": {"input": 1, "output": 2}}})
                await asyncio.to_thread(gateway.wait_for, "Reloaded.")
                await asyncio.to_thread(gateway.wait_for, "draining")
                assert await models(gateway)
                gate.set()
    assert text.endswith("data: [DONE]\n\n")
    await until(lambda: old not in workers(gateway))
    assert "starting it again" not in gateway.output_text
    assert await asyncio.to_thread(gateway.stop) == 0


async def test_a_reload_keeps_what_is_known_of_deployments(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """A deployment that is left alone stays so in the new workers, unless its settings changed: then it is tried again."""
    good = [head(), chunk(sse(delta("Well"))), chunk(sse(delta(finish="stop"), "[DONE]")), LAST]
    down = [answer({"error": {"message": "x"}}, "503 Service Unavailable")]
    async with OddUpstream() as east, OddUpstream() as west:
        east.default, west.default = down, good
        config = configuration(upstream, llm, routing={"breaker": {"open": 60}})
        deployments = {"east": {"base_url": east.base_url}, "west": {"base_url": west.base_url}}
        config["providers"]["pair"] = {"models": ["pair"], "deployments": deployments}
        gateway = Daemon(tmp_path, config)
        await asyncio.to_thread(gateway.wait_for, READY)

        async def call(times: int) -> None:
            async with gateway.client() as http:
                for _ in range(times):
                    response = await http.post("/chat/completions", json={"model": "pair", "messages": HELLO, "stream": True})
                    assert "Well" in response.text

        async def reload(times: int) -> None:
            gateway.configure(config)
            await until(lambda: gateway.output_text.count("Reloaded.") == times, 60)

        while "deployment_left_alone" not in gateway.output_text:
            await call(1)
        failed = len(east.requests)
        config["prices"] = {"pair": {"input": 1, "output": 2}}
        await reload(1)
        assert "routing_taken_over" in gateway.output_text
        await call(20)
        assert len(east.requests) == failed, "the new worker forgot that it is down"
        deployments["east"]["headers"] = {"x-cure": "yes"}  # type: ignore[assignment]
        east.default = good
        await reload(2)
        while len(east.requests) == failed:
            await call(1)
        assert await asyncio.to_thread(gateway.stop) == 0


async def test_a_configuration_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    """A broken file, or one that needs a restart, is refused with the reason. A restarted worker keeps the old configuration."""
    gateway = Daemon(tmp_path, with_models("echo"))
    await asyncio.to_thread(gateway.wait_for, READY)
    (worker,) = workers(gateway)
    gateway.path.write_text("providers: {")
    await asyncio.to_thread(gateway.wait_for, "Not reloaded")
    assert "not YAML" in gateway.output_text
    os.kill(worker, signal.SIGKILL)
    await until(lambda: workers(gateway) - {worker})
    await until(lambda: _serves(gateway))
    gateway.configure({**with_models("echo", "second"), "workers": 3, "log": {"file": "other.txt"}})
    await asyncio.to_thread(gateway.wait_for, "Not reloaded", 2)
    assert "workers: cannot change while the gateway runs" in gateway.output_text
    assert "log.file: cannot change while the gateway runs" in gateway.output_text
    assert await models(gateway) == ["echo"]
    assert await asyncio.to_thread(gateway.stop) == 0


async def test_a_key_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """After a key file changes, the new key is valid, and the old one is not."""
    file = tmp_path / "key"
    file.write_text("sk-first")
    gateway = Daemon(tmp_path, {**with_models("echo"), "auth": {"keys": [{"name": "filed", "key_file": str(file)}]}})
    await asyncio.to_thread(gateway.wait_for, READY)
    assert await models(gateway, "sk-first") == ["echo"]
    file.write_text("sk-second")
    await asyncio.to_thread(gateway.wait_for, "Reloaded.")
    assert await models(gateway, "sk-second") == ["echo"]
    assert await models(gateway, "sk-first") == 401
    assert await asyncio.to_thread(gateway.stop) == 0


async def _serves(gateway: Gateway) -> bool:
    return await models(gateway) == ["echo"]


# Starts the gateway in a terminal, prints what it says, and closes the terminal once it is ready. Exits as the gateway does.
IN_A_TERMINAL = """
import os, pty, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup ignore it
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-m", "antiphon", "up", "--config", sys.argv[1]])
output = b""
while b"Antiphon is up." not in output:
    output += os.read(terminal, 4096)
    print(output, flush=True)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


async def test_a_terminal_that_hangs_up_ends_the_gateway(tmp_path: Path) -> None:
    """In a terminal, SIGHUP stops the gateway instead of reloading it."""
    other = Daemon(tmp_path, with_models("echo"))  # to get a configuration file with free addresses
    await asyncio.to_thread(other.wait_for, READY)
    assert await asyncio.to_thread(other.stop) == 0
    command = [sys.executable, "-c", IN_A_TERMINAL, str(other.path)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TEST_KEY": KEY}
    try:
        ended = await asyncio.to_thread(subprocess.run, command, env=environment, timeout=60, check=False, stdout=subprocess.PIPE)
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"the gateway did not end; its terminal: {late.stdout!r}")
    assert ended.returncode == 0


@pytest.mark.slow
async def test_a_start_without_a_database_waits_for_it(tmp_path: Path) -> None:
    """Without a database the start waits for it and is not ready. A database lost later leaves the gateway ready."""
    postgres = Postgres()
    try:
        gateway = Daemon(tmp_path, {**with_models("echo"), "database": {"url": postgres.url}})
        await asyncio.to_thread(gateway.wait_for, "waiting for the database", 2)
        assert READY not in gateway.output_text
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(gateway.wait_for, READY)
        failures = gateway.output_text.count("store_unavailable")
        await asyncio.to_thread(postgres.kill)
        async with gateway.client() as http:
            await asyncio.to_thread(
                gateway.wait_for, "store_unavailable", failures + 1
            )  # the housekeeper checks every five seconds
            assert (await http.get(f"http://{gateway.rest}/readyz")).json() == {"status": "ready"}
        assert await models(gateway) == ["echo"]
        assert await asyncio.to_thread(gateway.stop) == 0
    finally:
        postgres.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["worker 0", "Envoy"])
async def test_a_part_that_hangs_is_started_again(tmp_path: Path, part: str) -> None:
    """A worker or Envoy that hangs is logged and replaced, and calls succeed again."""
    gateway = Daemon(tmp_path, with_models("echo"))
    await asyncio.to_thread(gateway.wait_for, READY)
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    pids = workers(gateway) if part == "worker 0" else {int(child) for child in children} - workers(gateway)
    (pid,) = pids
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(block_until, lambda: f"{part} hangs" in gateway.output_text, 60)

    async def serves() -> bool:
        try:
            return await _serves(gateway)
        except httpx2.HTTPError:
            return False

    await until(serves)
    assert await asyncio.to_thread(gateway.stop) == 0
