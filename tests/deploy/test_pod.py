"""A pod of the base, run with its own commands and files on this machine: Envoy and the server over a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from antiphon.edge import files as edge
from tests.certificates import Authority
from tests.e2e.conftest import KEY
from tests.kubernetes import PodFolders, change_config_map, containers, find, kustomize, pods, write_config_map
from tests.ports import free_port
from tests.postgres import Postgres
from tests.redis import Redis
from tests.waiting import block_until, until

START = 60
"""The most seconds that the start of a container, or a reload, may take; the startup probes allow the same."""

CALL = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


class Pod:
    """The containers of a Deployment, run as the kubelet does, with folders and ports of this machine instead of the pod's."""

    def __init__(self, folder: Path, overlay: str, secrets: Mapping[str, str], beside: Pod | None = None) -> None:
        """Prepare the folders and the configuration.

        `secrets` are the URLs in the Secrets that the containers name, by name of the Secret. If `beside` is given, this pod uses
        its ports and its certificate authority.
        """
        folder.mkdir(exist_ok=True)
        documents = kustomize(overlay)
        self.containers = {name: container for _, pod in pods(documents) for name, container in containers(pod).items()}
        self.edge, self.grpc, self.metrics = (
            (free_port(), free_port(), free_port()) if beside is None else (beside.edge, beside.grpc, beside.metrics)
        )
        config = write_config_map(find(documents, "ConfigMap", "antiphon-config"), folder / "config")
        text = (config / "antiphon.yaml").read_text()
        text = text.replace("0.0.0.0:50051", f"127.0.0.1:{self.grpc}")
        text = text.replace("0.0.0.0:9464", f"127.0.0.1:{self.metrics}")
        text = re.sub(r"0\.0\.0\.0:(8080|8443)", f"127.0.0.1:{self.edge}", text)
        text = text.replace("antiphon-headless:50051", f"127.0.0.1:{self.grpc}")
        self.authority = Authority() if beside is None else beside.authority
        for name, names in (("tls", ["localhost"]), ("mtls", ["antiphon-headless" if beside is None else "antiphon-edge"])):
            (folder / name).mkdir()
            self.authority.issue(*names).write(folder / name, "tls")
            self.authority.write(folder / name / "ca.crt")
            text = text.replace(f"/etc/antiphon-{name}/", f"{folder / name}/")
        self.tls = ssl.create_default_context(cafile=str(folder / "tls" / "ca.crt"))
        (config / "antiphon.yaml").write_text(text)
        self.run = folder / "run"
        mounts = {
            "/etc/antiphon": config,
            "/etc/antiphon-gateway": write_config_map(find(documents, "ConfigMap", "antiphon-gateway"), folder / "gateway"),
            "/run/antiphon": self.run,
            "/var/lib/antiphon": folder / "data",
            "/etc/antiphon-tls": folder / "tls",
            "/etc/antiphon-mtls": folder / "mtls",
            PodFolders.TMP: folder / "tmp",
        }
        for mount in mounts.values():
            mount.mkdir(exist_ok=True)
        self.folders = PodFolders(mounts, {"ANTIPHON_KEY": KEY}, secrets)
        self.log = folder / "output.txt"
        self.output = self.log.open("wb")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = self.folders.command(self.containers[name])
        started = subprocess.Popen(
            command.arguments, cwd=command.folder, env=command.environment, stdout=self.output, stderr=self.output
        )
        self.running[name] = started
        return started

    def hook(self, name: str) -> int:
        """Run the container's hook before the stop, and return its exit code."""
        command = self.folders.hook(self.containers[name])
        return subprocess.run(command, check=False, stdout=self.output, timeout=60).returncode

    def passes(self, name: str, probe: str) -> bool:
        """Return whether a container passes a probe over HTTP or gRPC, as the kubelet checks it."""
        match self.containers[name][probe]:
            case {"httpGet": {"path": path, "port": "edge", **more}}:
                url = f"{more.get('scheme', 'HTTP').lower()}://localhost:{self.edge}{path}"
                with contextlib.suppress(httpx2.TransportError):
                    return httpx2.get(url, trust_env=False, verify=self.tls).status_code == 200
                return False
            case {"httpGet": {"path": path, "port": "metrics"}}:
                with contextlib.suppress(httpx2.TransportError):
                    return httpx2.get(f"http://127.0.0.1:{self.metrics}{path}", trust_env=False).status_code == 200
                return False
            case {"grpc": {"port": 50051, **rest}}:
                request = health_pb2.HealthCheckRequest(service=rest.get("service", ""))
                with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel, contextlib.suppress(grpc.RpcError):
                    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
                    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
                return False
            case other:
                raise AssertionError(other)

    def is_ready(self) -> bool:
        """Return whether the pod's Services would include it."""
        return self.passes("envoy", "readinessProbe") and self.passes("server", "readinessProbe")

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(10)
        self.output.close()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    made = Pod(tmp_path, "overlays/local", {})
    yield made
    made.stop()


def _start(pod: Pod) -> None:
    for name in ("migrate", "edge-files"):
        assert pod.start(name).wait(60) == 0, name
    for name in ("envoy", "server"):
        pod.start(name)
        block_until(partial(pod.passes, name, "startupProbe"), START)
        block_until(partial(pod.passes, name, "livenessProbe"))
    block_until(pod.is_ready)


@pytest.mark.slow
async def test_a_pod_answers_until_its_calls_are_done(pod: Pod) -> None:
    """A pod works from its init containers to a streamed answer. The hook asks callers to close connections, and cuts no stream."""
    await asyncio.to_thread(_start, pod)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{pod.edge}", headers=headers, trust_env=False, timeout=60) as http:
        words = " ".join(f"word{number}" for number in range(800))
        request = {**CALL, "messages": [{"role": "user", "content": words}], "stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=request) as streamed:
            assert streamed.status_code == 200
            lines: list[str] = []

            async def read() -> None:
                async for line in streamed.aiter_lines():
                    lines.append(line)  # noqa: PERF401  # `lines` is read while the stream goes on

            reading = asyncio.create_task(read())
            hook = asyncio.create_task(asyncio.to_thread(pod.hook, "server"))

            async def asked_to_leave() -> bool:
                response = await http.post("/v1/chat/completions", json=CALL)
                assert response.status_code == 200
                return response.headers.get("connection") == "close"

            await until(asked_to_leave)
            assert not await asyncio.to_thread(pod.passes, "envoy", "readinessProbe")
            assert await hook == 0
            count, server = len(lines), pod.running["server"]
            assert count
            server.send_signal(signal.SIGTERM)
            await reading
        assert "data: [DONE]" in lines[count:]
        assert len(lines) > count + 20  # it was not cut
        assert await asyncio.to_thread(server.wait, 30) == 0
        assert pod.running["envoy"].poll() is None


@pytest.mark.slow
def test_production_has_tls_a_database_and_redis(postgres: Postgres, tmp_path: Path) -> None:
    """In the production overlay the Job migrates PostgreSQL, probes pass over TLS, a call is answered, and metrics are served."""
    with Redis() as redis:
        pod = Pod(tmp_path, "overlays/production", {"antiphon-database": postgres.url, "antiphon-redis": redis.url})
        try:
            _start(pod)
            with httpx2.Client(base_url=f"https://localhost:{pod.edge}", verify=pod.tls, trust_env=False, timeout=30) as http:
                answer = http.post("/v1/chat/completions", json=CALL, headers={"authorization": f"Bearer {KEY}"})
            assert answer.status_code == 200
            assert answer.json()["choices"][0]["finish_reason"] == "stop"
            counted = httpx2.get(f"http://127.0.0.1:{pod.metrics}/metrics", trust_env=False).text
            assert "\nantiphon_calls_in_flight" in counted  # the component calls-in-flight scales on it
        finally:
            pod.stop()


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["overlays/edge-apart", "overlays/edge-apart-tls"])
def test_an_edge_that_is_apart_answers(overlay: str, postgres: Postgres, tmp_path: Path) -> None:
    """With edge and server in two pods, probes pass and a call is answered. With TLS between them, no other client can connect."""
    server = Pod(tmp_path / "server", overlay, {"antiphon-database": postgres.url})
    edge = Pod(tmp_path / "edge", overlay, {}, beside=server)
    try:
        assert server.start("migrate").wait(60) == 0
        assert edge.start("edge-files").wait(60) == 0
        for pod, name in ((server, "server"), (edge, "envoy")):
            pod.start(name)
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                block_until(partial(pod.passes, name, probe), 60)
        with httpx2.Client(base_url=f"http://127.0.0.1:{edge.edge}", trust_env=False, timeout=30) as http:
            answer = http.post("/v1/chat/completions", json=CALL, headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200
        stranger = grpc.ssl_channel_credentials((tmp_path / "server" / "mtls" / "ca.crt").read_bytes())
        known = grpc.ssl_channel_credentials(
            *((tmp_path / "edge" / "mtls" / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        )
        answered = [_answers(server.grpc, credentials) for credentials in (None, stranger, known)]
        assert answered == ([True, False, False] if overlay == "overlays/edge-apart" else [False, False, True])
        assert edge.hook("envoy") == 0
    finally:
        edge.stop()
        server.stop()


def _answers(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    """Return whether the server answers a health check over a connection with these credentials."""
    options = [("grpc.ssl_target_name_override", "antiphon-headless")]
    address = f"127.0.0.1:{port}"
    channel = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials, options)
    with channel, contextlib.suppress(grpc.RpcError):
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return True
    return False


def _models(pod: Pod) -> list[str]:
    answer = httpx2.get(
        f"http://127.0.0.1:{pod.edge}/v1/models", headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=20
    )
    assert answer.status_code == 200, answer.text
    return sorted(model["id"] for model in answer.json()["data"])


def _counted(pod: Pod) -> dict[str, float]:
    """Return the counters of calls that list models, and of workers that ended."""
    text = httpx2.get(f"http://127.0.0.1:{pod.metrics}/metrics", trust_env=False).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if "ListModels" in line or line.startswith("antiphon_worker_exits")]
    return {name: float(value) for name, value in lines if "_bucket" not in name and "_created" not in name}


@pytest.mark.slow
def test_a_changed_config_map_is_a_reload_and_no_rollout(pod: Pod) -> None:
    """A changed ConfigMap is reloaded without a restart of the containers, an error for a caller, or a counter that drops.

    A broken configuration changes nothing. A restarted Envoy finds the reloaded server, and a restarted server takes its place.
    """
    _start(pod)
    before = {name: pod.running[name].pid for name in ("server", "envoy")}
    folder = Path(pod.folders.to_local("/etc/antiphon"))
    text = (folder / "antiphon.yaml").read_text()
    assert _models(pod) == ["echo"]
    counted = _counted(pod)
    more = text + "providers: {echo: {protocol: echo, models: [echo, second]}}\n"
    change_config_map(folder, {"antiphon.yaml": more.encode()})
    block_until(lambda: _models(pod) == ["echo", "second"], START)
    block_until(lambda: "Reloaded." in pod.log.read_text())
    assert pod.is_ready()
    change_config_map(folder, {"antiphon.yaml": b"providers: {"})
    block_until(lambda: "Not reloaded" in pod.log.read_text(), START)
    assert _models(pod) == ["echo", "second"]
    assert {name: pod.running[name].pid for name in before if pod.running[name].poll() is None} == before
    after = _counted(pod)
    assert all(after[name] >= value for name, value in counted.items())
    assert after["antiphon_worker_exits_total"] == 0
    for name, models in (("envoy", ["echo", "second"]), ("server", ["echo"])):
        pod.running[name].kill()
        pod.running[name].wait(10)
        change_config_map(folder, {"antiphon.yaml": {"envoy": more, "server": text}[name].encode()})
        pod.start(name)
        block_until(pod.is_ready, START)
        assert _models(pod) == models


@pytest.mark.slow
def test_a_server_that_hangs_is_not_alive_and_is_started_again(pod: Pod) -> None:
    """The supervisor restarts a worker that hangs before the kubelet would restart the container, and the pod is ready again."""
    _start(pod)
    server = pod.running["server"]
    (worker,) = map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())
    os.kill(worker, signal.SIGSTOP)
    assert not pod.passes("server", "livenessProbe")
    block_until(pod.is_ready, START)
    assert "worker 0 hangs" in pod.log.read_text()
    assert server.poll() is None


@pytest.mark.parametrize("name", ["server", "envoy"])
def test_a_container_that_starts_again_finds_its_socket(pod: Pod, name: str) -> None:
    """A killed container leaves its socket behind. Its successor replaces it, and the pod is ready again."""
    _start(pod)
    pod.running[name].kill()
    pod.running[name].wait(10)
    assert (pod.run / {"server": "server.sock", "envoy": "admin.sock"}[name]).exists()
    assert not pod.passes(name, "livenessProbe")
    pod.start(name)
    block_until(pod.is_ready, START)


def test_the_init_container_may_run_again(pod: Pod) -> None:
    """A second run of the init container writes the same files into the existing folder."""
    first = _files(pod)
    assert first == _files(pod)
    assert set(edge.FILES) <= first.keys()


def _files(pod: Pod) -> dict[str, Any]:
    assert pod.start("edge-files").wait(60) == 0
    return {path.name: path.read_bytes() for path in pod.run.iterdir()}
