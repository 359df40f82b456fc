"""Tests of the TLS settings in Envoy's files. Envoy validates each form of them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from antiphon.config import RestConfig
from antiphon.edge import files as edge
from tests.certificates import Authority


def prepared(folder: Path, sockets: list[str], **rest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the listener and the cluster that are generated for this configuration, after Envoy has validated them."""
    edge.prepare(folder, RestConfig(**rest), sockets)
    documents = {kind: yaml.safe_load((folder / f"{kind}.yaml").read_text())["resources"] for kind in ("listeners", "clusters")}
    bootstrap = yaml.safe_load((folder / "bootstrap.yaml").read_text())
    del bootstrap["dynamic_resources"]
    bootstrap["static_resources"] = {
        kind: [{name: value for name, value in entry.items() if name != "@type"} for entry in entries]
        for kind, entries in documents.items()
    }
    (folder / "bootstrap.yaml").write_text(yaml.safe_dump(bootstrap))
    done = subprocess.run([*edge.command(1), "--mode", "validate"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return documents["listeners"][0], documents["clusters"][0]


def secret(folder: Path, name: str) -> dict[str, Any]:
    (found,) = yaml.safe_load((folder / f"secret_{name}.yaml").read_text())["resources"]
    assert found["name"] == name
    return dict(found)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = Authority()
    certificate, key = authority.issue("gateway.test").write(tmp_path, "tls")
    return {"certificate": certificate, "key": key, "client_ca": authority.write(tmp_path / "ca.crt")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "envoy"
    made.mkdir()
    return made


def test_without_tls_there_is_none(folder: Path) -> None:
    """Without TLS settings neither the listener nor the cluster has TLS, and there are no secret files."""
    listener, cluster = prepared(folder, ["worker-0.sock"])
    assert "transport_socket" not in listener["filter_chains"][0]
    assert "transport_socket" not in cluster
    assert not list(folder.glob("secret_*"))


@pytest.mark.parametrize("mutual", [True, False])
def test_the_listener(folder: Path, files: dict[str, Path], mutual: bool) -> None:
    """The listener asks callers for a certificate only if a client authority is configured, and passes nothing of it on."""
    tls = {**files, "client_ca": files["client_ca"] if mutual else None}
    listener, cluster = prepared(folder, ["worker-0.sock"], tls=tls)
    (chain,) = listener["filter_chains"]
    context = chain["transport_socket"]["typed_config"]
    assert context.get("require_client_certificate", False) is mutual
    assert ("validation_context_sds_secret_config" in context["common_tls_context"]) is mutual
    assert context["common_tls_context"]["alpn_protocols"] == ["h2", "http/1.1"]
    assert context["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_2"
    assert chain["filters"][0]["typed_config"]["forward_client_cert_details"] == "SANITIZE"
    assert "transport_socket" not in cluster
    assert secret(folder, "edge")["tls_certificate"]["certificate_chain"] == {"filename": str(files["certificate"])}
    assert (folder / "secret_callers.yaml").exists() is mutual


def test_no_key_is_copied(folder: Path, files: dict[str, Path]) -> None:
    """Envoy's files have the path of the private key, and never the key."""
    prepared(folder, ["worker-0.sock"], tls=files)
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in folder.iterdir())


def test_a_link_stays_a_link(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> None:
    """Paths become absolute, but symbolic links are not resolved, because their targets change when a certificate is renewed."""
    (tmp_path / "..data").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    prepared(folder, ["worker-0.sock"], tls={"certificate": "..data/tls.crt", "key": "..data/tls.key"})
    found = secret(folder, "edge")["tls_certificate"]
    assert found["private_key"] == {"filename": f"{tmp_path}/..data/tls.key"}
    assert found["watched_directory"] == {"path": f"{tmp_path}/..data"}


def test_files_of_two_folders_are_watched_by_themselves(folder: Path, tmp_path: Path, files: dict[str, Path]) -> None:
    """If certificate and key are in two folders, no watched directory is set, because Envoy can watch only one.

    It then watches each file.
    """
    (tmp_path / "private").mkdir()
    key = files["key"].rename(tmp_path / "private" / "tls.key")
    prepared(folder, ["worker-0.sock"], tls={"certificate": files["certificate"], "key": key})
    assert "watched_directory" not in secret(folder, "edge")["tls_certificate"]


@pytest.mark.parametrize("mutual", [True, False])
def test_a_server_elsewhere(folder: Path, files: dict[str, Path], mutual: bool) -> None:
    """A server on another machine must have the configured name in its certificate.

    Envoy shows a client certificate if one is configured.
    """
    tls = {"ca": files["client_ca"], "server_name": "server.test"}
    if mutual:
        tls |= {"certificate": files["certificate"], "key": files["key"]}
    _, cluster = prepared(folder, [], upstream={"address": "server.test:50051", "tls": tls})
    assert cluster["type"] == "STRICT_DNS"
    context = cluster["transport_socket"]["typed_config"]
    assert context["sni"] == "server.test"
    common = context["common_tls_context"]
    names = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    assert names == [{"san_type": "DNS", "matcher": {"exact": "server.test"}}]
    assert ("tls_certificate_sds_secret_configs" in common) is mutual
    assert (folder / "secret_client.yaml").exists() is mutual
    assert secret(folder, "server")["validation_context"]["trusted_ca"] == {"filename": str(files["client_ca"])}


def test_a_server_elsewhere_without_tls(folder: Path) -> None:
    """A server on another machine may be reached without TLS, such as behind a mesh."""
    _, cluster = prepared(folder, [], upstream={"address": "10.0.0.1:50051"})
    assert "transport_socket" not in cluster
    (group,) = cluster["load_assignment"]["endpoints"]
    (entry,) = group["lb_endpoints"]
    assert entry["endpoint"]["address"]["socket_address"] == {"address": "10.0.0.1", "port_value": 50051}
