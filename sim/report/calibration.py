"""Measured kernels against the model: tables and charts of a profile, and of records that someone uploads."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sim.catalog import Gpu
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Profile, Table
from sim.cost.record import Record
from sim.kernels import FAMILIES
from sim.report.look import BAD, GOOD, GREY, Chart, axes, colour, line, points
from sim.units import MICROSECOND_S, TERA

MOST_POINTS: Final = 3000
"""Measurements that a chart draws at most; evenly picked."""
MEASURED, MODEL, PROFILE = "measured, us", "fitted form, us", "profile, us"
INTENSITY, RATE = "FLOP per byte", "TFLOP/s"


def points_table(table: Table, profile: Profile) -> pd.DataFrame:
    """Measured shapes of a table with the fitted form's answer: axes, microseconds, error, intensity, FLOP/s, bytes/s.

    Shapes that a table has no fit for have no answer (NaN).
    """
    family = FAMILIES[table.kernel]
    stages = family.work(table.shape, table.variant, profile.dims)
    rows = len(table.seconds)
    work = family.traffic(table.shape, table.variant, profile.dims)
    flop, moved = (np.broadcast_to(amount, rows).astype(float) for amount in work)
    model = table.fit.form.seconds_each(stages, rows) if table.fit else np.full(rows, np.nan)
    return pd.DataFrame(
        {
            **{axis: table.shape[axis] for axis in family.axes},
            MEASURED: table.seconds / MICROSECOND_S,
            MODEL: model / MICROSECOND_S,
            "error": model / table.seconds - 1,
            INTENSITY: flop / moved,
            RATE: flop / table.seconds / TERA,
            "TB/s": moved / table.seconds / TERA,
        }
    )


def held_out_table(profile: Profile) -> pd.DataFrame:
    """Held-out error of every table and axis of a profile: what the model makes of shapes that it has not seen."""
    rows = [
        {
            "kernel": table.kernel,
            "table": table.key,
            "method": table.fit.method,
            "axis left out": axis,
            "median error": errors["median"],
            "p90 error": errors["p90"],
            "shapes": int(errors.get("shapes", 0)),
            "noise": table.fit.noise,
            "source": table.source,
        }
        for kernel in profile.kernels
        for table in profile.tables(kernel)
        if table.fit
        for axis, errors in table.fit.held_out.items()
    ]
    columns = (
        "kernel",
        "table",
        "method",
        "axis left out",
        "median error",
        "p90 error",
        "shapes",
        "noise",
        "source",
    )
    return pd.DataFrame(rows, columns=list(columns))


def records_table(records: Iterable[Record], profile: Profile) -> pd.DataFrame:
    """Uploaded measurements beside what a profile says about their shapes.

    Columns: kernel, dtype, options, shape, measured, the profile's microseconds, error, how (measured, fitted, ...;
    empty where the profile has no such table), source. Failed measurements are left out.
    """
    rows = []
    for record in records:
        if not record.ok or record.us_median is None:
            continue
        said, how = _priced(record, profile)
        rows.append(
            {
                "kernel": record.operation,
                "dtype": record.dtype,
                "options": ", ".join(f"{k}={v}" for k, v in sorted(record.options.items())),
                "shape": ", ".join(f"{k}={v:g}" for k, v in record.shape.items()),
                MEASURED: record.us_median,
                PROFILE: said,
                "error": said / record.us_median - 1,
                "how": how,
                "source": record.source or str(record.environment.get("gpu", "")),
            }
        )
    columns = "kernel", "dtype", "options", "shape", MEASURED, PROFILE, "error", "how", "source"
    return pd.DataFrame(rows, columns=list(columns))


def _priced(record: Record, profile: Profile) -> tuple[float, str]:
    for table in profile.tables(record.operation):
        wanted = {
            **record.options,
            **({"backend": record.backend} if record.backend == table.backend else {}),
        }
        options = table.variant.options
        if table.fit and table.variant.dtype == record.dtype and options.items() <= wanted.items():
            try:
                seconds, how = PricedTable(table, profile.dims).seconds(record.shape)
            except KeyError:  # the record lacks an axis of the table
                continue
            return seconds / MICROSECOND_S, how
    return float("nan"), ""


def fit_chart(table: pd.DataFrame, model: str = MODEL, uploaded: bool = False) -> Chart:
    """Model against measurement, both logarithmic (`points_table` or `records_table`)."""
    shown = table.dropna(subset=[model]).iloc[:: max(1, len(table) // MOST_POINTS)]
    figure = go.Figure()
    if len(shown):
        ends = [
            min(shown[MEASURED].min(), shown[model].min()),
            max(shown[MEASURED].max(), shown[model].max()),
        ]
        for name, factor, dash in (
            ("equal", 1.0, "solid"),
            ("10% off", 1.1, "dot"),
            ("-10%", 1 / 1.1, "dot"),
        ):
            figure.add_trace(
                line(name, ends, [e * factor for e in ends], GREY, line={"dash": dash, "width": 1},
                     hoverinfo="skip", showlegend=name != "-10%")
            )  # fmt: skip
    around = [column for column in shown.columns if column not in (MEASURED, model, "source")]
    lines = [f"{column}: %{{customdata[{i}]}}" for i, column in enumerate(around)]
    figure.add_trace(
        points("measured shapes", shown[MEASURED], shown[model], colour(0), size=5, marker={"opacity": 0.55},
               customdata=shown[around].round(4).to_numpy(),
               hovertemplate="measured %{x:.4g} us, model %{y:.4g} us<br>" + "<br>".join(lines) + "<extra></extra>")
    )  # fmt: skip
    who = "a measurement of yours, predicted" if uploaded else "a measured shape that the form alone predicts"
    return Chart(
        "uploaded" if uploaded else "fit",
        "Uploaded measurements against the profile" if uploaded else "Fitted form against measurement",
        f"A point on the line is {who} exactly; dotted lines are 10% off.",
        axes(figure, "measured, us", model, log_x=True, log_y=True),
        table,
    )


def roofline_chart(table: pd.DataFrame, gpu: Gpu, dtype: str) -> Chart:
    """Rate against arithmetic intensity under the roof of the datasheet (`points_table`)."""
    worked = table[table[RATE] > 0]
    shown = worked.iloc[:: max(1, len(worked) // MOST_POINTS)]
    peak = gpu.flop_per_s(dtype if dtype in ("bf16", "fp8", "nvfp4") else "bf16") or gpu.bf16_flop_per_s
    knee = peak / gpu.memory_bytes_per_s
    low, high = min([knee / 30, *shown[INTENSITY]]), max([knee * 30, *shown[INTENSITY]])
    figure = go.Figure(
        line(f"roof of {gpu.name}, {dtype}", [low, knee, high],
             [low * gpu.memory_bytes_per_s / TERA, peak / TERA, peak / TERA], GREY,
             hovertemplate="%{y:.4g} TFLOP/s at %{x:.3g} FLOP per byte")
    )  # fmt: skip
    figure.add_trace(
        points("measured shapes", shown[INTENSITY], shown[RATE], colour(0), size=5, marker={"opacity": 0.55},
               customdata=shown[[MEASURED, "TB/s"]].to_numpy(),
               hovertemplate="%{y:.4g} TFLOP/s, %{customdata[1]:.3g} TB/s<br>%{customdata[0]:.4g} us<extra></extra>")
    )  # fmt: skip
    return Chart(
        "roofline",
        "Roofline",
        "Left of the knee a kernel waits for memory, right of it for arithmetic; the distance to the roof is what its "
        "implementation leaves unused.",
        axes(figure, "arithmetic intensity, FLOP per byte", "TFLOP/s", log_x=True, log_y=True),
        worked[[INTENSITY, RATE, "TB/s", MEASURED]],
        terms=("roofline",),
    )


def bandwidth_chart(table: pd.DataFrame) -> Chart:
    """Bytes per second against bytes, for kernels without arithmetic (exchange, collectives)."""
    moved = table["TB/s"] * table[MEASURED] * 1e6
    shown = table.assign(moved=moved).iloc[:: max(1, len(table) // MOST_POINTS)]
    figure = go.Figure(
        points("measured shapes", shown.moved / 1e6, shown["TB/s"] * 1e3, colour(0), size=6,
               customdata=shown[[MEASURED]].to_numpy(),
               hovertemplate="%{x:.3g} MB in %{customdata[0]:.4g} us: %{y:.4g} GB/s<extra></extra>")
    )  # fmt: skip
    return Chart(
        "bandwidth",
        "Bandwidth reached",
        "Small messages are bound by latency; large ones approach the bandwidth of the link.",
        axes(figure, "MB sent per GPU", "GB/s per GPU", log_x=True, log_y=True),
        shown[["moved", "TB/s", MEASURED]],
    )


def held_out_chart(table: pd.DataFrame) -> Chart:
    """Held-out error by table: the worst axis counts (`held_out_table`)."""
    worst = table.sort_values("median error").groupby("table", sort=False).tail(1).sort_values("median error")
    figure = go.Figure()
    for name, column, symbol in (("median", "median error", "circle"), ("p90", "p90 error", "line-ns-open")):
        figure.add_trace(
            points(name, worst[column] * 100, worst.table, GOOD if name == "median" else BAD, symbol, 10,
                   customdata=worst[["axis left out", "shapes", "method"]].to_numpy(),
                   hovertemplate="%{y}<br>%{x:.1f}% when values of %{customdata[0]} are left out<br>"
                   "%{customdata[1]} shapes, %{customdata[2]}")
        )  # fmt: skip
    figure = axes(figure, "error on shapes left out, %", "", height=90 + 18 * len(worst), wide=True,
                  xaxis={"rangemode": "tozero"})  # fmt: skip
    return Chart(
        "held-out",
        "Held-out error by operation",
        "How far off the model is on measurements that it has not seen: half of them less than the dot, nine of ten "
        "less than the bar; the worst axis of each table is shown.",
        figure,
        table,
        terms=("held-out error",),
    )
