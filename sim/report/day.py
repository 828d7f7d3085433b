"""A day by hour, as a chart."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sim.report.look import BAD, GREY, Chart, colour, finish, line

Json = Mapping[str, Any]


def hour_table(hours: Sequence[Json]) -> pd.DataFrame:
    """One row per hour of a run's `hours`, units in the headings. Columns without any value are left out."""
    rows = [
        {
            "hour": h["hour"],
            "requests/s": h["requests_per_s"],
            **{f"{role} workers up": count for role, count in h["workers"].items()},
            "GPU-hours": h["gpu_hours"],
            "USD": h["usd"],
            "USD per million tokens": h["usd_per_million"],
            "TTFT p99, s": h["ttft_s"]["p99"],
            "TPOT p99, s": h["tpot_s"]["p99"],
            "missed an objective": h["missed"],
            "share missed": h["missed_share"],
            "asked again": h["retried"],
            "workers failed": h["failures"],
        }
        for h in hours
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def day_chart(hours: Sequence[Json]) -> Chart:
    """Load and workers above, cost and what went wrong below, over the hours of a run in which requests still came."""
    whole = hour_table(hours)
    table = whole[: max(1, int((whole["requests/s"] > 0).to_numpy().nonzero()[0].max(initial=0)) + 1)]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12, specs=[[{"secondary_y": True}]] * 2
    )
    load = go.Scatter(x=table.hour, y=table["requests/s"], name="requests/s", fill="tozeroy", mode="lines",
                      line={"color": GREY, "shape": "hv"})  # fmt: skip
    figure.add_trace(load, row=1, col=1)
    for i, heading in enumerate(h for h in table.columns if h.endswith("workers up")):
        steps = line(heading, table.hour, table[heading], colour(i), line={"shape": "hv"})
        figure.add_trace(steps, row=1, col=1, secondary_y=True)
    figure.add_trace(
        line("USD an hour", table.hour, table.USD, colour(2), line={"shape": "hv"}), row=2, col=1
    )
    for heading, shade in (("missed an objective", BAD), ("asked again", colour(1))):
        if heading in table and table[heading].any():
            bars = go.Bar(
                x=table.hour, y=table[heading], name=f"requests: {heading}", marker={"color": shade}
            )
            figure.add_trace(bars, row=2, col=1, secondary_y=True)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero", row=1, col=1, secondary_y=False)
    figure.update_yaxes(title_text="workers", rangemode="tozero", row=1, col=1, secondary_y=True)
    figure.update_yaxes(title_text="USD an hour", rangemode="tozero", row=2, col=1, secondary_y=False)
    figure.update_yaxes(title_text="requests", rangemode="tozero", row=2, col=1, secondary_y=True)
    figure.update_yaxes(
        tickmode="auto", showgrid=False, secondary_y=True
    )  # round numbers, not the other axis's lines
    figure.update_xaxes(title_text="hour", row=2, col=1)
    return Chart(
        "day",
        "By hour",
        "Load, the workers that served it, what they cost, and the requests that missed an objective or whose worker "
        "failed.",
        finish(figure, height=460, wide=True),
        whole,
    )
