"""The endpoints of Envoy's clusters, in the form of its files. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

CLUSTER: Final = "antiphon"
"""The cluster of the workers, as named in `clusters.yaml`."""


def assignment(cluster: str, addresses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the load assignment of a cluster, with an endpoint for each address."""
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": one}} for one in addresses]}]}


def host_address(host: str, port: int) -> dict[str, Any]:
    """Return Envoy's address of a host and port. The host may be a name if the cluster uses DNS."""
    return {"socket_address": {"address": host, "port_value": port}}


def socket_path(path: str) -> dict[str, Any]:
    """Return Envoy's address of a Unix socket, whose path is relative to Envoy's working directory."""
    return {"pipe": {"path": f"./{path}"}}


def endpoints_text(sockets: Sequence[str]) -> str:
    """Return the text of an `endpoints.yaml` with one endpoint for each Unix socket. It is JSON, which is also YAML."""
    found = assignment(CLUSTER, [socket_path(path) for path in sockets])
    return json.dumps({"resources": [{"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", **found}]})
