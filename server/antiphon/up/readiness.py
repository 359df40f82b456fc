"""The readiness of the edge: what its Envoy reports of itself and of the workers, on its admin socket.

Uses the folder that `antiphon.edge.files` filled, but does not read the files in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from antiphon.edge.endpoints import CLUSTER
from antiphon.up.admin import ADMIN_SOCKET, ask


def worker_socket(number: int | str) -> str:
    """Return the name of a worker's unix socket, in Envoy's working directory."""
    return f"worker-{number}.sock"


def successor_socket(name: str, generation: int) -> str:
    """Return the name of the socket of the worker that replaces the one at `name`; each reload is a new generation."""
    return f"{name.removesuffix('.sock')}-{generation}.sock"


def _number(name: str) -> int:
    """Return the number of the worker at a socket; 0 for a single server, whose socket has no number."""
    first, *others = name.removesuffix(".sock").split("-")
    return int(others[0]) if first == "worker" else 0


def missing(folder: Path, workers: int) -> list[str]:
    """Return the parts of the edge in `folder` that are not ready, in words; empty if Envoy listens and all workers are healthy.

    An Envoy that rejects its listener keeps running, and reports "ready" without a listener: so the listeners are checked too.
    """
    admin = folder / ADMIN_SOCKET
    try:
        ask(admin, "/ready")
        listeners = json.loads(ask(admin, "/listeners?format=json"))
        healthy = worker_health(folder)
    except (OSError, ValueError):
        return ["Envoy"]
    if not listeners.get("listener_statuses"):
        return ["Envoy"]
    numbers = {_number(name) for name, is_healthy in healthy.items() if is_healthy}
    return [f"worker {number}" for number in range(workers) if number not in numbers]


def worker_health(folder: Path) -> dict[str, bool]:
    """Return the workers' sockets that Envoy knows, by name, and whether each passes the health checks.

    Raises `OSError`, `ValueError`.
    """
    clusters = json.loads(ask(folder / ADMIN_SOCKET, "/clusters?format=json"))
    return {
        host["address"]["pipe"]["path"].removeprefix("./"): host["health_status"] == {"eds_health_status": "HEALTHY"}
        for cluster in clusters.get("cluster_statuses", [])
        if cluster["name"] == CLUSTER
        for host in cluster.get("host_statuses", [])  # healthy: no other flag, such as for a failed health check
        if "pipe" in host["address"]
    }
