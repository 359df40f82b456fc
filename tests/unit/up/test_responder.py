"""Tests of the port for Prometheus and probes."""

import select
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import httpx2
import pytest

from antiphon.up import responder
from antiphon.up.responder import MAX_REQUESTS, Responder
from tests.ports import free_port
from tests.waiting import block_until


class Served:
    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.missing: list[str] = []
        self.hanging: list[str] = []
        self.leaving = False

    def get(self, path: str, method: str = "GET") -> httpx2.Response:
        return httpx2.request(method, f"http://{self.address}{path}", trust_env=False)


@pytest.fixture
def served() -> Iterator[Served]:
    of = Served()
    options = {"hanging": lambda: of.hanging, "leaving": lambda: of.leaving}
    with closing(Responder(of.address, lambda: b"calls_total 1\n", lambda: of.missing, **options)):
        yield of


def test_metrics_are_as_prometheus_reads_them(served: Served) -> None:
    """`/metrics` has Prometheus' content type; a query is ignored."""
    answer = served.get("/metrics?name=x")
    assert (answer.status_code, answer.content) == (200, b"calls_total 1\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_it_is_ready_if_nothing_is_missing(served: Served) -> None:
    """`/readyz` is 200 if nothing is missing, and else 503 with the list; `/healthz` is 200 in both cases."""
    assert served.get("/readyz").json() == {"status": "ready"}
    served.missing = ["worker 0"]
    answer = served.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "missing": ["worker 0"]})
    assert served.get("/healthz").json() == {"status": "ok"}


def test_a_stopping_gateway_is_draining(served: Served) -> None:
    """`/readyz` of a stopping gateway is 503 with "draining", as at the edge."""
    served.missing, served.leaving = ["worker 0"], True
    answer = served.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
    assert served.get("/healthz").status_code == 200


def test_it_is_not_alive_if_something_hangs(served: Served) -> None:
    """`/healthz` is 503 with the list if something hangs."""
    served.hanging = ["worker 0"]
    answer = served.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "hangs", "hanging": ["worker 0"]})


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405), ("/healthz", "HEAD", 200)])
def test_other_requests(served: Served, path: str, method: str, status: int) -> None:
    """Another path is 404 and another method 405; HEAD has no body."""
    answer = served.get(path, method)
    assert answer.status_code == status
    assert bool(answer.content) == (method != "HEAD")


@pytest.mark.parametrize(
    "sent", [b"\r\n", b"GET\r\n\r\n", b"\0" * 40_000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9_000]
)
def test_what_is_no_request_ends_the_connection_alone(served: Served, sent: bytes) -> None:
    """An invalid request ends its connection only, and the next one is answered."""
    host, _, port = served.address.partition(":")
    # The server resets a connection whose bytes it has not read.
    with suppress(OSError), socket.create_connection((host, int(port))) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert served.get("/healthz").status_code == 200


def test_a_slow_client_has_the_same_timeout_as_a_silent_one(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout holds for the whole request, so that a slow client is dropped as a silent one is."""
    monkeypatch.setattr(responder, "TIMEOUT", 0.2)
    host, _, port = served.address.partition(":")
    with socket.create_connection((host, int(port))) as connection, suppress(ConnectionError):

        def dropped() -> bool:
            connection.sendall(b"a")
            return not connection.recv(1, socket.MSG_PEEK) if _is_readable(connection) else False

        block_until(dropped)
    assert served.get("/healthz").status_code == 200


def _is_readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_clients_that_say_nothing_hold_nobody_up_for_long(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent clients do not block others for long, even if they take all MAX_REQUESTS places."""
    monkeypatch.setattr(responder, "TIMEOUT", 0.05)
    host, _, port = served.address.partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(MAX_REQUESTS)]
    assert served.get("/healthz").status_code == 200
    for connection in silent:
        connection.close()


def test_a_taken_address_is_reported() -> None:
    """A taken address raises an `OSError` that names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"metrics.listen: {address} cannot be listened on: Address already in use"):
            Responder(address, lambda: b"", list)
