"""The drain of an Envoy before it is stopped: it says that it is not ready, and asks its callers to connect elsewhere.

For an Envoy that no supervisor stops, such as that of a pod. It is asked at its admin interface, and serves all the time.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Final

from antiphon.up.readiness import ADMIN_SOCKET

INTERVAL: Final = 0.25
"""Seconds between two looks at whether calls go on."""

TIMEOUT: Final = 5.0
"""Seconds that the admin interface has to answer."""

_ACTIVE: Final = "http.edge.downstream_rq_active"


def drain(folder: Path, delay: float, wait: float) -> None:
    """Begin the drain of the Envoy that runs in `folder`, and return `delay` seconds later.

    From its beginning on, health at the edge fails, and each response has `connection: close`, or is followed by GOAWAY. After the
    delay, up to `wait` seconds more are spent until no call goes on. Raises `OSError` if the Envoy is not there.
    """
    path = folder / ADMIN_SOCKET
    try:
        _ask(path, "POST", "/healthcheck/fail")
        time.sleep(delay)
        end = time.monotonic() + wait
        while time.monotonic() < end and _active(path):
            time.sleep(INTERVAL)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{path}: Envoy's admin interface does not answer: {error}") from error


def _active(path: Path) -> int:
    """How many calls go on."""
    stats = json.loads(_ask(path, "GET", f"/stats?format=json&filter=^{_ACTIVE}$"))["stats"]
    return sum(int(stat["value"]) for stat in stats if stat.get("name") == _ACTIVE)


def _ask(path: Path, method: str, target: str) -> bytes:
    """What the admin interface at a unix socket answers. Raises `OSError`, `HTTPException`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        asking = http.client.HTTPConnection("admin")
        asking.sock = connection
        asking.request(method, target)
        answer = asking.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{answer.status} to {target}")
        return answer.read()
