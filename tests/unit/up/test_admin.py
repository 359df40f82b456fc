"""Tests of Envoy's admin interface. What a real Envoy does when it drains is tested in `tests/unit/edge/test_files.py`."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from antiphon.up import admin


def test_turning_a_missing_envoy_unready_does_nothing(tmp_path: Path) -> None:
    """`turn_unready` does nothing if there is no Envoy, so that a stop goes on."""
    admin.turn_unready(tmp_path / "none")


@contextmanager
def envoy(folder: Path) -> Iterator[Future[bytes]]:
    """Answer one request as the Envoy in a folder. Yield a future of the request."""

    def answer() -> bytes:
        connection, _ = listener.accept()
        with connection:
            request = connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nOK\n")
            return request

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
        listener.settimeout(20)
        listener.bind(str(folder / admin.ADMIN_SOCKET))
        listener.listen()
        yield threads.submit(answer)


def test_the_stop_hook_of_a_container_turns_it_unready(tmp_path: Path) -> None:
    """The command of a container's stop hook writes 1 to the drain file and posts to the admin interface."""
    with envoy(tmp_path) as request:
        subprocess.run([sys.executable, "-m", "antiphon.up.admin", str(tmp_path)], check=True)
        assert request.result().startswith(b"POST /healthcheck/fail ")
    assert (tmp_path / admin.DRAINING_FILE).read_text(encoding="ascii") == "1\n"


def test_a_stop_can_be_taken_back(tmp_path: Path) -> None:
    """`turn_ready` takes a drain back, for an Envoy that outlives its server."""
    with envoy(tmp_path) as request:
        admin.turn_ready(tmp_path)
        assert request.result().startswith(b"POST /healthcheck/ok ")
    assert (tmp_path / admin.DRAINING_FILE).read_text(encoding="ascii") == "0\n"
