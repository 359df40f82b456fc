"""Tests of how keys are printed in a terminal."""

import io

import pytest
from rich.console import Console

from antiphon.cli import console, keys_output
from antiphon.v1 import admin_pb2

ID = "01a2275c-637d-705b-83ff-c3438d7b8161"


def printed_lines(monkeypatch: pytest.MonkeyPatch, width: int, *keys: admin_pb2.Key) -> list[str]:
    """Return the lines that `show_keys` prints in a terminal of `width` columns."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False, color_system=None)
    for module in (console, keys_output):
        monkeypatch.setattr(module, "out", terminal)
    keys_output.show_keys(keys, as_json=False)
    return terminal.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def a_key(name: str = "team-a") -> admin_pb2.Key:
    quota = admin_pb2.Quota(requests_per_minute=600, tokens_per_minute=100_000, daily_usd=2.5)
    return admin_pb2.Key(id=ID, name=name, owner=name, hint="61a6", scopes=["SCOPE_CHAT"], models=["gpt-4o*"], quota=quota)


@pytest.mark.parametrize("name", ["team-a", "a-name-without-a-blank" * 4, "[bold]markup[/] 🎉"], ids=["short", "long", "odd"])
def test_a_narrow_terminal_has_some_lines_a_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In 80 columns each key is printed in several lines that fit, with its id in one piece so that it can be copied."""
    lines = printed_lines(monkeypatch, 80, a_key(name))
    assert max(map(len, lines)) <= 80
    assert f"  {ID}  ...61a6" in lines
    assert "  limits 600 requests/min, 100,000 tokens/min, 2.5 USD/day" in lines
    assert "".join(lines).startswith(name[:80])


def test_a_wide_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal shows a table with one row for each key."""
    (row,) = [line for line in printed_lines(monkeypatch, 250, a_key()) if ID in line]
    for cell in ("team-a", "...61a6", "chat", "gpt-4o*", "600 requests/min, 100,000 tokens/min, 2.5 USD/day", "never", "good"):
        assert cell in row


def test_without_keys_the_output_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys the output names the command that makes one."""
    assert "`antiphon keys create NAME`" in "".join(printed_lines(monkeypatch, 80))
