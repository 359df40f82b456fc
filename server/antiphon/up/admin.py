"""Envoy's admin interface, on the unix socket in the folder that it runs in: how it is asked, and told that a stop is near.

`python -m antiphon.up.admin FOLDER` tells it so where no supervisor does, as in the `preStop` hook of a container. Of the standard
library alone; `http.client` would bring OpenSSL with it, which takes 6 MB.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

ADMIN_SOCKET = "admin.sock"
"""Envoy's admin interface, in its working directory; `bootstrap.yaml` names it."""

TIMEOUT = 1.0
"""Seconds that the admin interface has to answer."""

DRAINING_FILE = "drain.pressure"
"""Holds 1 from the beginning of a stop, before that 0; `bootstrap.yaml` names it."""


def ask(path: Path, target: str, method: str = "GET") -> bytes:
    """Return what the admin interface at a unix socket answers. Raises `OSError`, and `ValueError` for any status but 200."""
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


def answers(folder: Path) -> bool:
    """Return whether the Envoy in `folder` says anything, be it that it is not ready."""
    try:
        ask(folder / ADMIN_SOCKET, "/ready")
    except ValueError:
        return True
    except OSError:
        return False
    return True


def turn_unready(folder: Path) -> None:
    """Have the Envoy in `folder` say that it is not ready, and its callers leave; it still serves them.

    Each response then ends its connection (`connection: close`, GOAWAY), and connections without a call are closed after a second.
    Does nothing to an Envoy that does not answer.
    """
    with contextlib.suppress(OSError, ValueError):
        _write_pressure(folder, 1)
        ask(folder / ADMIN_SOCKET, "/healthcheck/fail", "POST")


def turn_ready(folder: Path) -> None:
    """Take back `turn_unready`, for an Envoy that was not stopped after all. Does nothing to an Envoy that does not answer."""
    with contextlib.suppress(OSError, ValueError):
        _write_pressure(folder, 0)
        ask(folder / ADMIN_SOCKET, "/healthcheck/ok", "POST")


def _write_pressure(folder: Path, value: int) -> None:
    new = folder / f"new-{DRAINING_FILE}"
    new.write_text(f"{value}\n", encoding="ascii")
    new.rename(folder / DRAINING_FILE)  # Envoy looks for renames alone


if __name__ == "__main__":
    turn_unready(Path(sys.argv[1]))
