"""A sweep's points: what was varied, what came of it, and price against latency and throughput."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from sim.report.look import Chart, axes, colour, points

PRICE: Final = "USD per million tokens"
FIGURES: Final[Mapping[str, str]] = {
    PRICE: "cost.usd_per_million.blended",
    "output tokens/s": "throughput.output_tokens_per_s",
    "output tokens/s per GPU": "throughput.output_tokens_per_s_per_gpu",
    "TTFT p99, s": "latency.ttft_s.p99",
    "TPOT p99, s": "latency.tpot_s.p99",
    "GPUs": "gpus",
}
"""Heading -> the column of `sweep.parquet`."""
ERROR: Final = "error"
HOVER: Final = "%{text}<br>%{x:.3g}, $%{y:.3g}<extra></extra>"
MOST_SERIES: Final = 12
"""Values of a key that are told apart by colour; of more all points have one."""


def varied(sweep: pd.DataFrame) -> list[str]:
    """The keys that a sweep varied: the columns between `point` and `seed`."""
    names = [str(name) for name in sweep.columns]
    return names[names.index("point") + 1 : names.index("seed")]


def sweep_table(sweep: pd.DataFrame) -> pd.DataFrame:
    """One row a point: its number, its overrides, the figures that most people look at, and its error where it has
    one. A figure that no point has is left out."""
    figures = {
        heading: pd.to_numeric(sweep[column], errors="coerce")
        for heading, column in FIGURES.items()
        if column in sweep
    }
    errors = {ERROR: sweep[ERROR]} if sweep[ERROR].notna().any() else {}
    overrides = {key: _whole(sweep[key]) for key in varied(sweep)}
    whole = pd.DataFrame({"point": sweep["point"], **overrides, **figures})
    return whole.dropna(axis="columns", how="all").assign(**errors)


def _whole(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Whole numbers as such, also where a column of theirs has gaps."""
    known = values.dropna()
    if pd.api.types.is_float_dtype(values) and (known % 1 == 0).all():
        return values.map(lambda value: None if pd.isna(value) else int(value)).astype(object)
    return values


def against_chart(table: pd.DataFrame, keys: Sequence[str], by: str | None, figure: str) -> Chart:
    """Price of every point that ran over one of its figures; `keys`: what was varied, `by`: what gives the colour."""
    known = table.dropna(subset=[PRICE, figure])
    shown = go.Figure()
    groups = known[by].map(str) if by else pd.Series("", index=known.index)
    values = list(dict.fromkeys(groups))
    if len(values) > MOST_SERIES:
        groups, values = pd.Series("", index=known.index), [""]
    for index, value in enumerate(values):
        some = known[groups == value]
        name = f"{by.rsplit('.', maxsplit=1)[-1]} {value}" if by and value else "points"
        told = [
            "<br>".join([f"point {row['point']}", *(f"{key}: {row[key]}" for key in keys if key in row)])
            for row in some.to_dict("records")
        ]
        shown.add_trace(
            points(name, some[figure], some[PRICE], colour(index), text=told, hovertemplate=HOVER)
        )
    axes(shown, figure, PRICE, log_x=True, log_y=True)
    letters = "".join(c if c.isalnum() else "-" for c in figure)
    return Chart(
        f"sweep-{letters}",
        f"Price against {figure.split(',', maxsplit=1)[0]}",
        "One point of the sweep each, as simulated; what was varied stands where the pointer rests.",
        shown,
        known[["point", *(key for key in keys if key in known), figure, PRICE]],
    )
