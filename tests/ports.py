"""Ports for test servers that must be given a port before they start."""

import random
import socket
from itertools import count

# Below the ports that the system gives to connections (from 32768 on Linux), so that none takes a port before its server does. Each
# process starts at a random port, so that two test runs at the same time hardly collide.
_FIRST, _LAST = 10_000, 32_000
_numbers = count(random.randrange(_LAST - _FIRST))


def free_port() -> int:
    """Return a free port of 127.0.0.1. A process gets each port only once."""
    while True:
        port = _FIRST + next(_numbers) % (_LAST - _FIRST)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
