"""A first check of tokens at the edge: the parts of Envoy's files that depend on `rest.jwt_authn`.

Envoy's `jwt_authn` checks a token's signature, issuer and time, and refuses a bad one. The server checks every token again, and the
rest: audiences, algorithms, claims, and credentials that are not tokens. What does not look like a token, such as an API key,
passes Envoy unchecked.

So does a token whose key Envoy has not read, as all new tokens do after an issuer changed its keys: Envoy reads keys only at set
intervals, the server at once. `jwt_authn` alone would refuse them. So it lets all pass and stores each issuer's reason in the
metadata; the filter behind it refuses by those reasons. Starts nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from antiphon.config import IssuerConfig
from antiphon.edge.endpoints import assignment, host_address

LOOKS_LIKE_A_TOKEN: Final = r"Bearer eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # noqa: S105  # a pattern
"""A pattern of the whole `authorization` header of a JWT: `eyJ` is the start of its JSON header in base64."""

_AUTHORITIES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""The files in which systems keep their trusted certificate authorities."""

_LUA: Final = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_FILTER: Final = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def token_filters(issuers: Sequence[IssuerConfig]) -> list[dict[str, Any]]:
    """Return the HTTP filters, in order. Each of `issuers` must have a `jwks_url`."""
    providers = {
        issuer.name: {
            "issuer": issuer.issuer,
            "clock_skew_seconds": issuer.leeway,
            "forward": True,
            "failed_status_in_metadata": issuer.name,
            "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
            "remote_jwks": {
                "http_uri": {"uri": issuer.jwks_url, "cluster": _cluster(issuer), "timeout": f"{issuer.timeout}s"},
                "cache_duration": f"{issuer.keys_ttl}s",
                # Keys are read before the first call and refreshed in the background, so that no call waits for them.
                "async_fetch": {"failed_refetch_duration": f"{issuer.keys_cooldown}s"},
            },
        }
        for issuer in issuers
    }
    requirements: list[dict[str, Any]] = [{"provider_name": name} for name in providers]
    requirements.append({"allow_missing_or_failed": {}})
    header = {"name": "authorization", "string_match": {"safe_regex": {"regex": LOOKS_LIKE_A_TOKEN}}}
    rule = {
        "match": {"prefix": "/", "headers": [header]},
        "requires": {"requires_any": {"requirements": requirements}},
    }
    script = (files("antiphon.edge") / "bad_tokens.lua").read_text(encoding="utf-8")
    refuse = script.replace("--[[issuers]]", ", ".join(f'"{name}"' for name in providers))
    return [
        {
            "name": "envoy.filters.http.jwt_authn",
            # The reason is stripped: it quotes the path, which may contain a key.
            "typed_config": {"@type": _FILTER, "providers": providers, "rules": [rule], "strip_failure_response": True},
        },
        {
            "name": "antiphon.bad_tokens",
            "typed_config": {"@type": _LUA, "default_source_code": {"inline_string": refuse}},
        },
    ]


def key_cluster(issuer: IssuerConfig) -> dict[str, Any]:
    """Return the cluster for the host of an issuer's keys. Raises `OSError` if it needs TLS and this system trusts no authority."""
    url = urlsplit(str(issuer.jwks_url))
    secure = url.scheme == "https"
    host = url.hostname or ""
    address = host_address(host, url.port or (443 if secure else 80))
    cluster: dict[str, Any] = {
        "@type": _CLUSTER,
        "name": _cluster(issuer),
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "ALL",
        "connect_timeout": f"{issuer.timeout}s",
        "load_assignment": assignment(_cluster(issuer), [address]),
    }
    if secure:
        names = [{"san_type": kind, "matcher": {"exact": host}} for kind in ("DNS", "IP_ADDRESS")]
        context = {"trusted_ca": {"filename": trusted_authorities()}, "match_typed_subject_alt_names": names}
        typed = {"@type": _TLS, "sni": host, "common_tls_context": {"validation_context": context}}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": typed}
    return cluster


def trusted_authorities() -> str:
    """Return the file of trusted authorities: of `SSL_CERT_FILE`, or of this system. Raises `OSError` if there is none."""
    for path in (ssl.get_default_verify_paths().cafile, *_AUTHORITIES):
        if path and Path(path).is_file():
            return str(Path(path).absolute())
    raise OSError("rest.jwt_authn: no file with trusted authorities is found; SSL_CERT_FILE may name one")


def _cluster(issuer: IssuerConfig) -> str:
    return f"keys-{issuer.name}"
