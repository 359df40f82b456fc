"""TLS at the edge: what of Envoy's files depends on `rest.tls` and `rest.upstream`.

Envoy reads certificates and keys itself, and again when they change: its files only say where they are. So no key is ever copied.
Starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from antiphon.config import TlsConfig, UpstreamTlsConfig

LISTENER: Final = "listener_tls.yaml"
"""The gateway's file with the listener's part."""

UPSTREAM: Final = "cluster_tls.yaml"
"""The same of the cluster."""

_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a name of Envoy's


def listener_socket(text: str, config: TlsConfig) -> dict[str, Any]:
    """The listener's transport socket, of the text of `LISTENER`."""
    socket: dict[str, Any] = yaml.safe_load(text)
    if config.client_ca is None:
        del socket["typed_config"]["require_client_certificate"]
        del socket["typed_config"]["common_tls_context"]["validation_context_sds_secret_config"]
    return socket


def listener_secrets(config: TlsConfig) -> dict[str, str]:
    """The files that tell where the listener's certificate is, and the authority of its callers: texts by name."""
    secrets = {"edge": _pair(config.certificate, config.key)}
    if config.client_ca is not None:
        secrets["callers"] = _authority(config.client_ca)
    return _files(secrets)


def upstream_socket(text: str, config: UpstreamTlsConfig) -> dict[str, Any]:
    """The cluster's transport socket, of the text of `UPSTREAM`."""
    socket: dict[str, Any] = yaml.safe_load(text)
    socket["typed_config"]["sni"] = config.server_name
    common = socket["typed_config"]["common_tls_context"]
    (name,) = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    name["matcher"] = {"exact": config.server_name}
    if config.certificate is None:
        del common["tls_certificate_sds_secret_configs"]
    return socket


def upstream_secrets(config: UpstreamTlsConfig) -> dict[str, str]:
    """The files that tell where the server's authority is, and what it is shown: texts by name."""
    secrets = {"server": _authority(config.ca)}
    if config.certificate is not None and config.key is not None:
        secrets["client"] = _pair(config.certificate, config.key)
    return _files(secrets)


def _files(secrets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    # A file each: Envoy takes no more than one secret from one.
    return {
        f"secret_{name}.yaml": yaml.safe_dump({"resources": [{"@type": _SECRET, "name": name, **secret}]}, sort_keys=False)
        for name, secret in secrets.items()
    }


def _pair(certificate: Path, key: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"certificate_chain": {"filename": _path(certificate)}, "private_key": {"filename": _path(key)}}
    if certificate.absolute().parent == key.absolute().parent:
        # Also where the folder's content is replaced as a whole, as that of a secret in Kubernetes; and both are read as one.
        found["watched_directory"] = {"path": _path(certificate.absolute().parent)}
    return {"tls_certificate": found}


def _authority(ca: Path) -> dict[str, Any]:
    watched = {"path": _path(ca.absolute().parent)}
    return {"validation_context": {"trusted_ca": {"filename": _path(ca)}, "watched_directory": watched}}


def _path(path: Path) -> str:
    """As Envoy, which runs in a folder of its own, finds it. Symbolic links stay: they are what comes to point elsewhere."""
    return str(path.absolute())
