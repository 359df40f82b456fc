"""Calls Envoy's admin interface, a unix socket in the folder that Envoy runs in, and tells Envoy that a stop is near.

`python -m antiphon.up.admin FOLDER` turns Envoy unready if no supervisor does it, as in the `preStop` hook of a container. Uses the
standard library only; `http.client` would load OpenSSL, which takes 6 MB.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

ADMIN_SOCKET = "admin.sock"
"""The admin interface's socket in Envoy's working directory; `bootstrap.yaml` names it."""

TIMEOUT = 1.0
"""Seconds that each read or write on the admin interface may take."""

DRAINING_FILE = "drain.pressure"
"""A file that holds 1 once a stop has begun, and 0 before; `bootstrap.yaml` names it."""


def ask(path: Path, target: str, method: str = "GET") -> bytes:
    """Send a request to the admin interface at a unix socket; return the body of the response.

    Raises `OSError` if it cannot be reached, and `ValueError` for any status but 200.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        connection.sendall(f"{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
        answer = connection.makefile("rb")
        if answer.readline().split()[1:2] != [b"200"]:
            raise ValueError(target)
        headers = list(iter(lambda: answer.readline().strip().lower(), b""))
        if b"transfer-encoding: chunked" not in headers:
            return answer.read()
        body = b""
        while size := int(answer.readline(), 16):
            body += answer.read(size)
            answer.readline()
        return body


def is_answering(folder: Path) -> bool:
    """Return True if the Envoy in `folder` answers at all, even if it is not ready."""
    try:
        ask(folder / ADMIN_SOCKET, "/ready")
    except ValueError:
        return True
    except OSError:
        return False
    return True


def turn_unready(folder: Path) -> None:
    """Make the Envoy in `folder` report that it is not ready, and end its connections; it still serves calls.

    Each response then ends its connection (`connection: close`, GOAWAY), and connections without a call are closed after a second.
    Does nothing if Envoy does not answer.
    """
    with contextlib.suppress(OSError, ValueError):
        _write_pressure(folder, 1)
        ask(folder / ADMIN_SOCKET, "/healthcheck/fail", "POST")


def turn_ready(folder: Path) -> None:
    """Undo `turn_unready`, for an Envoy that was not stopped after all. Does nothing if Envoy does not answer."""
    with contextlib.suppress(OSError, ValueError):
        _write_pressure(folder, 0)
        ask(folder / ADMIN_SOCKET, "/healthcheck/ok", "POST")


def _write_pressure(folder: Path, value: int) -> None:
    new = folder / f"new-{DRAINING_FILE}"
    new.write_text(f"{value}\n", encoding="ascii")
    new.rename(folder / DRAINING_FILE)  # Envoy notices only renames


if __name__ == "__main__":
    turn_unready(Path(sys.argv[1]))
