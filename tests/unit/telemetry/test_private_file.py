"""Tests of files that only their owner may read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.telemetry.private_file import open_private, stays_open_to_others


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """A new file has mode 0600, whatever the umask, and is appended to."""
    path = tmp_path / "log"
    for line in (b"one\n", b"two\n"):
        with open_private(path) as file:
            file.write(line)
        assert mode(path) == 0o600
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("wide", [0o644, 0o666, 0o640, 0o777])
def test_a_file_that_others_could_open_is_closed_to_them(tmp_path: Path, wide: int) -> None:
    """An existing file gets mode 0600, through a link too, and keeps its content."""
    path, link = tmp_path / "log", tmp_path / "link"
    path.write_bytes(b"one\n")
    path.chmod(wide)
    link.symlink_to(path)
    open_private(link).close()
    assert (mode(path), path.read_bytes()) == (0o600, b"one\n")


def test_a_device_keeps_its_mode() -> None:
    """A device such as /dev/null keeps its mode."""
    before = mode(Path(os.devnull))
    open_private(Path(os.devnull)).close()
    assert mode(Path(os.devnull)) == before


@pytest.mark.parametrize(("wide", "reported"), [(0o666, True), (0o640, True), (0o600, False)])
def test_a_readable_file_of_another_user_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wide: int, reported: bool
) -> None:
    """A readable file of another user is reported, because only its owner and root can change its mode."""
    path = tmp_path / "log"
    path.touch()
    path.chmod(wide)
    owner = path.stat().st_uid
    for user, expected in ((owner, False), (0, False), (owner + 1, reported)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert stays_open_to_others(path) is expected
    assert not stays_open_to_others(tmp_path / "none")
    assert not stays_open_to_others(Path(os.devnull))
