"""TLS at the edge: the parts of Envoy's files that depend on `rest.tls` and `rest.upstream`.

Envoy reads certificates and keys itself, and again when they change; its files only name their paths, so no key is ever copied.
Starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from antiphon.config import TlsConfig, UpstreamTlsConfig

LISTENER: Final = "listener_tls.yaml"
"""The gateway's file with the TLS settings of the listener."""

UPSTREAM: Final = "cluster_tls.yaml"
"""The gateway's file with the TLS settings of the cluster."""

_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a name of Envoy's


def listener_socket(text: str, config: TlsConfig) -> dict[str, Any]:
    """Return the listener's transport socket, from the text of `LISTENER`."""
    socket: dict[str, Any] = yaml.safe_load(text)
    if config.client_ca is None:
        del socket["typed_config"]["require_client_certificate"]
        del socket["typed_config"]["common_tls_context"]["validation_context_sds_secret_config"]
    return socket


def listener_secrets(config: TlsConfig) -> dict[str, str]:
    """Return the files, as texts by name, with the paths of the listener's certificate and of its callers' authority."""
    secrets = {"edge": _pair(config.certificate, config.key)}
    if config.client_ca is not None:
        secrets["callers"] = _authority(config.client_ca)
    return _files(secrets)


def upstream_socket(text: str, config: UpstreamTlsConfig) -> dict[str, Any]:
    """Return the cluster's transport socket, from the text of `UPSTREAM`."""
    socket: dict[str, Any] = yaml.safe_load(text)
    socket["typed_config"]["sni"] = config.server_name
    common = socket["typed_config"]["common_tls_context"]
    (name,) = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    name["matcher"] = {"exact": config.server_name}
    if config.certificate is None:
        del common["tls_certificate_sds_secret_configs"]
    return socket


def upstream_secrets(config: UpstreamTlsConfig) -> dict[str, str]:
    """Return the files, as texts by name, with the paths of the server's authority and of our client certificate."""
    secrets = {"server": _authority(config.ca)}
    if config.certificate is not None and config.key is not None:
        secrets["client"] = _pair(config.certificate, config.key)
    return _files(secrets)


def _files(secrets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    # One file for each: Envoy reads only one secret from a file.
    return {
        f"secret_{name}.yaml": yaml.safe_dump({"resources": [{"@type": _SECRET, "name": name, **secret}]}, sort_keys=False)
        for name, secret in secrets.items()
    }


def _pair(certificate: Path, key: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"certificate_chain": {"filename": _path(certificate)}, "private_key": {"filename": _path(key)}}
    if certificate.absolute().parent == key.absolute().parent:
        # Notices also a replacement of the whole folder, as of a secret in Kubernetes, and reads both files together.
        found["watched_directory"] = {"path": _path(certificate.absolute().parent)}
    return {"tls_certificate": found}


def _authority(ca: Path) -> dict[str, Any]:
    watched = {"path": _path(ca.absolute().parent)}
    return {"validation_context": {"trusted_ca": {"filename": _path(ca)}, "watched_directory": watched}}


def _path(path: Path) -> str:
    """Return an absolute path, as Envoy runs in another folder. Symbolic links are kept: renewal may redirect them."""
    return str(path.absolute())
