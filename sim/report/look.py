"""One look for every chart: colours that carry on white and on black, units on every axis, no decoration."""

import math
from collections.abc import Mapping, Sequence
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
NARROW, WIDE, MARK, LETTER, ROW = 330, 760, 44, 5.9, 19
"""Of a legend, pixels: what half a page and a whole one are wide, the mark and a letter of an entry, a row's height."""
RIGHT: Final = 22
"""Right of a plot, pixels: half of the last tick's label, which plotly leaves out where it has no room."""
SHARES: Final = {"tickformat": ".0%", "range": [0, 1]}
"""An axis of shares of a whole."""
MOST_DECADES: Final = 4
MOST_TICKS: Final = 8
LITTLE: Final = 4
"""Of a logarithmic axis: beyond so many decades only powers of ten, and no more than so many; below so little between
its ends more than three numbers in a decade."""


Trace = dict[str, Any]
"""A series as plotly's JSON has it: checked once, with the figure that it becomes part of."""


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
    drawn: go.Figure | Sequence[Trace],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    height: int = HEIGHT,
    wide: bool = False,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    **layout: Any,
) -> go.Figure:
    """The figure with its axes named (unit included), and with whatever else its layout needs; see `finish`."""
    return finish(
        drawn,
        height,
        wide,
        xaxis={"title": {"text": x}, **(_logarithmic(drawn, "x") if log_x else {}), **(xaxis or {})},
        yaxis={"title": {"text": y}, **(_logarithmic(drawn, "y") if log_y else {}), **(yaxis or {})},
        **layout,
    )


def finish(
    drawn: go.Figure | Sequence[Trace], height: int = HEIGHT, wide: bool = False, **layout: Any
) -> go.Figure:
    """Margins, legend and hover of every figure, set at once: merging settings one by one takes plotly milliseconds,
    and so do series that are checked before they are part of a figure.

    The legend stands above the plot, in as many rows as half a page needs, or a whole one if `wide`; `height`
    (pixels) is that of everything but the rows beyond the first.
    """
    figure = drawn if isinstance(drawn, go.Figure) else None
    traces = figure.data if figure else drawn
    names = [name for t in traces if (name := _value(t, "name")) and _value(t, "showlegend") is not False]
    rows = legend_rows(names, WIDE if wide else NARROW)
    own = {
        axis.plotly_name: axis.to_plotly_json()
        for axis in ((*figure.select_xaxes(), *figure.select_yaxes()) if figure else ())
    }
    whole = {
        "height": height + ROW * (rows - 1),
        "margin": {"l": 8, "r": RIGHT, "t": 10 + ROW * rows, "b": 8},
        "legend": {
            "orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "title": {"text": ""}, "traceorder": "normal",
        },
        "hoverlabel": {"align": "left"},
        **{
            name: {"automargin": True, "zeroline": False, **own.get(name, {}), **layout.pop(name, {})}
            for name in own.keys() | {"xaxis", "yaxis"}
        },
        **layout,
    }  # fmt: skip
    if figure is None:
        return go.Figure(data=[*traces], layout=whole)
    figure.update_layout(overwrite=True, **whole)
    return figure


def _value(trace: Any, key: str) -> Any:
    """Of a series, whether it is part of a figure yet or not."""
    return trace.get(key) if isinstance(trace, dict) else trace[key]


def legend_rows(names: Sequence[str], width: float) -> int:
    """Rows of a legend: one if all entries fit beside each other, else as many as columns of the widest need."""
    entries = [MARK + LETTER * len(name) for name in names]
    if sum(entries) <= width:
        return 1
    return -(-len(entries) // max(1, int(width // max(entries))))


def _logarithmic(drawn: go.Figure | Sequence[Trace], letter: str) -> dict[str, Any]:
    """A logarithmic axis with round numbers at its ticks."""
    columns = [_value(trace, letter) for trace in (drawn.data if isinstance(drawn, go.Figure) else drawn)]
    values = [v for column in columns if column is not None for v in column if isinstance(v, int | float)]
    ticks = log_ticks(values)
    return {"type": "log", "tickvals": ticks, "ticktext": [short(tick) for tick in ticks]}


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers that cover the positive `values`, eight or so: the fewer in a decade, the more decades."""
    positive = [v for v in values if v > 0] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    if high - low > MOST_DECADES:
        step = -(-(high - low) // MOST_TICKS)
        return [10.0**power for power in range(low, high + 1, step)]
    digits: tuple[float, ...]
    around, digits = 2.0, (1, 2, 5) if high - low <= 2 else (1, 3)
    if max(positive) < LITTLE * min(positive):
        around, digits = 1.2, (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [digit * 10.0**power for power in range(low - 1, high + 1) for digit in digits]
    return [t for t in ticks if min(positive) / around <= t <= max(positive) * around]


def short(value: float) -> str:
    """A number on an axis: 0.05, 20, 5k, 1M."""
    for least, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= least:
            return f"{value / least:.3g}{letter}"
    return f"{value:.3g}"


def line(name: str, x: Any, y: Any, colour: str, **options: Any) -> Trace:
    """A line of one series."""
    drawn = {"color": colour, "width": 2, **options.pop("line", {})}
    return {
        "type": "scatter",
        "name": name,
        "x": list(x),
        "y": list(y),
        "mode": "lines",
        "line": drawn,
        **options,
    }


def points(
    name: str, x: Any, y: Any, colour: str, symbol: str = "circle", size: int = 9, **options: Any
) -> Trace:
    """Points of one series."""
    marker = {"color": colour, "symbol": symbol, "size": size, **options.pop("marker", {})}
    return {
        "type": "scatter", "name": name, "x": list(x), "y": list(y), "mode": "markers", "marker": marker, **options,
    }  # fmt: skip


def bars(name: str, lengths: Any, labels: Any, colour: str, **options: Any) -> Trace:
    """Bars of one series, lying."""
    return {
        "type": "bar", "name": name, "x": list(lengths), "y": list(labels), "orientation": "h",
        "marker": {"color": colour}, **options,
    }  # fmt: skip
