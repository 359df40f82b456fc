"""`antiphon up` with its log on standard output, as in a container."""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import KEY, READY
from tests.ports import free_port
from tests.waiting import block_until


class Started:
    """A gateway with separate output streams: standard output is a file or a terminal, standard error a file."""

    def __init__(self, folder: Path, out: int, temporary: Path, **environment: str) -> None:
        self.rest = f"127.0.0.1:{free_port()}"
        self.err = folder / "err"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(temporary),
            "ANTIPHON_LOG__STREAM": "stdout",
            "ANTIPHON_GRPC__LISTEN": f"0.0.0.0:{free_port()}",
            "ANTIPHON_REST__LISTEN": self.rest,
            **environment,
        }
        with self.err.open("wb") as err:
            command = [sys.executable, "-m", "antiphon", "up"]
            self.process = subprocess.Popen(command, cwd=folder, env=self.environment, stdout=out, stderr=err)

    def health(self) -> int:
        command = [sys.executable, "-m", "antiphon.up.health"]
        return subprocess.run(command, env=self.environment, check=False, capture_output=True).returncode

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yield a folder for TMPDIR with a path short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_standard_output_has_nothing_but_json(tmp_path: Path, temporary: Path) -> None:
    """Everything printed is JSON on standard output: the log, the supervisor's messages, warnings and Envoy's lines."""
    file = tmp_path / "out"
    with file.open("wb") as out:
        gateway = Started(tmp_path, out.fileno(), temporary, ANTIPHON_KEY=KEY)
    try:
        block_until(lambda: READY in file.read_text() or gateway.process.poll() is not None)
        assert httpx2.get(f"http://{gateway.rest}/v1/models").status_code == 401
    finally:
        code = gateway.stop()
    assert code == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line["event"] for line in lines if line.get("process") == "supervisor"]
    assert events[0].startswith("grpc.listen (0.0.0.0:")
    assert events[1] == READY
    assert events[2].startswith("Stopping.")
    assert {"serving", "stopped"} <= {line["event"] for line in lines}
    assert all(line["level"] in {"debug", "info", "warning", "error"} and line["timestamp"] for line in lines)
    assert "sk-" not in file.read_text()
    assert gateway.err.read_text() == ""


def test_a_terminal_is_shown_the_banner(tmp_path: Path, temporary: Path) -> None:
    """On a terminal the banner appears, with the key that was made for the run."""
    ours, theirs = pty.openpty()
    gateway = Started(tmp_path, theirs, temporary)
    os.close(theirs)
    output = ""
    try:
        while "StreamGenerate" not in output:
            output += os.read(ours, 4096).decode()
    finally:
        gateway.stop()
        os.close(ours)
    assert READY in output
    assert "export ANTIPHON_KEY=sk-" in output


def test_no_key_is_made_without_a_terminal(tmp_path: Path, temporary: Path) -> None:
    """Without a terminal no key is made, and a missing key is a configuration error."""
    with (tmp_path / "out").open("wb") as out:
        gateway = Started(tmp_path, out.fileno(), temporary)
    assert gateway.process.wait(30) == 2
    assert "auth.keys: nobody could call" in gateway.err.read_text()
    assert (tmp_path / "out").read_text() == ""


def test_the_health_check_tells_whether_the_gateway_answers(tmp_path: Path, temporary: Path) -> None:
    """The health check fails before the start and after the end, and succeeds in between."""
    file = tmp_path / "out"
    with file.open("wb") as out:
        gateway = Started(tmp_path, out.fileno(), temporary, ANTIPHON_KEY=KEY)
    try:
        assert gateway.health() == 1
        block_until(lambda: READY in file.read_text() or gateway.process.poll() is not None)
        assert gateway.health() == 0
    finally:
        gateway.stop()
    assert gateway.health() == 1


@pytest.mark.slow
def test_the_health_check_fails_while_no_worker_answers(tmp_path: Path, temporary: Path) -> None:
    """If the only worker hangs, the health check fails once Envoy notices, and succeeds again when the worker continues."""
    file = tmp_path / "out"
    with file.open("wb") as out:
        gateway = Started(tmp_path, out.fileno(), temporary, ANTIPHON_KEY=KEY)
    try:
        block_until(lambda: READY in file.read_text() or gateway.process.poll() is not None)
        found = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        worker = next(int(child) for child in found if b"antiphon.worker" in Path(f"/proc/{child}/cmdline").read_bytes())
        os.kill(worker, signal.SIGSTOP)
        block_until(lambda: gateway.health() == 1, 60)
        os.kill(worker, signal.SIGCONT)
        block_until(lambda: gateway.health() == 0, 60)
    finally:
        gateway.stop()
