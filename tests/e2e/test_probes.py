"""Probes of every kind against a whole gateway: none of them writes a log line."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.conftest import READY, Gateway
from tests.ports import free_port
from tests.waiting import until

NO_LINGER = struct.pack("ii", 1, 0)


class Probed(Gateway):
    """A gateway with a port for metrics."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.metrics = f"127.0.0.1:{free_port()}"
        config = {
            "metrics": {"listen": self.metrics},
            "providers": {"echo": {"protocol": "echo", "models": ["echo"]}},
            "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
            "log": {"level": "debug"},
        }
        super().__init__(folder, config | more)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines of Envoy and the workers."""
        return [json.loads(line) for line in self.output_text.splitlines() if line.startswith("{")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def probed(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Probed, None]:
    started = Probed(tmp_path_factory.mktemp("probed"))
    Gateway.running.discard(started)  # it runs for all tests of this file
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0


async def get(url: str, method: str = "GET") -> int:
    """Return the status of one request on a new connection, as probes make it."""
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        return (await http.request(method, url, headers={"user-agent": "kube-probe/1.36"})).status_code


async def check(address: str, service: str) -> Any:
    """Return the status of one gRPC health check on a new connection, or the code with which it failed."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status
        except grpc.aio.AioRpcError as error:
            return error.code()


def connect(address: str, *, reset: bool) -> None:
    """Open a connection, send nothing, and close it: with a reset, as Kubernetes does, or normally."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        if reset:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


async def test_probes_leave_no_line(probed: Probed) -> None:
    """HTTP, gRPC and TCP probes of all ports leave no log line, not even those that are refused."""
    async with probed.client() as http:
        first = await http.post("/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    await until(lambda: any(line.get("request_id") == first.headers["x-request-id"] for line in probed.lines()))
    before = len(probed.lines())
    for _ in range(3):
        for path in ("/healthz", "/readyz", "/health"):
            assert await get(f"http://{probed.rest}{path}") == 200
        assert await get(f"http://{probed.rest}/healthz", "HEAD") == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert await get(f"http://{probed.metrics}{path}") == 200
        for address in (probed.grpc, probed.rest):
            assert await check(address, "") == health_pb2.HealthCheckResponse.SERVING
            assert await check(address, "antiphon.v1.ChatService") == health_pb2.HealthCheckResponse.SERVING
            assert await check(address, "there.is.None") == grpc.StatusCode.NOT_FOUND
        for address in (probed.grpc, probed.rest, probed.metrics):
            for reset in (True, False):
                await asyncio.to_thread(connect, address, reset=reset)
    async with probed.client() as http:
        last = await http.post("/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    await until(lambda: any(line.get("request_id") == last.headers["x-request-id"] for line in probed.lines()))
    assert [line for line in probed.lines()[before:] if line.get("request_id") != last.headers["x-request-id"]] == []


async def test_probes_of_a_gateway_that_leaves_leave_no_line(tmp_path: Path) -> None:
    """During a stop probes are refused, and do not add log lines."""
    gateway = Probed(tmp_path, limits={"drain_delay": 2})
    await asyncio.to_thread(gateway.wait_for, READY)
    gateway.process.terminate()

    async def is_unready() -> bool:
        return await get(f"http://{gateway.rest}/readyz") == 503

    await until(is_unready)
    for _ in range(3):
        assert await get(f"http://{gateway.rest}/readyz") == 503
        assert await get(f"http://{gateway.metrics}/readyz") == 503
        assert await check(gateway.grpc, "") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0  # a second signal would cut it short
    Gateway.running.discard(gateway)
    events = [line["event"] for line in gateway.lines() if line["event"] != "caught SIGINT"]  # Envoy's own end
    assert events == ["serving", "draining", "stopped"]
