"""Keeps gRPC's thread from waiting for the event loop.

For each operation that has ended, gRPC's thread writes a byte to a socket, to wake the event loop. The loop reads one byte in a
turn, and handles all operations that have ended until then. So on a busy server the bytes pile up. Once the socket is full, with
278 of them on Linux, the thread waits in its write: then operations end one by one, one in a turn, and meanwhile nothing is read
from callers.

A byte that finds no room is not needed, as those before it wake the loop too. So here the socket does not block, and is as small as
possible, as each byte in it takes a turn of the loop. That is for processes with one event loop, as gRPC has one socket for all.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unblocked() -> Iterator[None]:
    """Let the sockets that wake the event loop not block, if gRPC makes them meanwhile: with the first server of a process.

    If there was a channel before, they are as they were. gRPC keeps them for itself, so they are taken from the function that makes
    them.
    """
    made = socket.socketpair

    def socketpair(*arguments: Any, **options: Any) -> tuple[socket.socket, socket.socket]:
        reader, writer = made(*arguments, **options)
        writer.settimeout(0)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
        return reader, writer

    socket.socketpair = socketpair
    try:
        yield
    finally:
        socket.socketpair = made
