"""A line chart as SVG text, small enough to keep in a repository and without a library."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 46
COLOURS = ("#3b82c4", "#e0823d", "#2a9d8f", "#c2568f", "#8a72cf", "#8b93a1")


@dataclass(frozen=True)
class Line:
    """One line: a name and its points."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """An axis with its unit; `log`: powers of ten (y) or of two (x, in tokens)."""

    label: str
    log: bool = False


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """The chart as an SVG document."""
    xs = [px for line in lines for px, _ in line.points]
    ys = [py for line in lines for _, py in line.points]
    x_ticks = _powers(min(xs), max(xs), 2) if x.log else _steps(0.0, max(xs))
    y_ticks = _powers(min(ys), max(ys), 10) if y.log else _steps(0.0, max(ys))
    across = _scale(x_ticks, x.log, LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks, y.log, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#555">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 18, title, size=13, weight="bold"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.label, anchor="middle"),
        f'<g transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        f"{_text(0, 0, y.label, anchor='middle')}</g>",
    ]
    for tick in x_ticks:
        parts.append(_rule(across(tick), TOP, across(tick), HEIGHT - BOTTOM))
        parts.append(_text(across(tick), HEIGHT - BOTTOM + 15, _short(tick, x.log), anchor="middle"))
    for tick in y_ticks:
        parts.append(_rule(LEFT, up(tick), WIDTH - RIGHT, up(tick)))
        parts.append(_text(LEFT - 6, up(tick) + 4, _short(tick, False), anchor="end"))
    for row, line in enumerate(lines):
        colour, dash = COLOURS[line.colour], ' stroke-dasharray="5 4"' if line.dashed else ""
        drawn = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in line.points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        at = TOP + 14 + 15 * row
        parts.append(_rule(LEFT + 10, at - 4, LEFT + 34, at - 4, colour, 2, dash))
        parts.append(_text(LEFT + 40, at, line.name))
    return "\n".join([*parts, "</svg>\n"])


def _scale(ticks: Sequence[float], log: bool, start: float, end: float):
    low, high = (log10(ticks[0]), log10(ticks[-1])) if log else (ticks[0], ticks[-1])

    def place(value: float) -> float:
        at = log10(value) if log else value
        return start + (at - low) / (high - low) * (end - start)

    return place


def _powers(low: float, high: float, base: int) -> list[float]:
    size = log10(base)
    return [
        float(base) ** n for n in range(floor(log10(low) / size + 1e-9), ceil(log10(high) / size - 1e-9) + 1)
    ]


def _steps(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough)
    return [low + step * n for n in range(ceil((high - low) / step - 1e-9) + 1)]


def _short(value: float, tokens: bool) -> str:
    if tokens and value >= 1024:
        return f"{value / 1024:g}K"
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = 11, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


def _rule(
    x1: float, y1: float, x2: float, y2: float, colour: str = "#e3e6ea", width: float = 1, dash: str = ""
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dash}/>'
    )
