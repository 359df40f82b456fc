"""Tests of the system's certificate authorities, and of those in a file that changes.

Connections with them are tested in `test_outbound.py`.
"""

import ssl
import sys
from pathlib import Path

import pytest
import structlog

from antiphon.config import ConfigError
from antiphon.net import authorities
from antiphon.net.authorities import Authorities
from tests.certificates import Authority, replace


@pytest.mark.parametrize(("data", "why"), [(None, "No such file"), (b"", "no certificate"), (b"hats", "no certificate")])
def test_a_file_without_authorities_is_refused(tmp_path: Path, data: bytes | None, why: str) -> None:
    """A file that is missing, empty or without certificates is a `ConfigError`; the system's authorities are not used instead."""
    path = tmp_path / "ca.pem"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"^providers.acme.ca: .*{why}"):
        Authorities("providers.acme.ca", path)


def test_a_bundle_may_have_comments_in_any_language(tmp_path: Path) -> None:
    """A bundle may have comments that are not ASCII."""
    path = tmp_path / "ca.pem"
    path.write_bytes("# Zertifizierungsstelle für alle\n".encode() + Authority().pem + Authority("B").pem)
    assert len(Authorities("ca", path).context().get_ca_certs()) == 2


def test_the_context_is_another_only_when_the_file_is(tmp_path: Path) -> None:
    """The context is rebuilt only if the file changes.

    A file that is broken or missing keeps the previous context and is logged once.
    """
    path = Authority().write(tmp_path / "ca.pem")
    found = Authorities("ca", path)
    first = found.context()
    with structlog.testing.capture_logs() as lines:
        assert found.context() is first
        replace(path, b"half a")
        assert found.context() is first
        assert found.context() is first
        path.unlink()
        assert found.context() is first
        Authority("Another").write(path)
        assert found.context() is not first
    assert [(line["event"], line.get("error")) for line in lines] == [
        ("authorities_not_read", "holds no certificate in PEM"),
        ("authorities_not_read", "No such file or directory"),
        ("authorities_read", None),
    ]


def trusted(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    """Return the names of the authorities that a new context trusts, with these variables."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = authorities.tls_context.__wrapped__()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    return [str(found["subject"][0][0][1]) for found in context.get_ca_certs()]


def test_the_environment_may_name_the_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in SSL_CERT_FILE replaces the system's authorities. One that is missing is an error and not a fall-back."""
    path = Authority("Mine").write(tmp_path / "ca.pem")
    assert trusted(monkeypatch, SSL_CERT_FILE=str(path)) == ["Mine"]
    with pytest.raises(FileNotFoundError):
        trusted(monkeypatch, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert trusted(monkeypatch, SSL_CERT_DIR=str(tmp_path)) == [], "a folder is searched when a host is verified"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their authorities in no file")
def test_the_authorities_of_the_system_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that was built for another system looks in the wrong place: then the files of other systems are tried."""
    path = Authority("The system's").write(tmp_path / "ca.pem")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(authorities, "_FILES", (str(tmp_path / "missing.pem"), str(path)))
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda _: None)
    usual = ssl.get_default_verify_paths()
    for capath in (None, str(tmp_path / "empty")):
        missing = usual._replace(cafile=None, capath=capath)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda missing=missing: missing)
        assert trusted(monkeypatch) == ["The system's"]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: usual._replace(cafile=str(path)))
    assert trusted(monkeypatch) == []
