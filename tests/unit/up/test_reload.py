"""When a reload begins; how it goes, with real workers and a real Envoy, `tests/e2e/test_rolling.py` holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from antiphon.up import reload
from antiphon.up.child import Child
from antiphon.up.plan import Program
from antiphon.up.reload import BEFORE, CONFIG, NEXT, WATCHED, Reload
from tests.waiting import block_until


class Stage:
    """A gateway's folder, without workers; `check` is the code of the program that checks."""

    def __init__(self, folder: Path, check: str) -> None:
        self.said: list[str] = []
        self.file = folder / "watched"
        self.file.write_text("one")
        (folder / WATCHED).write_text(json.dumps([str(self.file), str(folder / "none")]))
        (folder / CONFIG).write_text("old")
        (folder / NEXT).write_text("new")
        program = Program("check", [sys.executable, "-c", check], folder=folder, grace=1)
        self.reload = Reload([], self.make, program, folder, 2, 1.0, self.said.append)

    def make(self, program: Program) -> Child:
        raise AssertionError(program)

    def said_after_looks(self, count: int) -> list[str]:
        """Look until so many lines were said."""

        def found() -> bool:
            self.reload.look()
            return len(self.said) >= count

        block_until(found)
        return self.said


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "INTERVAL", 0.0)
    monkeypatch.setattr(reload, "POLL", 0.0)


def test_a_changed_file_is_checked_and_taken_up(tmp_path: Path) -> None:
    """Once, when it has stopped changing; the one before it is kept."""
    stage = Stage(tmp_path, "")
    stage.reload.look()
    assert not stage.said
    stage.file.write_text("another")
    assert stage.said_after_looks(2) == ["Reloading the configuration: a file has changed.", "Reloaded."]
    assert (tmp_path / CONFIG).read_text() == "new"
    assert (tmp_path / BEFORE).read_text() == "old"
    for _ in range(10):
        stage.reload.look()
    assert len(stage.said) == 2


def test_a_file_that_is_replaced_has_changed(tmp_path: Path) -> None:
    """As Kubernetes does it, whatever its time and size."""
    stage = Stage(tmp_path, "")
    other = tmp_path / "other"
    other.write_text("two")
    other.replace(stage.file)
    assert stage.said_after_looks(2)[-1] == "Reloaded."


def test_what_is_refused_is_not_taken_up(tmp_path: Path) -> None:
    """Nor tried again before something changes."""
    stage = Stage(tmp_path, "import sys; sys.exit(2)")
    stage.reload.ask("SIGHUP")
    assert stage.said_after_looks(2) == [
        "Reloading the configuration: SIGHUP.",
        "Not reloaded, for the reason above: the configuration stays as it was.",
    ]
    assert stage.reload.refused
    assert (tmp_path / CONFIG).read_text() == "old"
    for _ in range(10):
        stage.reload.look()
    assert len(stage.said) == 2


def test_a_stop_breaks_off_a_check(tmp_path: Path) -> None:
    """Which would take ten minutes; and nothing is begun any more."""
    stage = Stage(tmp_path, "import time; time.sleep(600)")
    stage.reload.ask("SIGHUP")
    stage.said_after_looks(1)
    stage.reload.look()
    stage.reload.stop()
    stage.reload.look()
    assert (stage.reload.due, len(stage.said)) == (None, 1)
