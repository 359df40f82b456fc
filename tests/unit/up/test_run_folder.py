"""Tests of the folder of one run, and of sweeping the folders of killed runs."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.up import run_folder
from antiphon.up.readiness import worker_socket


@pytest.fixture(autouse=True)
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put run folders into a folder whose path is short enough for sockets, and yield it."""
    with tempfile.TemporaryDirectory(prefix="run") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


def fill(folder: Path) -> None:
    for name in ("bootstrap.yaml", "status.lua", "antiphon.pb", "watched.json"):
        (folder / name).touch()


def abandoned(listener: bool = False) -> tuple[Path, socket.socket]:
    """Make a run folder whose process is gone, with a socket in it. Return both."""
    folder, lock = run_folder.make()
    os.close(lock)
    fill(folder)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(folder / worker_socket(0)))
    if listener:
        bound.listen()
    else:
        bound.close()
    return folder, bound


def test_it_is_private_and_its_sockets_paths_are_short(monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
    """A run folder has mode 0700, and its sockets' paths are short enough, whatever TMPDIR is."""
    long = parent / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder, lock = run_folder.make()
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(folder / worker_socket(255))) <= run_folder.MAX_SOCKET_PATH
    finally:
        folder.rmdir()
        os.close(lock)


def test_what_a_killed_gateway_left_is_taken_away() -> None:
    """The folder of a killed gateway is removed with its sockets, also if it was still empty."""
    folder, _ = abandoned()
    empty, lock = run_folder.make()
    os.close(lock)
    run_folder.sweep()
    assert not folder.exists()
    assert not empty.exists()


def test_what_is_in_use_stays() -> None:
    """A folder stays if it is in use by this process, by another one, or by a child that still answers without its supervisor."""
    mine, lock = run_folder.make()
    fill(mine)
    program = "import sys; from antiphon.up import run_folder; print(run_folder.make()[0], flush=True); sys.stdin.read()"
    environment = {**os.environ, "TMPDIR": str(mine.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        orphan, listener = abandoned(listener=True)
        run_folder.sweep()
        assert (mine.exists(), theirs.exists(), orphan.exists()) == (True, True, True)
        other.kill()
    listener.close()
    run_folder.sweep()
    assert (mine.exists(), theirs.exists(), orphan.exists()) == (True, False, False)
    os.close(lock)


@pytest.mark.parametrize(
    "name",
    ["antiphon-mine", "antiphon-longer_than_that", "antiphon-ABCDEFGH", "other-abcdefgh"],
)
def test_what_is_not_named_so_stays(parent: Path, name: str) -> None:
    """Folders with other names are not touched."""
    (parent / name).mkdir()
    run_folder.sweep()
    assert (parent / name).exists()


def test_what_holds_something_else_stays(parent: Path) -> None:
    """A folder with an unknown file or folder, a link and a plain file are not touched."""
    folder, _ = abandoned()
    (folder / "notes.txt").touch()
    nested = parent / "antiphon-nested00"
    (nested / "x.yaml").mkdir(parents=True)
    target = parent / "target"
    target.mkdir()
    link = parent / "antiphon-link0000"
    link.symlink_to(target)
    file = parent / "antiphon-file0000"
    file.touch()
    run_folder.sweep()
    assert all(path.exists() for path in (folder / "notes.txt", folder / "bootstrap.yaml", nested, target, link, file))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_is_another_users_stays(parent: Path) -> None:
    """Another user's folder is not touched, even if it could be removed."""
    folder = parent / "antiphon-theirs00"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    run_folder.sweep()
    assert folder.exists()
