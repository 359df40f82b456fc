"""Tests of how usage is printed in a terminal of 80 columns."""

import io
from typing import Any

import pytest
from rich.console import Console

from antiphon.cli import console, usage
from antiphon.v1 import admin_pb2


def printed_lines(monkeypatch: pytest.MonkeyPatch, by: list[str], *rows: admin_pb2.DailyUsage) -> list[str]:
    """Return the lines that the usage command prints for `rows` in a terminal of 80 columns."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False, color_system=None)
    for module in (console, usage):
        monkeypatch.setattr(module, "out", terminal)

    def answer(address: str, question: Any) -> admin_pb2.GetUsageResponse:
        return admin_pb2.GetUsageResponse(days=rows)

    monkeypatch.setattr(usage, "call_admin", answer)
    usage._show("", "", ("", ""), "", by, as_json=False)
    return terminal.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def a_row(model: str, **fields: Any) -> admin_pb2.DailyUsage:
    usual = {"requests": 1_234_567, "prompt_tokens": 123_456_789, "completion_tokens": 9_876_543, "cost_usd": 1234.5}
    return admin_pb2.DailyUsage(model=model, key="key:x", key_name="production-web", provider="azure-europe", **usual | fields)


@pytest.mark.parametrize("by", [["model"], ["key", "model"], ["key", "provider", "model"]], ids=" ".join)
def test_figures_are_whole_whatever_names_are_long(monkeypatch: pytest.MonkeyPatch, by: list[str]) -> None:
    """Figures are printed in full within 80 columns, however long the names are. The most expensive rows come first."""
    lines = printed_lines(monkeypatch, by, a_row("a-model-with-a-long-name-" * 3), a_row("", cost_usd=2000.0, unpriced_requests=5))
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "1,234,567" in line and "123,456,789" in line and "1,234.5000" in line]
    assert "2,469,134" in lines[-2]
    assert next(number for number, line in enumerate(lines) if "2,000.0000" in line) < 5, "what cost most comes first"
    assert "not known" in "".join(lines)


def test_without_usage_the_output_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without usage the output says that the most recent calls may not be included yet."""
    assert "not included yet" in "".join(printed_lines(monkeypatch, ["model"]))
