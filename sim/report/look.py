"""One look for every chart: colours that carry on white and on black, units on every axis, no decoration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

SERIES: Final = ("#3b82c4", "#e0823d", "#2a9d8f", "#c2568f", "#8a72cf", "#9a8f2b", "#d1495b", "#5b8e7d")
"""Colours of things compared, in the order in which they are named."""
GREY: Final = "#8b93a1"
"""What is published or stands behind."""
GOOD: Final = "#2a9d8f"
BAD: Final = "#d1495b"
GROUP: Final = {
    "attention": "#3b82c4",
    "moe": "#e0823d",
    "dense": "#8a72cf",
    "communication": "#c2568f",
    "other": "#8b93a1",
}
"""Groups of operations."""
BOUND: Final = {"compute": "#e0823d", "memory": "#3b82c4", "link": "#c2568f", "launch": "#8b93a1"}
"""What limits an operation."""
PRICED: Final = {
    "measured": "#2a9d8f",
    "fitted": "#7fbf7b",
    "scaled": "#3b82c4",
    "extrapolated": "#e0823d",
    "analytic": "#8b93a1",
}
"""Where a number came from."""
HEIGHT: Final = 310
"""Of a chart, pixels: two rows and their words fit on a laptop."""
NARROW, WIDE, MARK, LETTER, ROW = 330, 760, 46, 6.3, 19
"""Of a legend, pixels: what half a page and a whole one are wide, the mark and a letter of an entry, a row's height."""
MOST_DECADES: Final = 4
MOST_TICKS: Final = 8
"""Of a logarithmic axis: beyond so many decades only powers of ten, and no more than so many."""


@dataclass(frozen=True)
class Chart:
    """A figure with the words and the table that belong to it."""

    key: str
    """Unique on a page."""
    title: str
    says: str
    """One plain sentence: what it shows."""
    figure: go.Figure
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What stands behind the figure, with units in its headings."""
    terms: tuple[str, ...] = ()
    """Words of `sim.report.terms` that a reader may want explained."""


DASHES: Final = ("solid", "dash", "dot", "dashdot")
"""Of lines, so that one shows through another that it covers."""


def colour(index: int) -> str:
    """The colour of the index-th thing compared."""
    return SERIES[index % len(SERIES)]


def axes(
    figure: go.Figure,
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    height: int = HEIGHT,
    wide: bool = False,
) -> go.Figure:
    """The figure with its axes named (unit included); see `finish`."""
    figure.update_layout(
        xaxis={"title": {"text": x}, "type": "log" if log_x else None},
        yaxis={"title": {"text": y}, "type": "log" if log_y else None},
    )
    return finish(figure, height, wide)


def finish(figure: go.Figure, height: int = HEIGHT, wide: bool = False) -> go.Figure:
    """Margins, legend and hover of every figure; whole numbers at the ticks of logarithmic axes.

    The legend stands above the plot, in as many rows as half a page needs, or a whole one if `wide`; `height`
    (pixels) is that of everything but the rows beyond the first.
    """
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    entry = MARK + LETTER * max(map(len, names), default=0)
    rows = -(-len(names) // max(1, int((WIDE if wide else NARROW) // entry))) or 1
    every = [*figure.select_xaxes(), *figure.select_yaxes()]
    figure.update_layout(
        height=height + ROW * (rows - 1),
        margin={"l": 8, "r": 8, "t": 10 + ROW * rows, "b": 8},
        legend={
            "orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "title_text": "", "traceorder": "normal",
        },
        hoverlabel={"align": "left"},
        **{axis.plotly_name: {"automargin": True, "zeroline": False, **_ticks(figure, axis)} for axis in every},
    )  # fmt: skip
    return figure


def _ticks(figure: go.Figure, axis: Any) -> dict[str, Any]:
    """Round numbers at the ticks of a logarithmic axis."""
    if axis.type != "log":
        return {}
    ticks = log_ticks(_values(figure, axis.plotly_name))
    return {"tickvals": ticks, "ticktext": [short(tick) for tick in ticks]}


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers (1, 2, 5, or decades alone) that cover the positive `values`, eight or so."""
    positive = [v for v in values if v > 0] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    if high - low > MOST_DECADES:
        step = -(-(high - low) // MOST_TICKS)
        return [10.0**power for power in range(low, high + 1, step)]
    digits = (1, 2, 5) if high - low <= 2 else (1, 3)
    ticks = [digit * 10.0**power for power in range(low - 1, high + 1) for digit in digits]
    return [t for t in ticks if min(positive) / 2 <= t <= max(positive) * 2]


def short(value: float) -> str:
    """A number on an axis: 0.05, 20, 5k, 1M."""
    for least, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= least:
            return f"{value / least:.3g}{letter}"
    return f"{value:.3g}"


def _values(figure: go.Figure, axis: str) -> list[float]:
    """Everything that the traces of one axis (such as `yaxis2`) put on it."""
    letter, number = axis[0], axis.removeprefix(axis[:5])
    mine = [t for t in figure.data if (getattr(t, f"{letter}axis", None) or letter) == f"{letter}{number}"]
    columns = [getattr(trace, letter, None) for trace in mine]
    return [
        float(v) for column in columns if column is not None for v in column if isinstance(v, int | float)
    ]


def line(name: str, x: Any, y: Any, colour: str, **options: Any) -> go.Scatter:
    """A line of one series."""
    return go.Scatter(
        name=name, x=list(x), y=list(y), mode=options.pop("mode", "lines"),
        line={"color": colour, "width": 2, **options.pop("line", {})}, **options,
    )  # fmt: skip


def points(
    name: str, x: Any, y: Any, colour: str, symbol: str = "circle", size: int = 9, **options: Any
) -> go.Scatter:
    """Points of one series."""
    return go.Scatter(
        name=name, x=list(x), y=list(y), mode="markers",
        marker={"color": colour, "symbol": symbol, "size": size, **options.pop("marker", {})}, **options,
    )  # fmt: skip
