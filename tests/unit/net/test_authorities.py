"""Tests of certificate authorities in a file that changes. Connections with them are tested in `test_outbound.py`."""

from pathlib import Path

import pytest
import structlog

from antiphon.config import ConfigError
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
