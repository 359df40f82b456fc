"""The progress that `make run` shows during installation, with a real pip and a package that needs no index."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.terminal import Terminal

INSTALL = Path(__file__).parents[2] / "deploy" / "install.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a wheel, a lock file that names it, and a lock file that names a missing package."""
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    (tmp_path / "good.lock").write_text("tiny==1.0\nelsewhere==2.0 ; sys_platform == 'none'\n")
    (tmp_path / "bad.lock").write_text("nowhere-to-be-found==1.0\n")
    return tmp_path


def command(folder: Path, lock: str) -> list[str]:
    where = ["--no-index", "--find-links", str(folder), "--target", str(folder / "there")]
    return [sys.executable, str(INSTALL), "The title", "--no-deps", *where, "-r", str(folder / lock)]


def test_a_log_has_whole_lines(folder: Path) -> None:
    """Without a terminal, the output has at least a first and a last line, and no output of pip itself."""
    done = subprocess.run(command(folder, "good.lock"), capture_output=True, text=True, check=True)
    first, *_, last = done.stdout.splitlines()
    assert first == "The title: starting"
    assert last.startswith("The title: done (")
    assert all(line.startswith("The title: ") for line in done.stdout.splitlines())
    assert (folder / "there" / "tiny.py").exists()


def test_a_failure_is_shown_with_the_error_of_pip(folder: Path) -> None:
    """If pip fails, its error is shown and the exit code is 1, at which make stops."""
    done = subprocess.run(command(folder, "bad.lock"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("The title: failed (")
    assert "nowhere-to-be-found==1.0" in done.stderr


async def test_a_terminal_has_one_line_that_changes(folder: Path) -> None:
    """On a terminal there is one changing line. It fits the width, and does not count packages for other systems."""
    with Terminal(command(folder, "good.lock"), {"PATH": os.environ["PATH"]}, columns=30) as terminal:
        assert await terminal.wait_for_exit() == 0
    lines = terminal.output.replace("\r\n", "\n").rstrip("\n").split("\r")
    assert "\n" not in "".join(lines)
    assert max(map(len, lines)) < 30
    assert lines[-1].startswith("The title: done (")
