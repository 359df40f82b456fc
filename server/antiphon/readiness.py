"""The readiness of the edge: what its Envoy says of itself and of the workers, on its admin socket.

Of the standard library alone, as the supervisor is. Knows the folder that `antiphon.edge` filled, not what is in its files.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any

ADMIN_SOCKET = "admin.sock"
"""Envoy's admin interface, in its working directory; `bootstrap.yaml` names it."""

ADMIN_TIMEOUT = 2.0
"""Seconds that the admin interface has to answer."""

CLUSTER = "antiphon"
"""The cluster of the workers; `clusters.yaml` names it."""


def worker_socket(number: int) -> str:
    """The name of a worker's unix socket, in Envoy's working directory."""
    return f"worker-{number}.sock"


async def missing(folder: Path, workers: int) -> list[str]:
    """What keeps the edge in `folder` from serving, in words: nothing if it listens, and all workers pass its health checks.

    A listener that Envoy rejects leaves it running, and "ready", with no listener: so it is asked for by itself.
    """
    try:
        listeners, clusters = await asyncio.to_thread(_ask_admin, folder / ADMIN_SOCKET)
    except (http.client.HTTPException, OSError, ValueError):
        return ["Envoy"]
    if not listeners.get("listener_statuses"):
        return ["Envoy"]
    healthy = _healthy(clusters)
    return [f"worker {number}" for number in range(workers) if f"./{worker_socket(number)}" not in healthy]


class _Admin(http.client.HTTPConnection):
    """A connection to the admin interface, at a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=ADMIN_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def get(self, path: str) -> bytes:
        self.request("GET", path)
        response = self.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(path)
        return body


def _ask_admin(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The listeners and the clusters of an Envoy that is ready."""
    admin = _Admin(path)
    try:
        admin.get("/ready")
        return json.loads(admin.get("/listeners?format=json")), json.loads(admin.get("/clusters?format=json"))
    finally:
        admin.close()


def _healthy(clusters: dict[str, Any]) -> set[str]:
    """The sockets of the workers that pass the health checks."""
    return {
        host["address"]["pipe"]["path"]
        for cluster in clusters.get("cluster_statuses", [])
        if cluster["name"] == CLUSTER
        for host in cluster.get("host_statuses", [])
        if host["health_status"] == {"eds_health_status": "HEALTHY"}  # no other flag, such as of a failed check
    }
