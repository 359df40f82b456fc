"""The pictures of the dashboards."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.bench.plot import Bar, Series, bars, dashboard, format_value


def _panel(**more: Any) -> dict[str, Any]:
    return {
        "title": "Time <of> calls",
        "type": "timeseries",
        "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": "s"}},
        **more,
    }


def _texts(picture: str) -> list[str]:
    found = ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314  # our own file
    return [element.text or "" for element in found]


def test_a_panel_has_title_units_and_legend() -> None:
    """The legend names the largest series with mean and maximum, and counts the rest."""
    lines = [Series(f"line {number}", [(0.0, number / 1000), (60.0, number / 1000)]) for number in range(6)]
    texts = _texts(dashboard("Board", [(_panel(), lines, "")], 60))
    assert {"Board", "Time <of> calls", "0:30", "1:00", "6 ms", "5 ms", "line 5", "line 4", "line 3", "and 3 more"} <= set(texts)
    assert "line 2" not in texts


def test_a_panel_without_data_says_why() -> None:
    """A panel without data shows the reason, and a single number is the latest value."""
    stat = _panel(type="stat", fieldConfig={"defaults": {"unit": "percentunit"}})
    texts = _texts(dashboard("Board", [(_panel(), [], "no breaker"), (stat, [Series("", [(0.0, 0.1), (1.0, 0.25)])], "")], 60))
    assert "no data: no breaker" in texts
    assert "25 %" in texts


def test_bars_have_names_and_figures() -> None:
    """The smallest first, unless they have an order of their own."""
    values = [Bar("a <b>", 3.0), Bar("ours", 1.5, ours=True)]
    assert _texts(bars("Cost", "ms", values)) == ["Cost", "ours", "1.5 ms", "a <b>", "3 ms"]
    assert _texts(bars("Cost", "ms", values, by_value=False))[1] == "a <b>"


@pytest.mark.parametrize("seconds", [32.0, 60.0, 300.0, 1800.0])
def test_times_do_not_overlap(seconds: float) -> None:
    """However long the run was."""
    line = Series("line", [(0.0, 1.0), (seconds, 1.0)])
    texts = _texts(dashboard("Board", [(_panel(), [line], "")], seconds))
    assert 2 < sum(":" in text for text in texts) <= 11


def test_what_happened_is_marked() -> None:
    """At its time, in each panel."""
    line = Series("line", [(0.0, 1.0), (40.0, 1.0)])
    board = dashboard("Board", [(_panel(), [line], ""), (_panel(), [line], "")], 40, (10.0, 20.0))
    assert board.count("stroke-dasharray") == 4


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (0, "s", "0 s"),
        (0.0021, "s", "2.1 ms"),
        (5e-5, "s", "50 µs"),
        (12, "s", "12 s"),
        (3 * 2**20, "bytes", "3 MiB"),
        (1234, "reqps", "1.23 K req/s"),
        (0.5, "currencyUSD", "$0.5"),
        (7, "short", "7"),
    ],
)
def test_values_are_formatted_in_their_unit(value: float, unit: str, wanted: str) -> None:
    """Values are formatted as Grafana does."""
    assert format_value(value, unit) == wanted
