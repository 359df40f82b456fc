"""Tests of the token settings in Envoy's files."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from antiphon.config import Config, ConfigError, IssuerConfig
from antiphon.config.file import load
from antiphon.edge import tokens as edge_tokens
from tests.unit.auth import signer


def issuer(**more: Any) -> IssuerConfig:
    return IssuerConfig(
        **{"name": "corp", "issuer": "https://id.test", "audience": "a", "jwks_url": "https://id.test/keys", **more}
    )


@pytest.mark.parametrize(
    ("header", "looks"),
    [
        (f"Bearer {signer.sign(signer.claims(), 'oct-1', 'HS256')}", True),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", True),
        ("Bearer sk-abc", False),
        ("Bearer a.b.c", False),
        ("Bearer eyJ", False),
        ("Basic eyJhbGciOiJub25lIn0.e30.", False),
        ("bearer eyJhbGciOiJub25lIn0.e30.", False),
    ],
)
def test_what_looks_like_a_token(header: str, looks: bool) -> None:
    """Only a bearer JWT is checked by Envoy; a key with dots and any other spelling is left to the server."""
    assert bool(re.fullmatch(edge_tokens.LOOKS_LIKE_A_TOKEN, header)) is looks


def test_any_of_the_issuers_will_do() -> None:
    """A token must be signed by one of the issuers. Envoy does not check its audience; the server does."""
    filters = edge_tokens.token_filters([issuer(), issuer(name="other", issuer="https://other.test")])
    config, refuse = (entry["typed_config"] for entry in filters)
    (rule,) = config["rules"]
    *names, last = rule["requires"]["requires_any"]["requirements"]
    assert [entry["provider_name"] for entry in names] == list(config["providers"]) == ["corp", "other"]
    assert last == {"allow_missing_or_failed": {}}
    assert [provider["failed_status_in_metadata"] for provider in config["providers"].values()] == ["corp", "other"]
    assert 'ISSUERS = {"corp", "other"}' in refuse["default_source_code"]["inline_string"]
    assert not any("audiences" in provider for provider in config["providers"].values())
    assert config["strip_failure_response"]


@pytest.mark.parametrize(
    ("url", "host", "port", "secure"),
    [
        ("https://id.test/keys", "id.test", 443, True),
        ("https://id.test:8443/keys", "id.test", 8443, True),
        ("http://127.0.0.1:8000/keys", "127.0.0.1", 8000, False),
        ("http://[::1]/keys", "::1", 80, False),
    ],
)
def test_the_host_of_the_keys(
    url: str, host: str, port: int, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster of an issuer's keys has the host and port of its URL.

    With TLS the certificate must have that name and a trusted authority.
    """
    trusted = tmp_path / "ca.crt"
    trusted.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    cluster = edge_tokens.key_cluster(issuer(jwks_url=url))
    (group,) = cluster["load_assignment"]["endpoints"]
    (entry,) = group["lb_endpoints"]
    assert entry["endpoint"]["address"]["socket_address"] == {"address": host, "port_value": port}
    assert ("transport_socket" in cluster) is secure
    if secure:
        context = cluster["transport_socket"]["typed_config"]
        validation = context["common_tls_context"]["validation_context"]
        assert (context["sni"], validation["trusted_ca"]) == (host, {"filename": str(trusted)})
        assert {name["matcher"]["exact"] for name in validation["match_typed_subject_alt_names"]} == {host}


def test_a_system_without_authorities_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system without a file of certificate authorities raises an error that names SSL_CERT_FILE."""
    monkeypatch.setattr(edge_tokens, "_AUTHORITIES", ())
    paths = ssl.get_default_verify_paths()._replace(cafile=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    with pytest.raises(OSError, match="SSL_CERT_FILE"):
        edge_tokens.key_cluster(issuer())


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ((), "there are no issuers"),
        ((issuer(jwks_url=None),), "only from a jwks_url, and corp in auth.tokens has none"),
        ((issuer(jwks_url=None, secret_env="S"),), "only from a jwks_url"),  # noqa: S106  # the name of a variable
    ],
)
def test_issuers_that_envoy_cannot_check_are_refused(tokens: tuple[IssuerConfig, ...], words: str) -> None:
    """`jwt_authn` is refused without issuers, or with one that has no `jwks_url`, because Envoy would refuse its tokens."""
    raw = [token.model_dump(exclude_unset=True) for token in tokens]
    with pytest.raises(ValueError, match=words):
        Config(rest={"jwt_authn": True}, auth={"tokens": raw})
    assert Config(auth={"tokens": raw})


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    """A client key for the upstream without a certificate is a `ConfigError`."""
    path = tmp_path / "antiphon.yaml"
    path.write_text("rest: {upstream: {address: 'a:1', tls: {ca: ca.crt, server_name: a, key: tls.key}}}")
    with pytest.raises(ConfigError, match="rest.upstream.tls: .*needs both certificate and key"):
        load(path)
