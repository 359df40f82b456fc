"""Serves the connections of a listening socket, one thread for each.

Uses the standard library only, and not `socketserver`, which wakes up twice a second.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

RETRY_DELAY = 0.1
"""Seconds to wait after a failed accept before the next one."""


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening TCP socket, on IPv4 if the host name has such an address. Raises `OSError`.

    `backlog` is how many callers may wait to be accepted. Without SO_REUSEPORT, so that no other process can share the port.
    """
    family, kind, protocol, _, address = min(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE), key=lambda e: e[0] != socket.AF_INET
    )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


class Acceptor:
    """Serves the connections of `listener` until closed: at most `max_connections` at once, further ones wait in the backlog."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None], max_connections: int) -> None:
        """Start to accept. `serve` handles one connection in its own thread.

        It may raise `OSError`, which closes the connection.
        """
        self._listener = listener
        self._serve = serve
        self._closed = threading.Event()
        self._slots = threading.BoundedSemaphore(max_connections)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more connections. Open ones go on."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._listener.close()

    def _accept(self) -> None:
        """Accept connections until closed, each when a slot is free."""
        while True:
            self._slots.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed; or the caller is gone already, or too many files are open
                self._slots.release()
                if self._closed.wait(RETRY_DELAY):
                    return
                continue
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self._serve(connection)
        finally:
            self._slots.release()
