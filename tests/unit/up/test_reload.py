"""Tests of when a reload begins. A whole reload with workers and Envoy is tested in `tests/e2e/test_rolling.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from antiphon.up import reload
from antiphon.up.child import Child
from antiphon.up.plan import Program
from antiphon.up.reload import CONFIG, NEXT, PREVIOUS, WATCHED, Reload
from tests.waiting import block_until


class Stage:
    """A gateway's folder and its `Reload`, without workers. `check` is the Python code of the checking program."""

    def __init__(self, folder: Path, check: str) -> None:
        self.printed: list[str] = []
        self.file = folder / "watched"
        self.file.write_text("one")
        (folder / WATCHED).write_text(json.dumps([str(self.file), str(folder / "none")]))
        (folder / CONFIG).write_text("old")
        (folder / NEXT).write_text("new")
        program = Program("check", [sys.executable, "-c", check], folder=folder, grace=1)
        self.reload = Reload([], self.make, program, folder, 2, 1.0, self.printed.append)

    def make(self, program: Program) -> Child:
        raise AssertionError(program)

    def look_until(self, count: int) -> list[str]:
        """Look until `count` lines were printed. Return all lines."""

        def found() -> bool:
            self.reload.look()
            return len(self.printed) >= count

        block_until(found)
        return self.printed


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "INTERVAL", 0.0)
    monkeypatch.setattr(reload, "POLL", 0.0)


def test_a_changed_file_is_checked_and_taken_up(tmp_path: Path) -> None:
    """A changed file is checked and used once it has stopped changing; the previous configuration is kept."""
    stage = Stage(tmp_path, "")
    stage.reload.look()
    assert not stage.printed
    stage.file.write_text("another")
    assert stage.look_until(2) == ["Reloading the configuration: a file has changed.", "Reloaded."]
    assert (tmp_path / CONFIG).read_text() == "new"
    assert (tmp_path / PREVIOUS).read_text() == "old"
    for _ in range(10):
        stage.reload.look()
    assert len(stage.printed) == 2


def test_a_file_that_is_replaced_has_changed(tmp_path: Path) -> None:
    """A replaced file counts as changed, whatever its time and size, as Kubernetes replaces files."""
    stage = Stage(tmp_path, "")
    other = tmp_path / "other"
    other.write_text("two")
    other.replace(stage.file)
    assert stage.look_until(2)[-1] == "Reloaded."


def test_what_is_refused_is_not_taken_up(tmp_path: Path) -> None:
    """A refused configuration is not used, and not tried again before another change."""
    stage = Stage(tmp_path, "import sys; sys.exit(2)")
    stage.reload.request("SIGHUP")
    assert stage.look_until(2) == [
        "Reloading the configuration: SIGHUP.",
        "Not reloaded, for the reason above: the configuration stays as it was.",
    ]
    assert stage.reload.refused
    assert (tmp_path / CONFIG).read_text() == "old"
    for _ in range(10):
        stage.reload.look()
    assert len(stage.printed) == 2


def test_a_stop_breaks_off_a_check(tmp_path: Path) -> None:
    """A stop ends a running check, and no other reload begins."""
    stage = Stage(tmp_path, "import time; time.sleep(600)")
    stage.reload.request("SIGHUP")
    stage.look_until(1)
    stage.reload.look()
    stage.reload.stop()
    stage.reload.look()
    assert (stage.reload.due, len(stage.printed)) == (None, 1)


def test_a_change_during_the_check_is_another_reload(tmp_path: Path) -> None:
    """A change during the check starts another reload."""
    stage = Stage(tmp_path, f"open({str(tmp_path / 'watched.txt')!r}, 'a').close()")
    stage.file.write_text("another")
    stage.reload.request("SIGHUP")
    stage.look_until(1)
    stage.reload.look()  # starts the check
    stage.file.write_text("a third text, which it may not have seen")
    assert stage.look_until(3)[1:] == ["Reloaded.", "Reloading the configuration: a file has changed."]


def test_a_check_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that hangs is ended and refuses the configuration, so that the next reload can begin."""
    monkeypatch.setattr(reload, "CHECK_TIMEOUT", 0.0)
    stage = Stage(tmp_path, "import time; time.sleep(600)")
    stage.reload.request("SIGHUP")
    lines = stage.look_until(3)
    assert lines[1].startswith("The check of the configuration took more than 0 s")
    assert lines[2].startswith("Not reloaded")
    assert stage.reload.refused


def test_a_folder_that_is_gone_refuses_the_reload(tmp_path: Path) -> None:
    """If the check cannot be started, the reload is refused and the gateway goes on."""
    stage = Stage(tmp_path, "")
    stage.reload._check = stage.reload._check._replace(folder=tmp_path / "none")
    stage.reload.request("SIGHUP")
    assert stage.look_until(2)[1].startswith("Not reloaded: [Errno 2]")
    assert stage.reload.refused
