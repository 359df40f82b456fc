"""Ports for servers of the tests that have to be told one before they start."""

import random
import socket
from itertools import count

# Below those that the system gives to connections (32768 on Linux), so that none takes a port before its server does. Each process
# begins somewhere else, so that two that test at the same time do not meet.
_FIRST, _LAST = 10_000, 32_000
_numbers = count(random.randrange(_LAST - _FIRST))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has, and that this process is given once."""
    while True:
        port = _FIRST + next(_numbers) % (_LAST - _FIRST)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
