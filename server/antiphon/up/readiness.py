"""The readiness of the edge: what its Envoy says of itself and of the workers, on its admin socket.

Knows the folder that `antiphon.edge.files` filled, not what is in its files.
"""

from __future__ import annotations

import json
from pathlib import Path

from antiphon.edge.endpoints import CLUSTER
from antiphon.up.admin import ADMIN_SOCKET, ask


def worker_socket(number: int | str) -> str:
    """The name of a worker's unix socket, in Envoy's working directory."""
    return f"worker-{number}.sock"


def successor_socket(name: str, generation: int) -> str:
    """The name of the socket of the worker that takes the place of the one at `name`; each reload begins a new generation."""
    return f"{name.removesuffix('.sock')}-{generation}.sock"


def _number(name: str) -> int:
    """The number of the worker at a socket; a server that has none is the only one."""
    first, *others = name.removesuffix(".sock").split("-")
    return int(others[0]) if first == "worker" else 0


def missing(folder: Path, workers: int) -> list[str]:
    """What keeps the edge in `folder` from serving, in words: nothing if it listens, and all workers pass its health checks.

    A listener that Envoy rejects leaves it running, and "ready", with no listener: so it is asked for by itself.
    """
    admin = folder / ADMIN_SOCKET
    try:
        ask(admin, "/ready")
        listeners = json.loads(ask(admin, "/listeners?format=json"))
        healthy = sockets(folder)
    except (OSError, ValueError):
        return ["Envoy"]
    if not listeners.get("listener_statuses"):
        return ["Envoy"]
    numbers = {_number(name) for name, is_healthy in healthy.items() if is_healthy}
    return [f"worker {number}" for number in range(workers) if number not in numbers]


def sockets(folder: Path) -> dict[str, bool]:
    """The workers' sockets that Envoy has, by name, and whether each passes the health checks. Raises `OSError`, `ValueError`."""
    clusters = json.loads(ask(folder / ADMIN_SOCKET, "/clusters?format=json"))
    return {
        host["address"]["pipe"]["path"].removeprefix("./"): host["health_status"] == {"eds_health_status": "HEALTHY"}
        for cluster in clusters.get("cluster_statuses", [])
        if cluster["name"] == CLUSTER
        for host in cluster.get("host_statuses", [])  # healthy: no other flag, such as of a failed check
        if "pipe" in host["address"]
    }
