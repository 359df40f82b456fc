"""Tests of draining a real Envoy without a server behind it."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from antiphon.config import RestConfig
from antiphon.edge import files
from antiphon.up.admin import ADMIN_SOCKET
from antiphon.up.draining import drain
from tests.ports import free_port
from tests.waiting import block_until


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[int]:
    """Run an Envoy in `tmp_path` and yield its port."""
    port = free_port()
    files.prepare(tmp_path, RestConfig(listen=f"127.0.0.1:{port}"), ["server.sock"])
    process = subprocess.Popen(files.command(1), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx2.TransportError:
            return False
        return True

    block_until(listens)
    yield port
    process.kill()
    process.wait(10)


def _ready(folder: Path) -> int:
    transport = httpx2.HTTPTransport(uds=str(folder / ADMIN_SOCKET))
    with httpx2.Client(transport=transport, base_url="http://admin") as admin:
        return admin.get("/ready").status_code


def test_it_serves_and_asks_its_callers_to_leave(envoy: int, tmp_path: Path) -> None:
    """A draining Envoy is not ready, but answers, and closes the connection after each answer."""
    assert _ready(tmp_path) == 200
    drain(tmp_path, 0, 0)
    assert _ready(tmp_path) == 503
    response = httpx2.get(f"http://127.0.0.1:{envoy}/health", trust_env=False)
    assert response.status_code == 503  # because there is no server
    assert response.headers["connection"] == "close"


def test_it_waits_for_calls_that_go_on(envoy: int, tmp_path: Path) -> None:
    """The drain waits for a call whose body is still incomplete, and ends with that call."""
    with socket.create_connection(("127.0.0.1", envoy), timeout=30) as caller:
        caller.sendall(b"POST /api/engine/chat/echo HTTP/1.1\r\nhost: edge\r\ncontent-length: 2\r\n\r\n{")
        block_until(lambda: "http.edge.downstream_rq_active: 1" in _stats(tmp_path))
        drained = threading.Event()

        def wait() -> None:
            drain(tmp_path, 0, 30)
            drained.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        block_until(lambda: _ready(tmp_path) == 503)
        assert not drained.is_set()
        caller.sendall(b"}")
        assert caller.recv(12) == b"HTTP/1.1 503"
        waiting.join(20)
        assert drained.is_set()


def _stats(folder: Path) -> str:
    transport = httpx2.HTTPTransport(uds=str(folder / ADMIN_SOCKET))
    with httpx2.Client(transport=transport, base_url="http://admin") as admin:
        return admin.get("/stats").text


def test_a_missing_envoy_is_reported(tmp_path: Path) -> None:
    """Without an Envoy the drain raises an `OSError` that names the socket."""
    with pytest.raises(OSError, match=r"admin\.sock"):
        drain(tmp_path, 0, 0)
