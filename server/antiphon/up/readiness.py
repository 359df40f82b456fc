"""The readiness of the edge: what its Envoy says of itself and of the workers, on its admin socket.

Knows the folder that `antiphon.edge.files` filled, not what is in its files.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from antiphon.edge.endpoints import CLUSTER

ADMIN_SOCKET = "admin.sock"
"""Envoy's admin interface, in its working directory; `bootstrap.yaml` names it."""

ADMIN_TIMEOUT = 1.0
"""Seconds that the admin interface has to answer."""


def worker_socket(number: int | str) -> str:
    """The name of a worker's unix socket, in Envoy's working directory."""
    return f"worker-{number}.sock"


def missing(folder: Path, workers: int) -> list[str]:
    """What keeps the edge in `folder` from serving, in words: nothing if it listens, and all workers pass its health checks.

    A listener that Envoy rejects leaves it running, and "ready", with no listener: so it is asked for by itself.
    """
    try:
        listeners, clusters = _ask_admin(folder / ADMIN_SOCKET)
    except (OSError, ValueError):
        return ["Envoy"]
    if not listeners.get("listener_statuses"):
        return ["Envoy"]
    healthy = _healthy(clusters)
    return [f"worker {number}" for number in range(workers) if f"./{worker_socket(number)}" not in healthy]


def _ask_admin(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The listeners and the clusters of an Envoy that is ready. Raises `OSError`, `ValueError`."""
    _get(path, "/ready")
    return json.loads(_get(path, "/listeners?format=json")), json.loads(_get(path, "/clusters?format=json"))


def _get(path: Path, target: str) -> bytes:
    """What the admin interface at a unix socket answers. `http.client` would bring OpenSSL with it, which takes 6 MB."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ADMIN_TIMEOUT)
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
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


def _healthy(clusters: dict[str, Any]) -> set[str]:
    """The sockets of the workers that pass the health checks."""
    return {
        host["address"]["pipe"]["path"]
        for cluster in clusters.get("cluster_statuses", [])
        if cluster["name"] == CLUSTER
        for host in cluster.get("host_statuses", [])
        if host["health_status"] == {"eds_health_status": "HEALTHY"}  # no other flag, such as of a failed check
    }
