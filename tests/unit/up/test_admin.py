"""Envoy's admin interface; what the real Envoy does when it is told to drain, `tests/unit/edge/test_files.py` holds."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from antiphon.up import admin


def test_an_envoy_that_is_not_there_is_told_nothing(tmp_path: Path) -> None:
    """A stop goes on without it."""
    admin.turn_unready(tmp_path / "none")


@contextmanager
def envoy(folder: Path) -> Iterator[Future[bytes]]:
    """Answer once, as the Envoy in a folder; yields what was asked."""

    def answer() -> bytes:
        connection, _ = listener.accept()
        with connection:
            asked = connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nOK\n")
            return asked

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
        listener.settimeout(20)
        listener.bind(str(folder / admin.ADMIN_SOCKET))
        listener.listen()
        yield threads.submit(answer)


def test_a_hook_of_a_container_tells_it(tmp_path: Path) -> None:
    """By the folder's name: the file says 1, and the admin interface is told."""
    with envoy(tmp_path) as asked:
        subprocess.run([sys.executable, "-m", "antiphon.up.admin", str(tmp_path)], check=True)
        assert asked.result().startswith(b"POST /healthcheck/fail ")
    assert (tmp_path / admin.DRAINING_FILE).read_text(encoding="ascii") == "1\n"


def test_a_stop_can_be_taken_back(tmp_path: Path) -> None:
    """For an Envoy that outlives the server it was told of."""
    with envoy(tmp_path) as asked:
        admin.turn_ready(tmp_path)
        assert asked.result().startswith(b"POST /healthcheck/ok ")
    assert (tmp_path / admin.DRAINING_FILE).read_text(encoding="ascii") == "0\n"
