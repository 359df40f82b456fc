"""Draws SVG: dashboards in Grafana's layout, with title, unit, axes and legend of each panel, and bars. No I/O and no library.

The viewer of the picture draws the text, so widths of text are estimated generously.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final, NamedTuple

WIDTH: Final = 900
COLUMN: Final = WIDTH / 24
"""The width of a column of Grafana's grid."""
ROW: Final = 26
GAP: Final = 6
HEAD: Final = 30
LEGEND_LINES: Final = 4
"""Lines of a legend, for the largest series."""

COLOURS: Final = ("#3274d9", "#e0752d", "#37872d", "#a352cc", "#c4162a", "#b29600", "#0f8a8a", "#8f3bb8", "#6e6e6e", "#d683ce")

Points = list[tuple[float, float]]
"""Seconds since the start with a value, in order."""


class Series(NamedTuple):
    """A line, with its name in the legend."""

    name: str
    points: Points


class Bar(NamedTuple):
    """A value with its name. One that is `ours` has another colour."""

    name: str
    value: float
    ours: bool = False


def bars(title: str, unit: str, values: Sequence[Bar], *, by_value: bool = True) -> str:
    """Return a picture of the values as bars, each with its figure; the smallest first, unless they have an order of their own."""
    ordered = sorted(values, key=lambda bar: bar.value) if by_value else values
    tall, left, right = 26, 120.0, 110.0
    height = 44 + tall * len(ordered)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#24292e">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    most = max(bar.value for bar in ordered) or 1.0
    for number, bar in enumerate(ordered):
        y = 38 + tall * number
        wide = (WIDTH - left - right) * bar.value / most
        parts.append(f'<text x="{left - 8:g}" y="{y + 15}" text-anchor="end">{escape(bar.name)}</text>')
        parts.append(f'<rect x="{left:g}" y="{y}" width="{wide:.1f}" height="20" rx="2" fill="{COLOURS[0 if bar.ours else 8]}"/>')
        parts.append(f'<text x="{left + wide + 6:.1f}" y="{y + 15}">{bar.value:.3g} {escape(unit)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def dashboard(
    title: str, panels: Sequence[tuple[dict[str, Any], Sequence[Series], str]], seconds: float, marks: Sequence[float] = ()
) -> str:
    """Return a picture of Grafana's panels, each with its series and the text shown if there are none.

    `marks` are seconds at which something happened: broken lines in every panel.
    """
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _, _ in panels)
    height = HEAD + bottom * ROW
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#24292e">',
        f'<rect width="{WIDTH}" height="{height}" fill="#f4f5f5"/>',
        f'<text x="{GAP + 4}" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for panel, series, reason in panels:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN + GAP / 2, HEAD + place["y"] * ROW
        wide, tall = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
        parts.append(f'<g transform="translate({x:g} {y:g})">')
        parts.append(f'<rect width="{wide:g}" height="{tall:g}" rx="3" fill="#fff" stroke="#d8dade"/>')
        parts.append(f'<text x="8" y="16" font-weight="bold">{escape(panel["title"])}</text>')
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if not any(each.points for each in series):
            parts.append(f'<text x="8" y="{tall / 2:g}" fill="#6e7077">no data: {escape(reason)}</text>')
        elif panel["type"] == "stat":
            parts.append(_stat(series, unit, wide, tall))
        else:
            parts += _lines(series, unit, wide, tall, seconds, marks)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _stat(series: Sequence[Series], unit: str, wide: float, tall: float) -> str:
    place = f'x="{wide / 2:g}" y="{tall * 0.7:g}" font-size="24" text-anchor="middle" fill="{COLOURS[0]}"'
    return f"<text {place}>{format_value(series[0].points[-1][1], unit)}</text>"


def _lines(series: Sequence[Series], unit: str, wide: float, tall: float, seconds: float, marks: Sequence[float]) -> Iterator[str]:
    ordered = sorted((each for each in series if each.points), key=lambda each: -_mean(each))
    more = len(ordered) - LEGEND_LINES
    listed = LEGEND_LINES if more <= 0 else LEGEND_LINES - 1
    left, top, right, bottom = 58.0, 28.0, wide - 12, tall - 41 - 14 * min(len(ordered), LEGEND_LINES)
    size = 2**20 if unit == "bytes" else 1.0
    most = max(value for each in ordered for _, value in each.points)
    step = _step((most or 1) / size) * size
    highest = step * max(1, math.ceil(most / step - 1e-9))

    def at(second: float, value: float) -> str:
        return f"{left + (right - left) * second / seconds:.1f},{bottom - (bottom - top) * value / highest:.1f}"

    for number in range(round(highest / step) + 1):
        y = bottom - (bottom - top) * number * step / highest
        yield f'<path d="M{left:g} {y:.1f}H{right:g}" stroke="#e6e7ea"/>'
        yield f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end" fill="#6e7077">{format_value(number * step, unit)}</text>'
    for second in marks:
        x = left + (right - left) * second / seconds
        yield f'<path d="M{x:.1f} {top:g}V{bottom:.1f}" stroke="#8a8d93" stroke-dasharray="3 3"/>'
    ticks = 5 if seconds < 60 else 30 if seconds <= 300 else 60 * math.ceil(seconds / 480)
    for second in range(0, int(seconds) + 1, ticks):
        x = left + (right - left) * second / seconds
        yield f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle" fill="#6e7077">{second // 60}:{second % 60:02}</text>'
    for number, each in enumerate(ordered):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(at(*point) for point in each.points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if number < listed:
            y = bottom + 46 + 14 * number
            yield f'<path d="M10 {y - 4:.1f}h12" stroke="{colour}" stroke-width="3"/>'
            yield f'<text x="28" y="{y:.1f}">{escape(each.name)}</text>'
            yield from _sums(wide, y, format_value(_mean(each), unit), format_value(max(value for _, value in each.points), unit))
    yield from _sums(wide, bottom + 31, "mean", "max", "#6e7077")
    if more > 0:
        yield f'<text x="28" y="{bottom + 46 + 14 * listed:.1f}" fill="#6e7077">and {more + 1} more</text>'


def _sums(wide: float, y: float, mean: str, most: str, colour: str = "#24292e") -> Iterator[str]:
    for x, text in ((wide - 92, mean), (wide - 12, most)):
        yield f'<text x="{x:g}" y="{y:.1f}" text-anchor="end" fill="{colour}">{text}</text>'


def _mean(series: Series) -> float:
    return sum(value for _, value in series.points) / len(series.points)


def _step(highest: float) -> float:
    """Return a round distance between the lines of an axis, so that there are two to four."""
    size = 10 ** math.floor(math.log10(highest / 2))
    return float(next(size * factor for factor in (1, 2, 5, 10) if highest / (size * factor) <= 4))


def format_value(value: float, unit: str) -> str:
    """Return a value in the form that Grafana shows for a unit."""
    match unit:
        case "s":
            for size, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
                if value >= size or size == 1e-6:
                    return "0 s" if value == 0 else f"{value / size:.3g} {name}"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "bytes":
            return f"{value / 2**20:.4g} MiB"
        case "currencyUSD":
            return f"${value:.3g}"
        case "reqps":
            return f"{_short(value)} req/s"
    return _short(value)


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.3g} K"
    return f"{value:.3g}"
