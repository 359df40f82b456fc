"""An edge and a server on separate machines, each of which requires a certificate of the other."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import yaml

from antiphon.edge import files as edge
from antiphon.up.admin import ADMIN_SOCKET
from antiphon.v1 import models_pb2, models_pb2_grpc
from tests.certificates import Authority
from tests.e2e.conftest import KEY
from tests.ports import free_port
from tests.waiting import block_until, until

ECHO: dict[str, Any] = {
    "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
}
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


class Apart:
    """`antiphon serve` that requires client certificates, and an Envoy with the files that `antiphon edge` writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.authority.write(folder / "ca.crt")
        self.authority.issue("server.test").write(folder, "server")
        self.authority.issue("edge.test").write(folder, "edge")
        self.grpc, self.rest = (f"localhost:{free_port()}" for _ in range(2))
        self.server_tls = {"certificate": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TEST_KEY": KEY}
        self.output = (folder / "output.txt").open("wb")
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str, config: dict[str, Any], folder: Path | None = None) -> subprocess.Popen[bytes]:
        path = self.folder / f"{command[0]}.yaml"
        path.write_text(yaml.safe_dump(config))
        started = subprocess.Popen(
            [sys.executable, "-m", "antiphon", *command, "--config", str(path)],
            cwd=folder or self.folder,
            env=self.environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )
        self.processes.append(started)
        return started

    def serve(self) -> None:
        config = {**ECHO, "grpc": {"listen": self.grpc, "tls": self.server_tls}, "rest": {"listen": self.rest}}
        assert self.run("migrate", config=config).wait(60) == 0
        self.run("serve", config=config)

    def envoy(self, **tls: str | None) -> None:
        """Start an edge. `tls` overrides its settings for the connection to the server."""
        wanted = {"ca": "ca.crt", "server_name": "server.test", "certificate": "edge.crt", "key": "edge.key", **tls}
        upstream = {"address": self.grpc, "tls": wanted}
        config = {**ECHO, "grpc": {"listen": self.grpc}, "rest": {"listen": self.rest, "upstream": upstream}}
        folder = self.folder / "envoy"
        assert self.run("edge", str(folder), config=config).wait(60) == 0
        self.processes.append(
            subprocess.Popen(edge.command(1), cwd=folder, env=self.environment, stdout=self.output, stderr=self.output)
        )

    async def status(self, wanted: int) -> None:
        """Wait until a call is answered with this status."""
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(base_url=f"http://{self.rest}/api/v1", headers=headers, trust_env=False, timeout=20) as http:

            async def found() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return (await http.post("/chat/completions", json=HELLO)).status_code == wanted
                return False

            await until(found, 30)

    def listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.grpc.split(":")[1]))) == 0

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(20)
        self.output.close()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    made = Apart(tmp_path)
    yield made
    made.stop()


async def test_an_edge_and_a_server_that_are_apart_know_each_other(apart: Apart) -> None:
    """Both present certificates and a call succeeds, also after both certificates were replaced."""
    await asyncio.to_thread(apart.serve)
    await asyncio.to_thread(apart.envoy)
    await apart.status(200)
    for name in ("server", "edge"):
        apart.authority.issue(f"{name}.test").write(apart.folder, name)
    await apart.status(200)


@pytest.mark.parametrize(
    "tls",
    [
        {"certificate": None, "key": None},
        {"certificate": "other.crt", "key": "other.key"},
        {"server_name": "other.test"},
        {"ca": "other-ca.crt"},
    ],
    ids=["no certificate", "a stranger's", "another name of the server", "another authority of the server"],
)
async def test_a_wrong_certificate_is_not_connected(apart: Apart, tls: dict[str, str | None]) -> None:
    """If a certificate does not match, callers get 503, and nothing is sent to the other side."""
    other = Authority()
    other.write(apart.folder / "other-ca.crt")
    other.issue("edge.test").write(apart.folder, "other")
    await asyncio.to_thread(apart.serve)
    await until(apart.listening, 30)
    await asyncio.to_thread(lambda: apart.envoy(**tls))
    await apart.status(503)
    # And not only until the first health check.
    async with _admin(apart.folder / "envoy") as admin:

        async def failed() -> bool:
            return int(re.findall(r"cluster.antiphon.health_check.failure: (\d+)", (await admin.get("/stats")).text)[0]) > 0

        await until(failed, 30)
        assert "cluster.antiphon.health_check.success: 0\n" in (await admin.get("/stats")).text


async def test_a_caller_of_an_edge_without_a_server_connects_elsewhere_next(apart: Apart) -> None:
    """An edge without a server closes connections after 503, so that the next call can reach another edge."""
    await asyncio.to_thread(apart.envoy)
    await apart.status(503)
    async with httpx2.AsyncClient(base_url=f"http://{apart.rest}", trust_env=False, timeout=20) as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert "x-antiphon-leave" not in answer.headers
    async with grpc.aio.insecure_channel(apart.rest) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: channel.get_state() is grpc.ChannelConnectivity.IDLE)


def test_edge_becomes_an_envoy_without_secrets(tmp_path: Path) -> None:
    """`antiphon edge --run` writes the files and becomes Envoy under the same process id, with no secret in its environment."""
    config = tmp_path / "antiphon.yaml"
    rest = f"127.0.0.1:{free_port()}"
    config.write_text(f'{{rest: {{listen: "{rest}", upstream: {{address: "127.0.0.1:{free_port()}"}}}}}}')
    folder = tmp_path / "edge"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TEST_KEY": KEY}
    command = [sys.executable, "-m", "antiphon", "edge", str(folder), "--run", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:

            def answered() -> bool:
                try:
                    return httpx2.get(f"http://{rest}/v1/models").status_code == 503
                except httpx2.TransportError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    return False

            block_until(answered, 30)
            names = {
                entry.split(b"=")[0].decode() for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0") if entry
            }
            assert names <= edge.VARIABLES
            assert Path(f"/proc/{process.pid}/cwd").resolve() == folder
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def _admin(folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.AsyncHTTPTransport(uds=str(folder / ADMIN_SOCKET))
    async with httpx2.AsyncClient(base_url="http://admin", transport=transport) as made:
        yield made
