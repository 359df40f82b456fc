"""Tests of the supervisor, with small programs as its children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from antiphon.telemetry.names import METRICS_SOCKET
from antiphon.telemetry.report import Reporter
from antiphon.up import child, liveness, supervisor
from antiphon.up.child import Child
from antiphon.up.plan import Plan, Program
from tests.ports import free_port
from tests.waiting import block_until as until

# Writes "NAME start PID SESSION" and, on SIGTERM and SIGINT, "NAME term" and "NAME int" to the file FILE.
# Usage: FILE NAME [CODE: to exit at once | deaf]
CHILD = """
import os, signal, sys
file, name, *how = sys.argv[1:]
def write(what):
    with open(file, "a") as f:
        f.write(f"{name} {what}\\n")
def end(number, _):
    write("term" if number == signal.SIGTERM else "int")
    if how != ["deaf"]:
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
write(f"start {os.getpid()} {os.getsid(0)}")
if how and how != ["deaf"]:
    sys.exit(int(how[0]))
while True:
    signal.pause()
"""


# Sends a heartbeat and then hangs. Usage: FILE --heartbeat DESCRIPTOR
HANGING = """
import os, signal, sys
file, _, descriptor = sys.argv[1:]
with open(file, "a") as f:
    f.write(f"w0 start {os.getpid()} 0\\n")
os.write(int(descriptor), b".")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
"""


class Stage:
    """A set of child programs, the lines that they wrote, and the lines of the supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "children"
        self.file.touch()
        self.printed: list[str] = []
        self.readied = 0
        self.blocked: list[str] = []

    def program(self, name: str, *how: str, grace: float = 10.0, stop_signal: str = "SIGTERM") -> Program:
        command = [sys.executable, "-c", CHILD, str(self.file), name, *how]
        return Program(name, command, folder=self.folder, grace=grace, stop_signal=stop_signal)

    @property
    def lines(self) -> list[str]:
        return self.file.read_text(encoding="utf-8").splitlines()

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[2]) for line in self.lines if line.startswith(f"{name} start ")]

    def started(self, name: str, count: int) -> None:
        until(lambda: len(self.pids(name)) == count)

    def missing(self) -> Sequence[str]:
        return self.blocked

    def ready(self) -> None:
        self.readied += 1

    def run(self, *workers: Program, envoy: Program | None = None, meanwhile: Callable[[], None] = lambda: None) -> int:
        """Run the supervisor in this thread, which gets the signals, and `meanwhile` in another one. Return the exit code."""
        programs = [*workers, envoy or self.program("envoy")]
        *others, last = [Child(program, os.environ, 2, self.printed.append) for program in programs]

        def script() -> None:
            try:
                meanwhile()
            except BaseException:
                send_signal()
                raise

        with ThreadPoolExecutor() as threads:
            played = threads.submit(script)
            code = supervisor.run(others, last, self.missing, drain=1, say=self.printed.append, ready=self.ready)
            played.result()
        return code


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def hangup(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the handler of SIGHUP to the test's parameter, because nohup starts the tests with SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(child, "MAX_DELAY", 0.02)


def send_signal(number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the supervisor, which is this process."""
    os.kill(os.getpid(), number)


def alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ready_is_called_once_when_nothing_is_missing(stage: Stage) -> None:
    """`ready` is called once, when nothing is missing any more."""
    stage.blocked = ["worker 0"]

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        assert stage.readied == 0
        stage.blocked = []
        until(lambda: stage.readied)
        send_signal()

    assert stage.run(stage.program("worker 0"), meanwhile=script) == 0
    assert stage.readied == 1


@pytest.mark.parametrize("hangup", [signal.SIG_DFL], indirect=True, ids=["heard"])
@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_workers_then_envoy(stage: Stage, number: signal.Signals) -> None:
    """One signal ends the workers and then Envoy, with exit code 0."""

    def script() -> None:
        until(lambda: len(stage.lines) == 3)
        send_signal(number)

    assert stage.run(stage.program("w0"), stage.program("w1"), meanwhile=script) == 0
    assert sorted(stage.lines[3:5]) == ["w0 term", "w1 term"]
    assert stage.lines[5] == "envoy term"
    assert "Stopping" in stage.printed[0]


@pytest.mark.parametrize("hangup", [signal.SIG_IGN], indirect=True, ids=["ignored"])
@pytest.mark.usefixtures("hangup")
def test_a_hangup_that_is_ignored_stays_so(stage: Stage) -> None:
    """SIGHUP stays ignored if it was ignored at the start, as nohup does."""

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0


def test_a_dead_child_is_started_again_and_reported(stage: Stage) -> None:
    """A killed child is started again, and a line reports it."""

    def script() -> None:
        until(lambda: stage.pids("w0"))
        os.kill(stage.pids("w0")[0], signal.SIGKILL)
        until(lambda: len(stage.pids("w0")) == 2)
        assert stage.printed[0].startswith("w0 ended (by SIGKILL) after 0.")
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0


@pytest.mark.usefixtures("soon")
def test_a_child_that_cannot_start_ends_the_whole(stage: Stage) -> None:
    """Before the gateway was ready, a child that keeps dying is given up: all children are ended, with exit code 1."""
    stage.blocked = ["w0"]
    assert stage.run(stage.program("w0", "3"), stage.program("w1")) == 1
    assert len(stage.pids("w0")) == child.MAX_FAILED_STARTS
    assert "w0 cannot start: it ended 5 times within 5 s, the last time exit code 3." in stage.printed
    assert stage.lines[-1] == "envoy term"
    assert not any(alive(pid) for name in ("w1", "envoy") for pid in stage.pids(name))


def test_an_unusable_configuration_is_not_tried_again(stage: Stage) -> None:
    """A child that reports an unusable configuration is started once only."""
    stage.blocked = ["w0"]
    assert stage.run(stage.program("w0", str(child.EXIT_UNUSABLE_CONFIG))) == 1
    assert len(stage.pids("w0")) == 1


@pytest.mark.usefixtures("soon")
def test_once_ready_a_child_is_never_given_up(stage: Stage) -> None:
    """After the gateway was ready, a child is started again however often it dies."""

    def script() -> None:
        until(lambda: stage.readied)
        for count in range(1, child.MAX_FAILED_STARTS + 3):
            stage.started("w0", count)
            os.kill(stage.pids("w0")[-1], signal.SIGKILL)
        stage.started("w0", child.MAX_FAILED_STARTS + 3)
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0


def test_once_ready_a_kill_costs_no_delay(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that a signal has killed is started again at once, if it had lived a moment."""
    monkeypatch.setattr(child, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(child, "MIN_LIFE_IF_KILLED", 0.0)

    def script() -> None:
        until(lambda: stage.readied)
        for count, number in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL), start=1):
            stage.started("w0", count)
            os.kill(stage.pids("w0")[-1], number)
        stage.started("w0", 4)
        assert all(line.endswith("starting it again now") for line in stage.printed)
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0


@pytest.mark.parametrize("ready", [True, False])
def test_a_child_that_dies_by_itself_is_started_again_later(stage: Stage, monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    """A child that exits by itself, or that is killed before the gateway was ready, is started again after a delay."""
    monkeypatch.setattr(child, "MIN_LIFE_IF_KILLED", 0.0)
    monkeypatch.setattr(child, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(child, "MAX_DELAY", 60.0)
    stage.blocked = [] if ready else ["w0"]

    def script() -> None:
        until(lambda: stage.pids("w0") and bool(stage.readied) is ready)
        os.kill(stage.pids("w0")[0], signal.SIGTERM if ready else signal.SIGKILL)  # on SIGTERM the program exits with code 0
        until(lambda: stage.printed)
        assert stage.printed[0].endswith("starting it again in 60 s")
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0


def test_a_program_that_is_not_there_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be run counts as an early death."""
    monkeypatch.setattr(child, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(child, "wrapped_command", lambda program: program.command)
    stage.blocked = ["w0"]
    program = Program("w0", [str(stage.folder / "none")], folder=stage.folder, grace=1)
    assert stage.run(program) == 1
    assert "w0 cannot start" in stage.printed[-1]
    assert "No such file" in stage.printed[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the others have no such policies")
@pytest.mark.parametrize(("own", "wanted"), [("OTHER", "BATCH"), ("IDLE", "IDLE")])
def test_a_child_does_not_interrupt_others_when_it_wakes(tmp_path: Path, own: str, wanted: str) -> None:
    """A child has the scheduling policy `SCHED_BATCH`, unless the operator has chosen another one."""
    driver = f"""
import os, subprocess, sys
from pathlib import Path
from antiphon.up.child import wrapped_command
from antiphon.up.plan import Program

os.sched_setscheduler(0, os.SCHED_{own}, os.sched_param(0))
command = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
subprocess.run(wrapped_command(Program("w0", command, folder=Path({str(tmp_path)!r}), grace=1)), check=True)
"""
    done = subprocess.run([sys.executable, "-c", driver], check=True, capture_output=True, text=True)
    assert int(done.stdout) == getattr(os, f"SCHED_{wanted}")


def test_a_deaf_child_is_killed_after_its_grace(stage: Stage) -> None:
    """A child that ignores SIGTERM is killed after its grace period, and a line reports it."""

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        send_signal()

    assert stage.run(stage.program("w0", "deaf", grace=0.2), meanwhile=script) == 0
    assert "w0 did not end within 0.2 s of SIGTERM: killed" in stage.printed
    assert not alive(stage.pids("w0")[0])


def test_a_second_signal_ends_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal kills all children at once; the exit code names the signal."""
    monkeypatch.setattr(supervisor, "SIGNAL_WINDOW", 0.0)

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        send_signal()
        until(lambda: "w0 term" in stage.lines)
        send_signal(signal.SIGINT)

    assert stage.run(stage.program("w0", "deaf", grace=60), meanwhile=script) == 128 + signal.SIGINT


def test_a_signal_that_comes_twice_at_once_is_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes twice at once, as `timeout` sends it, counts as one."""
    monkeypatch.setattr(supervisor, "SIGNAL_WINDOW", 60.0)

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        send_signal()
        until(lambda: "w0 term" in stage.lines)
        send_signal()

    assert stage.run(stage.program("w0", "deaf", grace=0.5), meanwhile=script) == 0
    assert "w0 did not end within 0.5 s of SIGTERM: killed" in stage.printed


def test_children_that_end_before_the_supervisor_are_not_started_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all processes get a signal at once, children that end before the supervisor are neither started again nor reported."""
    monkeypatch.setattr(child, "SIGNAL_WINDOW", 60.0)

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        pids = [*stage.pids("w0"), *stage.pids("envoy")]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not any(map(alive, pids)))
        send_signal()

    assert stage.run(stage.program("w0"), meanwhile=script) == 0
    assert len(stage.lines) == 4
    assert [line.partition(".")[0] for line in stage.printed] == ["Stopping"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do it")
def test_a_child_that_ends_by_another_signal_does_not_hear_sigterm(stage: Stage) -> None:
    """A child with another stop signal ignores SIGTERM, so that Envoy outlives the workers."""

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        for pid in (*stage.pids("envoy"), *stage.pids("w0"), os.getpid()):
            os.kill(pid, signal.SIGTERM)

    assert stage.run(stage.program("w0"), envoy=stage.program("envoy", stop_signal="SIGINT"), meanwhile=script) == 0
    assert [line for line in stage.lines[2:] if line != "w0 term"] == ["envoy int"]
    assert stage.lines[-1] == "envoy int"


def test_a_child_that_hangs_is_started_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child without further heartbeats is killed and started again, and a line reports it."""
    monkeypatch.setattr(liveness, "INTERVAL", 0.05)

    def script() -> None:
        until(lambda: len(stage.pids("w0")) == 2)
        assert stage.printed[0].startswith("w0 hangs: no sign of life for ")
        assert "w0 ended (by SIGKILL)" in stage.printed[1]
        send_signal()

    program = Program("w0", [sys.executable, "-c", HANGING, str(stage.file)], folder=stage.folder, grace=10, sends_heartbeat=True)
    assert stage.run(program, meanwhile=script) == 0


def test_a_stop_does_not_wait_for_a_restart(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that waits for its restart is not started again during a stop."""
    monkeypatch.setattr(child, "FIRST_DELAY", 60.0)
    monkeypatch.setattr(child, "MAX_DELAY", 60.0)

    def script() -> None:
        until(lambda: any("w0 ended" in line for line in stage.printed))
        send_signal()

    assert stage.run(stage.program("w0", "1"), meanwhile=script) == 0


def test_a_failing_ready_callback_ends_the_children(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of `ready` is raised after all children are ended."""

    def fail() -> None:
        raise RuntimeError("no terminal")

    monkeypatch.setattr(stage, "ready", fail)
    with pytest.raises(RuntimeError, match="no terminal"):
        stage.run(stage.program("w0"))
    assert not any(alive(pid) for pid in stage.pids("w0"))


def test_children_have_sessions_of_their_own(stage: Stage) -> None:
    """Each child has its own session, so that Ctrl-C in a terminal does not reach it."""

    def script() -> None:
        until(lambda: len(stage.lines) == 2)
        for line in stage.lines:
            _, _, pid, session = line.split()
            assert pid == session
        send_signal()

    stage.run(stage.program("w0"), meanwhile=script)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do it")
def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """Children end if the supervisor is killed by SIGKILL."""
    stage = Stage(tmp_path)
    driver = f"""
import os, sys
from pathlib import Path
from antiphon.up.child import Child
from antiphon.up.plan import Program

command = [sys.executable, "-c", {CHILD!r}, {str(stage.file)!r}, "w0", "deaf"]
Child(Program("w0", command, folder=Path({str(tmp_path)!r}), grace=1), os.environ, 2, print).look()
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", driver], stdin=subprocess.PIPE) as process:
        until(lambda: stage.pids("w0"))
        process.kill()
    until(lambda: not alive(stage.pids("w0")[0]))


def test_a_child_gets_the_variables_of_its_program(tmp_path: Path) -> None:
    """A program with a list of variables gets only those that are set."""
    file = tmp_path / "environment"
    show = [sys.executable, "-c", f"import json, os; open({str(file)!r}, 'w').write(json.dumps(dict(os.environ)))"]
    envoy = Program("Envoy", show, folder=tmp_path, grace=1, variables=["LANG", "TZ"])
    plan = Plan([], envoy, folder=tmp_path / "run", drain=1, log_file=None, banner="")
    environment = {"LANG": "C", "ANTIPHON_KEY": "sesame"}

    def script() -> None:
        until(lambda: file.exists() and file.read_text(encoding="utf-8"))
        send_signal()

    with ThreadPoolExecutor() as threads:
        played = threads.submit(script)
        supervisor.supervise(plan, environment, say=lambda _: None, ready=lambda _: None)
        played.result()
    assert json.loads(file.read_text(encoding="utf-8")).keys() - {"LC_CTYPE"} == {"LANG"}


def test_the_supervisor_answers_prometheus_and_probes(tmp_path: Path) -> None:
    """The supervisor serves the workers' metrics and the probes. The port and the socket are gone after the end."""
    folder = Path(tempfile.mkdtemp())
    address = f"127.0.0.1:{free_port()}"
    pause = f"import pathlib, signal; pathlib.Path({str(tmp_path / 'there')!r}).touch(); signal.pause()"
    envoy = Program("Envoy", [sys.executable, "-c", pause], folder=tmp_path, grace=1)
    plan = Plan([], envoy, folder=folder, drain=1, log_file=None, banner="", metrics=address)
    found: list[tuple[int, str]] = []

    def script() -> None:
        until((tmp_path / "there").exists)  # so the supervisor handles signals by now
        with Reporter(folder / METRICS_SOCKET, lambda: b"# TYPE calls_total counter\ncalls_total 7.0\n"):
            until(lambda: "calls_total 7.0" in get(address, "/metrics")[1])
            found.extend(get(address, path) for path in ("/healthz", "/readyz"))
        send_signal()

    with ThreadPoolExecutor() as threads:
        played = threads.submit(script)
        supervisor.supervise(Plan.loads(plan.dumps()), os.environ, say=lambda _: None, ready=lambda _: None)
        played.result()
    assert found == [(200, '{"status": "ok"}\n'), (503, '{"status": "not ready", "missing": ["Envoy"]}\n')]
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        get(address, "/healthz")


# Sends a heartbeat and then hangs; ends on SIGTERM once FILE exists. Usage: FILE --heartbeat DESCRIPTOR
HESITATING = """
import os, pathlib, signal, sys, time
file, _, descriptor = sys.argv[1:]
def end(*_):
    while not pathlib.Path(file).exists():
        time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(f"{file}-{os.getpid()}").touch()
os.write(int(descriptor), b".")
while True:
    signal.pause()
"""


def test_probes_see_what_hangs_and_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes report a hanging worker before it is killed, and a stop for as long as it takes. This supervisor runs no Envoy."""
    monkeypatch.setattr(liveness, "INTERVAL", 0.2)
    monkeypatch.setattr(liveness, "FIRST_INTERVAL", 0.01)
    folder = Path(tempfile.mkdtemp(prefix="antiphon-test-"))
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", HESITATING, str(tmp_path / "go")]
    worker = Program("worker 0", command, folder=tmp_path, grace=20, sends_heartbeat=True)
    monkeypatch.chdir(tmp_path)  # pytest's paths are too long for sockets
    plan = Plan([worker], None, folder=folder, drain=1, log_file=None, banner="", metrics=address, edge=Path())
    printed: list[str] = []

    def script() -> None:
        until(lambda: answers(address, "/healthz") == (503, '{"status": "hangs", "hanging": ["worker 0"]}\n'))
        until(lambda: answers(address, "/healthz") == (200, '{"status": "ok"}\n'))
        until(lambda: len(list(tmp_path.glob("go-*"))) == 2)
        send_signal()
        until(lambda: answers(address, "/readyz") == (503, '{"status": "draining"}\n'))
        (tmp_path / "go").touch()

    with ThreadPoolExecutor() as threads:
        played = threads.submit(script)
        supervisor.supervise(plan, os.environ, say=printed.append, ready=lambda _: None)
        played.result()
    assert "worker 0 hangs: no sign of life for 0.6 s; killed" in printed


def answers(address: str, path: str) -> tuple[int, str] | None:
    """Return the status and body of an answer, or None while the port is closed."""
    try:
        return get(address, path)
    except ConnectionRefusedError:
        return None


def get(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        head, _, body = connection.makefile("rb").read().decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def test_the_supervisor_is_of_the_standard_library_alone() -> None:
    """The supervisor imports only the standard library, and neither asyncio nor ssl.

    It runs as long as the gateway, and its imports stay in memory.
    """
    show = "import sys, antiphon.up.supervisor; print(*(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-S", "-c", show], capture_output=True, text=True, check=False, env=_source_path())
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert loaded - sys.stdlib_module_names == {"antiphon", "__main__"} - sys.stdlib_module_names
    assert not loaded & {"asyncio", "ssl"}


def _source_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(supervisor.__file__).parents[2])}
