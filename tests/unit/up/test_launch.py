"""Tests of the launch: folder and plan; and one whole gateway with Envoy and workers that only report their health."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from antiphon.config import Config
from antiphon.edge import files as edge
from antiphon.up import launch
from antiphon.up.plan import Plan, Program
from antiphon.up.supervisor import supervise
from tests.ports import free_port

WORKER = """
import asyncio, signal, sys
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

async def main():
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await stop.wait()
    await server.stop(0)

asyncio.run(main())
"""


def config(**settings: object) -> Config:
    return Config.model_validate(
        {"grpc": {"listen": f"127.0.0.1:{free_port()}"}, "rest": {"listen": f"127.0.0.1:{free_port()}"}, **settings}
    )


def test_the_workers_command_line() -> None:
    """A worker runs with this Python and with the given configuration file, if any."""
    command = launch.worker_command(Path("a.yaml"), Path("/run/worker-1.sock"), 1)
    assert command[:3] == [sys.executable, "-m", "antiphon.worker"]
    assert command[3:] == ["--config", "a.yaml", "--socket", "/run/worker-1.sock", "--worker", "1"]
    assert "--config" not in launch.worker_command(None, Path("/run/worker-0.sock"), 0)


def test_envoy_gets_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Envoy gets only a fixed list of variables, without secrets; a worker gets all."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = launch.plan(config(), None)
    assert made.envoy.variables == sorted(edge.VARIABLES)
    assert not [name for name in made.envoy.variables or () if "KEY" in name or "TOKEN" in name or "URL" in name]
    assert [worker.variables for worker in made.workers] == [None]


def test_a_whole_gateway_comes_up_and_goes_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A gateway with Envoy and two workers becomes ready and answers REST. After its end no process and no folder is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(launch, "worker_command", lambda _config, path, _number: [sys.executable, "-c", WORKER, str(path)])
    printed: list[str] = []
    answers: list[bytes] = []
    settings = config(workers=2, log={"file": str(tmp_path / "log")}, limits={"drain": 1})
    host, _, port = settings.rest.listen.partition(":")

    def ready(_banner: str) -> None:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
            answers.append(connection.makefile("rb").read())
        os.kill(os.getpid(), signal.SIGTERM)

    assert supervise(launch.plan(settings, None)._replace(preparation=None), os.environ, say=printed.append, ready=ready) == 0, (
        printed
    )
    assert b'{"code":404,"error":"Not Found"' in answers[0]
    assert [entry.name for entry in os.scandir(tmp_path)] == ["log"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert '"event":"request failed"' in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", [0, 7])
def test_the_lock_goes_on_to_the_supervisor(lock: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor inherits the lock's descriptor, even if its number is 0."""
    inherited: list[int] = []
    monkeypatch.setattr(os, "set_inheritable", lambda descriptor, _: inherited.append(descriptor))
    monkeypatch.setattr(os, "execve", lambda *_: None)
    program = Program("envoy", ("/bin/true",), tmp_path, 1)
    launch.become_supervisor(Plan((), program, folder=tmp_path, drain=1, log_file=None, banner="", lock=lock), {})
    assert inherited[1:] == [lock]


def test_the_files_of_keys_and_secrets_are_watched(tmp_path: Path) -> None:
    """Files of keys and secrets are watched, because only a reload reads them again.

    Certificates and the tokens of a workload are not, because they are read again by themselves.
    """
    settings = config(
        auth={"keys": [{"name": "a", "key_file": str(tmp_path / "a")}]},
        providers={
            "p": {"base_url": "http://h/v1", "api_key_file": str(tmp_path / "b"), "models": ["m"]},
            "q": {"base_url": "http://h/v1", "credentials": {"kind": "google", "file": str(tmp_path / "e")}},
            "r": {"base_url": "http://h/v1", "credentials": {"kind": "entra_workload", "token_file": str(tmp_path / "t")}},
        },
        log={"file": str(tmp_path / "log")},
        rest={"listen": "127.0.0.1:1", "tls": {"certificate": str(tmp_path / "c"), "key": str(tmp_path / "k")}},
        database={"url_file": str(tmp_path / "d")},
    )
    assert sorted(launch.files_to_watch(settings)) == [tmp_path / name for name in ("a", "b", "d", "e")]


def test_the_workers_read_a_copy_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers read a copy of the checked configuration, with mode 0600; the check reads the original file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "mine.yaml"
    path.write_text("workers: 1")
    made = launch.plan(config(), path)
    copy = made.folder / "antiphon.yaml"
    assert copy.read_text(encoding="utf-8") == "workers: 1"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert str(copy) in made.workers[0].command
    assert made.check is not None
    assert str(path) in made.check.command


def test_a_server_beside_an_envoy_takes_its_socket_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The plan for a server beside an Envoy resets the Envoy's endpoint and drain file, and starts only the server."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    edge.prepare(run, config().rest, ["server-3.sock"])
    (run / "drain.pressure").write_text("1")
    made = launch.plan_server(config(), None, run / "server.sock")
    assert "./server.sock" in (run / "endpoints.yaml").read_text()
    assert (made.envoy, made.edge) == (None, run)
    assert made.folder != run
    (worker,) = made.workers
    assert (worker.socket, worker.sends_heartbeat) == ("server.sock", True)
    assert str(run / "server.sock") in worker.command
    assert made.check is not None
    assert "--same-database" in made.check.command


def test_a_server_that_reloads_needs_an_envoy(tmp_path: Path) -> None:
    """A server that reloads needs the folder of an Envoy, which is told about each new server."""
    with pytest.raises(OSError, match="is not where an Envoy runs"):
        launch.plan_server(config(), None, tmp_path / "server.sock")
