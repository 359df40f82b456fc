"""Where a cluster of Envoy's has its endpoints, as its files say it. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

CLUSTER: Final = "antiphon"
"""The cluster of the workers; `clusters.yaml` names it."""


def assignment(cluster: str, addresses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The load assignment of a cluster, with an endpoint for each of Envoy's addresses."""
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": one}} for one in addresses]}]}


def of_host(host: str, port: int) -> dict[str, Any]:
    """The address of a port of a host, which may be a name where the cluster asks the DNS."""
    return {"socket_address": {"address": host, "port_value": port}}


def of_socket(path: str) -> dict[str, Any]:
    """The address of a unix socket, relative to the folder that Envoy runs in."""
    return {"pipe": {"path": f"./{path}"}}


def of_workers(sockets: Sequence[str]) -> str:
    """The text of an `endpoints.yaml` that has one endpoint for each unix socket. JSON is YAML, too."""
    found = assignment(CLUSTER, [of_socket(path) for path in sockets])
    return json.dumps({"resources": [{"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", **found}]})
