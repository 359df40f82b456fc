"""The port for Prometheus and probes: `/metrics`, `/healthz`, `/readyz`, over plain HTTP/1.1, one request on each connection.

It needs no key, and reveals nothing about callers. Uses the standard library only, without `http.server`, which loads OpenSSL.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence

from antiphon.up.acceptor import Acceptor, listen

TEXT = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"

MAX_HEAD_BYTES = 16 * 1024
"""The most bytes of a request's head."""

TIMEOUT = 5.0
"""Seconds that a client may take to send its request, and again to read the response."""

MAX_REQUESTS = 16
"""The most requests at once."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Parts = Callable[[], Sequence[str]]
"""Returns the names of the parts of the gateway that are not in order."""


class Responder:
    """Answers at `address`, "host:port", until closed. Raises `OSError` if it cannot listen there."""

    def __init__(
        self,
        address: str,
        exposition: Callable[[], bytes],
        missing: Parts,
        *,
        hanging: Parts = tuple,
        leaving: Callable[[], bool] = bool,
    ) -> None:
        """Start to answer. `exposition` returns the Prometheus text.

        `missing` returns the parts that are not ready, `hanging` the processes that hang; `leaving` returns True once a stop has
        begun.
        """
        self._exposition = exposition
        self._missing = missing
        self._hanging = hanging
        self._leaving = leaving
        self._acceptor = Acceptor(_listener(address), self._serve, MAX_REQUESTS)

    def close(self) -> None:
        """Accept no more requests."""
        self._acceptor.close()

    def _serve(self, connection: socket.socket) -> None:
        head, complete, _ = _head(connection).partition(b"\r\n\r\n")
        request = head.partition(b"\r\n")[0].split() if complete else []
        if len(request) != 3:
            status, kind, body = 400, JSON, _json(status="bad request")
        elif request[0] not in {b"GET", b"HEAD"}:
            status, kind, body = 405, JSON, _json(status="only GET and HEAD")
        else:
            status, kind, body = self._answer(request[1].partition(b"?")[0])
        header = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        header += "connection: close\r\n\r\n"
        connection.settimeout(TIMEOUT)
        connection.sendall(header.encode() + (b"" if request[:1] == [b"HEAD"] else body))

    def _answer(self, path: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of the response for a path."""
        match path:
            case b"/metrics":
                return 200, TEXT, self._exposition()
            case b"/healthz":
                hanging = list(self._hanging())
                return (503, JSON, _json(status="hangs", hanging=hanging)) if hanging else (200, JSON, _json(status="ok"))
            case b"/readyz" if self._leaving():
                return 503, JSON, _json(status="draining")
            case b"/readyz":
                missing = list(self._missing())
                return (503, JSON, _json(status="not ready", missing=missing)) if missing else (200, JSON, _json(status="ready"))
            case _:
                return 404, JSON, _json(status="there are /metrics, /healthz and /readyz")


def _head(connection: socket.socket) -> bytes:
    """Return a request up to the end of its head, or what was sent before the client stopped. Raises `OSError`."""
    end = time.monotonic() + TIMEOUT
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    return head


def _listener(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return listen(host.removeprefix("[").removesuffix("]"), int(port), 64)
    except OSError as error:
        raise OSError(f"metrics.listen: {address} cannot be listened on: {error.strerror}") from error


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"
