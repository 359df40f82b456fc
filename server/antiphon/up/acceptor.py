"""Connections to a listening socket, each served by a thread.

Of the standard library alone, and without `socketserver`, which wakes up twice a second.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

PAUSE = 0.1
"""Seconds after which it is tried again to accept, where that failed."""


def listen(host: str, port: int, waiting: int) -> socket.socket:
    """Return a socket that listens for TCP, with room for `waiting` callers, on IPv4 if the host has it. Raises `OSError`.

    Without SO_REUSEPORT, so that no one else can be there.
    """
    family, kind, protocol, _, address = min(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE), key=lambda e: e[0] != socket.AF_INET
    )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(waiting)
    except OSError:
        listener.close()
        raise
    return listener


class Acceptor:
    """Serves the connections of `listener` until it is closed; no more than `most` at once, and others wait to be accepted."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None], most: int) -> None:
        """`serve` may raise `OSError`, which ends the connection as its return does."""
        self._listener = listener
        self._serve = serve
        self._closed = threading.Event()
        self._places = threading.BoundedSemaphore(most)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections. Those that are there go on."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        self._listener.close()

    def _accept(self) -> None:
        while True:
            self._places.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed; or the caller was gone again, or there are too many open files
                self._places.release()
                if self._closed.wait(PAUSE):
                    return
                continue
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self._serve(connection)
        finally:
            self._places.release()
