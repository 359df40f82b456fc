"""The supervisor, with children that are small programs, and once with Envoy and workers that only tell their health."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from antiphon import edge, supervisor
from antiphon.config import Config
from antiphon.supervisor import Child, Program

# Writes "NAME start PID SESSION" and, on SIGTERM, "NAME term" to the file FILE. Usage: FILE NAME [CODE: to exit at once | deaf]
CHILD = """
import os, signal, sys
file, name, *how = sys.argv[1:]
def write(what):
    with open(file, "a") as f:
        f.write(f"{name} {what}\\n")
def term(*_):
    write("term")
    if how != ["deaf"]:
        sys.exit(0)
signal.signal(signal.SIGTERM, term)
write(f"start {os.getpid()} {os.getsid(0)}")
if how and how != ["deaf"]:
    sys.exit(int(how[0]))
while True:
    signal.pause()
"""

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


class Stage:
    """A set of child programs, what they wrote, and what the supervisor said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "children"
        self.file.touch()
        self.said: list[str] = []
        self.readied = 0
        self.blocked: list[str] = []

    def program(self, name: str, *how: str, grace: float = 10.0) -> Program:
        return Program(name, [sys.executable, "-c", CHILD, str(self.file), name, *how], folder=self.folder, grace=grace)

    @property
    def lines(self) -> list[str]:
        return self.file.read_text(encoding="utf-8").splitlines()

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[2]) for line in self.lines if line.startswith(f"{name} start ")]

    async def started(self, name: str, count: int) -> None:
        await until(lambda: len(self.pids(name)) == count)

    async def missing(self) -> Sequence[str]:
        return self.blocked

    def ready(self) -> None:
        self.readied += 1

    def run(self, *workers: Program, envoy: Program | None = None) -> asyncio.Task[int]:
        def start(program: Program) -> Child:
            return Child(program, os.environ, 2, self.said.append)

        return asyncio.create_task(
            supervisor.run(
                workers,
                envoy or self.program("envoy"),
                start,
                self.missing,
                drain=1,
                say=self.said.append,
                ready=self.ready,
            )
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 0.02)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # it is about other processes
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def config(**settings: object) -> Config:
    return Config.model_validate(
        {"grpc": {"listen": f"127.0.0.1:{free_port()}"}, "rest": {"listen": f"127.0.0.1:{free_port()}"}, **settings}
    )


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended, and that nobody has asked for yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_ready_is_told_once_when_nothing_is_missing(stage: Stage) -> None:
    """The gateway is ready when nothing is missing, which is told once."""
    stage.blocked = ["worker 0"]
    task = stage.run(stage.program("worker 0"))
    await until(lambda: len(stage.lines) == 2)
    assert stage.readied == 0
    stage.blocked = []
    await until(lambda: stage.readied)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0
    assert stage.readied == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_the_workers_then_envoy(stage: Stage, number: signal.Signals) -> None:
    """One signal ends everything in order, with code 0."""
    task = stage.run(stage.program("w0"), stage.program("w1"))
    await until(lambda: len(stage.lines) == 3)
    os.kill(os.getpid(), number)
    assert await task == 0
    assert sorted(stage.lines[3:5]) == ["w0 term", "w1 term"]
    assert stage.lines[5] == "envoy term"
    assert "Stopping" in stage.said[0]


async def test_a_dead_child_is_started_again_and_told(stage: Stage) -> None:
    """A killed child comes back, and a line says what happened."""
    task = stage.run(stage.program("w0"))
    await until(lambda: stage.pids("w0"))
    os.kill(stage.pids("w0")[0], signal.SIGKILL)
    await until(lambda: len(stage.pids("w0")) == 2)
    assert stage.said[0].startswith("w0 ended (by SIGKILL) after 0.")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0


@pytest.mark.usefixtures("soon")
async def test_a_child_that_cannot_start_ends_the_whole(stage: Stage) -> None:
    """Before the gateway has been ready, a child that keeps dying is given up: code 1, and the others are ended."""
    stage.blocked = ["w0"]
    assert await stage.run(stage.program("w0", "3"), stage.program("w1")) == 1
    assert len(stage.pids("w0")) == supervisor.ATTEMPTS
    assert "w0 cannot start: it ended 5 times within 5 s, the last time exit code 3." in stage.said
    assert stage.lines[-1] == "envoy term"
    assert not any(alive(pid) for name in ("w1", "envoy") for pid in stage.pids(name))


async def test_an_unusable_configuration_is_not_tried_again(stage: Stage) -> None:
    """A child that says that its configuration is not usable is started once."""
    stage.blocked = ["w0"]
    assert await stage.run(stage.program("w0", str(supervisor.UNUSABLE))) == 1
    assert len(stage.pids("w0")) == 1


@pytest.mark.usefixtures("soon")
async def test_once_ready_a_child_is_never_given_up(stage: Stage) -> None:
    """After the gateway has been ready, a child is started again however often it dies."""
    task = stage.run(stage.program("w0"))
    await until(lambda: stage.readied)
    for count in range(1, supervisor.ATTEMPTS + 3):
        await stage.started("w0", count)
        os.kill(stage.pids("w0")[-1], signal.SIGKILL)
    await stage.started("w0", supervisor.ATTEMPTS + 3)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0


async def test_once_ready_a_kill_costs_no_delay(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a signal ends a child, it is started again at once, if it had lived a moment."""
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(supervisor, "QUICK_KILL", 0.0)
    task = stage.run(stage.program("w0"))
    await until(lambda: stage.readied)
    for count, number in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL), start=1):
        await stage.started("w0", count)
        os.kill(stage.pids("w0")[-1], number)
    await stage.started("w0", 4)
    assert all(line.endswith("starting it again now") for line in stage.said)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0


@pytest.mark.parametrize("ready", [True, False])
async def test_a_child_that_dies_by_itself_is_started_again_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    """With an exit code, or before the gateway has been ready, however long it took: what it died of is still there."""
    monkeypatch.setattr(supervisor, "QUICK_KILL", 0.0)
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 60.0)
    stage.blocked = [] if ready else ["w0"]
    task = stage.run(stage.program("w0"))
    await until(lambda: stage.pids("w0") and bool(stage.readied) is ready)
    os.kill(stage.pids("w0")[0], signal.SIGTERM if ready else signal.SIGKILL)  # the program ends itself on SIGTERM: code 0
    await until(lambda: stage.said)
    assert stage.said[0].endswith("starting it again in 60 s")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0


async def test_a_program_that_is_not_there_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be run at all is an early death like any other."""
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(supervisor, "_leashed", list)
    stage.blocked = ["w0"]
    program = Program("w0", [str(stage.folder / "none")], folder=stage.folder, grace=1)
    assert await stage.run(program) == 1
    assert "w0 cannot start" in stage.said[-1]
    assert "No such file" in stage.said[-1]


async def test_a_deaf_child_is_killed_after_its_grace(stage: Stage) -> None:
    """SIGKILL follows when the grace is over, and is told."""
    task = stage.run(stage.program("w0", "deaf", grace=0.2))
    await until(lambda: len(stage.lines) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0
    assert "w0 did not end within 0.2 s of SIGTERM: killed" in stage.said
    assert not alive(stage.pids("w0")[0])


async def test_a_second_signal_ends_at_once(stage: Stage) -> None:
    """The second signal kills what is left; the code tells the signal."""
    task = stage.run(stage.program("w0", "deaf", grace=60))
    await until(lambda: len(stage.lines) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "w0 term" in stage.lines)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(5):
        assert await task == 128 + signal.SIGINT


async def test_a_stop_does_not_wait_for_a_restart(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that waits to be started again is simply not."""
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 60.0)
    task = stage.run(stage.program("w0", "1"))
    await until(lambda: any("w0 ended" in line for line in stage.said))
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await task == 0


async def test_a_failing_ready_callback_ends_the_children(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `ready` raises comes out, and no child is left."""

    def fail() -> None:
        raise RuntimeError("no terminal")

    monkeypatch.setattr(stage, "ready", fail)
    task = stage.run(stage.program("w0"))
    with pytest.raises(RuntimeError, match="no terminal"):
        await task
    assert not any(alive(pid) for pid in stage.pids("w0"))


async def test_children_have_sessions_of_their_own(stage: Stage) -> None:
    """Ctrl-C in a terminal reaches the foreground process group, so the children must not be in it."""
    task = stage.run(stage.program("w0"))
    await until(lambda: len(stage.lines) == 2)
    for line in stage.lines:
        _, _, pid, session = line.split()
        assert pid == session
    os.kill(os.getpid(), signal.SIGTERM)
    await task


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do it")
async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL of the supervisor leaves no child behind."""
    stage = Stage(tmp_path)
    driver = f"""
import asyncio, os, sys
from pathlib import Path
from antiphon.supervisor import Child, Program

async def main():
    command = [sys.executable, "-c", {CHILD!r}, {str(stage.file)!r}, "w0", "deaf"]
    await Child(Program("w0", command, folder=Path({str(tmp_path)!r}), grace=1), os.environ, 2, print).task

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", driver)
    await until(lambda: stage.pids("w0"))
    process.kill()
    await process.wait()
    await until(lambda: not alive(stage.pids("w0")[0]))


@pytest.mark.parametrize(
    ("setting", "variable"), [("grpc", "ANTIPHON_GRPC__LISTEN=127.0.0.1:"), ("rest", "ANTIPHON_REST__LISTEN=127.0.0.1:")]
)
async def test_a_taken_address_is_told_by_its_setting(taken: int, setting: str, variable: str) -> None:
    """Nothing starts on a taken address; the line names the setting and the variable that would change it."""
    said: list[str] = []
    settings = config(**{setting: {"listen": f"127.0.0.1:{taken}"}})
    assert await supervisor.supervise(settings, None, os.environ, say=said.append, ready=pytest.fail) == 1
    (line,) = said
    assert line.startswith(f"{setting}.listen: 127.0.0.1:{taken} is taken")
    assert f"{variable}{taken + 1}" in line


def test_an_address_taken_with_reuseport_is_taken() -> None:
    """Another gateway's workers share their port among themselves, and must not share it with this one."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = config(grpc={"listen": f"127.0.0.1:{other.getsockname()[1]}"})
        assert len(supervisor.unusable_addresses(settings)) == 1


def test_both_settings_cannot_have_one_address() -> None:
    """The second of two names for one address is taken by the first."""
    port = free_port()
    (line,) = supervisor.unusable_addresses(config(grpc={"listen": f"127.0.0.1:{port}"}, rest={"listen": f"localhost:{port}"}))
    assert line.startswith("rest.listen")


def test_an_address_of_another_machine_is_told() -> None:
    """An address that this machine does not have is told with the system's words."""
    (line,) = supervisor.unusable_addresses(config(rest={"listen": "203.0.113.1:8080"}))
    assert line.startswith("rest.listen: 203.0.113.1:8080 cannot be listened on: ")
    assert line.endswith(". Change rest.listen or ANTIPHON_REST__LISTEN.")


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label empty or too long")])
def test_an_unknown_host_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A name without an address, or that cannot be a name, is told."""

    def fail(*_: object, **__: object) -> None:
        raise error

    settings = config()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    lines = supervisor.unusable_addresses(settings)
    assert [line.split(":")[0] for line in lines] == ["grpc.listen", "rest.listen"]
    assert not any("None" in line for line in lines)


def test_the_runtime_folder_is_private_and_goes_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody else may reach the sockets, and their paths stay short enough whatever TMPDIR is."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with supervisor.runtime_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(folder / edge.worker_socket(255))) <= supervisor.LONGEST_SOCKET_PATH
    assert not folder.exists()


def test_the_workers_command_line() -> None:
    """A worker is this very Python, with the configuration file that was given, if one was."""
    command = supervisor.worker_command(Path("a.yaml"), Path("/run/worker-1.sock"), 1)
    assert command[:4] == [sys.executable, "-m", "antiphon", "serve"]
    assert command[4:] == ["--config", "a.yaml", "--socket", "/run/worker-1.sock", "--worker", "1"]
    assert "--config" not in supervisor.worker_command(None, Path("/run/worker-0.sock"), 0)


async def test_a_whole_gateway_comes_up_and_goes_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With Envoy and two workers: ready when both are healthy and REST answers; afterwards no process and no folder is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(supervisor, "worker_command", lambda _config, path, _number: [sys.executable, "-c", WORKER, str(path)])
    said: list[str] = []
    ready = asyncio.Event()
    settings = config(workers=2, log={"file": str(tmp_path / "log")}, limits={"drain": 1})
    task = asyncio.create_task(supervisor.supervise(settings, None, os.environ, say=said.append, ready=ready.set))
    await until(lambda: ready.is_set() or task.done())
    assert not task.done(), said
    host, _, port = settings.rest.listen.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /nothing HTTP/1.0\r\n\r\n")
    assert b'{"code":404,"error":"Not Found"' in await reader.read()
    writer.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == 0
    assert [entry.name for entry in os.scandir(tmp_path)] == ["log"]
    assert '"event":"request failed"' in (tmp_path / "log").read_text(encoding="utf-8")
