"""The readiness of the edge: what its Envoy says of itself and of the workers, on its admin socket.

Knows the folder that `antiphon.edge.files` filled, not what is in its files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from antiphon.edge.endpoints import CLUSTER
from antiphon.up.admin import ADMIN_SOCKET, ask


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
    ask(path, "/ready")
    return json.loads(ask(path, "/listeners?format=json")), json.loads(ask(path, "/clusters?format=json"))


def _healthy(clusters: dict[str, Any]) -> set[str]:
    """The sockets of the workers that pass the health checks."""
    return {
        host["address"]["pipe"]["path"]
        for cluster in clusters.get("cluster_statuses", [])
        if cluster["name"] == CLUSTER
        for host in cluster.get("host_statuses", [])
        if host["health_status"] == {"eds_health_status": "HEALTHY"}  # no other flag, such as of a failed check
    }
