"""Tests of what a start does beside its workers, with small programs in the place of the real ones."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from antiphon.up import supervisor
from antiphon.up.child import Gate
from antiphon.up.plan import Plan, Program
from antiphon.up.preparation import EXIT_CHANGED, Preparation
from tests.waiting import block_until as until

# A worker that notes its start, and once it is let in. Usage: FILE [--heartbeat DESCRIPTOR] [--gate DESCRIPTOR]
WORKER = """
import os, signal, sys
file, *options = sys.argv[1:]
def note(what):
    with open(file, "a") as f:
        f.write(what + "\\n")
note("started")
if "--gate" in options:
    os.read(int(options[options.index("--gate") + 1]), 1)
    note("let in")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
"""

# Waits for the file GO, writes the banner, and ends with CODE. Usage: GO CODE --banner DESCRIPTOR
PREPARATION = """
import os, sys, time
go, code, _, banner = sys.argv[1:]
while not os.path.exists(go):
    time.sleep(0.01)
os.write(int(banner), "è up\\n".encode())
sys.exit(int(code))
"""


class Run:
    """A supervisor with one such worker and preparation, in this thread, which gets the signals."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        self.go = folder / "go"
        self.banners: list[str] = []
        self.folder = folder

    @property
    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def __call__(self, code: int, script: object, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(supervisor, "missing", lambda _folder, _count: [] if "let in" in self.noted else ["worker 0"])
        worker = Program("w", [sys.executable, "-c", WORKER, str(self.notes)], self.folder, 5.0, sends_heartbeat=True)
        preparation = Program("p", [sys.executable, "-c", PREPARATION, str(self.go), str(code)], self.folder, 5.0)
        plan = Plan([worker], None, self.folder / "run", 1.0, None, "", preparation=preparation)
        with ThreadPoolExecutor() as threads:
            played = threads.submit(script)  # type: ignore[arg-type]
            ended = supervisor.supervise(Plan.loads(plan.dumps()), os.environ, say=lambda _: None, ready=self.banners.append)
            played.result()
        return ended


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_workers_wait_for_what_is_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker starts at once, but waits until the preparation has succeeded. Then the gateway is ready, with its banner."""

    def script() -> None:
        until(lambda: run.noted == ["started"])
        run.go.touch()
        until(lambda: run.banners)
        stop()

    assert run(0, script, monkeypatch) == 0
    assert run.noted == ["started", "let in"]
    assert run.banners == ["è up\n"]


@pytest.mark.parametrize("code", [1, 2, EXIT_CHANGED])
def test_a_preparation_that_fails_ends_the_start(code: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the preparation fails, no worker is let in, and its exit code is that of the start."""

    def script() -> None:
        until(lambda: run.noted == ["started"])
        run.go.touch()

    assert run(code, script, monkeypatch) == code
    assert (run.noted, run.banners) == (["started"], [])


def test_a_stop_ends_the_preparation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during the preparation ends it, and the workers that wait; the exit code is that of any other stop."""

    def script() -> None:
        until(lambda: run.noted == ["started"])
        stop()

    assert run(0, script, monkeypatch) == 0
    assert (run.noted, run.banners) == (["started"], [])


def test_a_preparation_that_is_killed_has_failed(tmp_path: Path) -> None:
    """The code of a preparation that a signal ended is that of a shell, and the gate stays closed."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    preparation = Preparation(Program("p", [sys.executable, "-c", script], tmp_path, 5.0), os.environ)

    def ended() -> bool:
        preparation.look()
        return preparation.code is not None

    until(ended)
    assert preparation.code == 128 + signal.SIGKILL
    assert preparation.gate.reader is not None


def test_a_gate_can_be_opened_twice() -> None:
    """An open gate stays open."""
    gate = Gate()
    gate.open()
    gate.open()
    assert gate.reader is None
