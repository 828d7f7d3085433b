"""Charts of a validation: simulated against published. From `validate --json`."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sim.report.look import GREY, Chart, axes, colour, line, points

Json = Mapping[str, Any]

UNITS: Final = {
    "tpot": "TPOT, s",
    "ttft": "TTFT, s",
    "output_tput_per_gpu": "output tokens/s per GPU",
    "total_tput_per_gpu": "tokens/s per GPU",
    "prefill_tput_per_node": "prefill tokens/s per node",
    "decode_tput_per_node": "decode tokens/s per node",
    "gain": "gain (0.5: half more)",
    "speedup": "tokens/s with drafts over without",
    "slope": "USD per million tokens and million positions",
    "tokens_per_s_per_user": "tokens/s of a user",
    "input_tokens_per_s_per_prefill_node": "input tokens/s per prefill node",
    "output_tokens_per_s_per_decode_node": "output tokens/s per decode node",
    "input_tokens": "input tokens of a day",
    "output_tokens": "output tokens of a day",
    "usd_per_day": "USD a day",
    "bound_tpot": "limit of TPOT, s",
    "bound_nodes": "fewest nodes of an hour",
    "bound_input_tokens_per_s_per_prefill_node": "limit of input tokens/s per prefill node",
    "bound_output_tokens_per_s_per_decode_node": "limit of output tokens/s per decode node",
}
"""Metric -> what its numbers are."""
HALVES: Final = {"test": "held out", "train": "fitted on"}
"""Split -> what it is to a reader: only the first says how far off a prediction is."""
NEITHER: Final = "not split"
SAID: Final = {
    HALVES["test"]: "held out from every fit",
    HALVES["train"]: "which constants were fitted on",
    NEITHER: "of which nobody says that they were held out",
}
"""Half -> the same in a sentence, in the order in which they are told."""
UNTOLD: Final = "not told"
FRAMED, ROOM = 0.98, 1.15
"""Share of the errors that their chart frames, so that a few large ones don't flatten the boxes; and room around."""
COLUMNS: Final = (
    "band", "split", "layout", "point", "model", "gpu", "engine", "precision", "why", "missed", "source",
)  # fmt: skip
"""Columns of a case that it may do without."""


class NotAValidation(ValueError):
    """A file that is no result of `tokenworks validate --json`; says what was expected."""


SHOWN: Final = ("id", "layout", "point", "half", "published", "simulated", "error")
"""Columns of the cases that stand below the chart: a layout names GPU, engine and format already."""


def cases_table(validation: Json) -> pd.DataFrame:
    """The cases as a table.

    Columns: id, metric, published, simulated, error, band, split, layout, gpu, engine, precision, point, model, half
    (`HALVES`).
    Raises NotAValidation.
    """
    cases = validation.get("cases") if isinstance(validation, Mapping) else None
    needed = {"id", "metric", "published", "simulated", "error"}
    if not isinstance(cases, list) or not all(isinstance(c, Mapping) and needed <= c.keys() for c in cases):
        raise NotAValidation("expected the JSON of `tokenworks validate --json`, with a list `cases`")
    shared = validation.get("columns", {})  # what is shipped tells once what the cases of a layout share
    if not isinstance(shared, Mapping) or not all(isinstance(one, Mapping) for one in shared.values()):
        raise NotAValidation("expected the JSON of `tokenworks validate --json`, with `columns` by layout")
    told = [{**shared.get(str(case.get("layout")), {}), **case} for case in cases]
    table = pd.DataFrame(told, columns=None if cases else sorted(needed))
    for column in ("published", "simulated", "error"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    for column in COLUMNS:
        if column not in table:
            table[column] = None
    table["half"] = table.split.map(HALVES).fillna(NEITHER)
    for column in ("model", "gpu", "engine", "precision"):
        table[column] = table[column].replace("", None).fillna(UNTOLD).astype(str)
    return table


def headline(cases: pd.DataFrame, metric: str) -> str:
    """How far off one metric is, in Markdown, a sentence a half and the held-out one first; never pooled."""
    mine = cases[(cases.metric == metric) & cases.error.notna()]
    what = f"of *{UNITS.get(metric, metric)}* for {', '.join(sorted(mine.model.unique()))}"
    said: list[str] = []
    for half, how in SAID.items():
        some = mine[mine.half == half]
        if some.empty:
            continue
        size, plural = some.error.abs(), "s" * (len(some) != 1)
        begins = f"**{len(some):,}** more" if said else f"**{len(some):,}** published value{plural} {what}"
        said.append(
            f"{begins}, {how}: half of them are hit within **{size.median():.1%}**, nine of ten within "
            f"**{size.quantile(0.9):.1%}**; the median of the signed error is **{some.error.median():+.1%}**."
        )
    return "  \n".join(said)


def scatter_chart(cases: pd.DataFrame, metric: str, by: str) -> Chart:
    """Simulated against published values of one metric (`cases_table`), coloured `by` a column."""
    mine = cases[(cases.metric == metric) & (cases.published > 0) & (cases.simulated > 0)]
    unit = UNITS.get(metric, metric)
    figure = go.Figure()
    if len(mine):
        ends = np.array(
            [mine[["published", "simulated"]].min().min(), mine[["published", "simulated"]].max().max()]
        )
        for name, factor, dash in (
            ("equal", 1.0, "solid"),
            ("20% off", 1.2, "dot"),
            ("-20%", 1 / 1.2, "dot"),
        ):
            figure.add_trace(
                line(name, ends, ends * factor, GREY, line={"dash": dash, "width": 1}, hoverinfo="skip",
                     showlegend=name != "-20%")
            )  # fmt: skip
    for i, (kind, group) in enumerate(mine.groupby(by, sort=True)):
        figure.add_trace(
            points(
                str(kind), group.published, group.simulated, colour(i), size=6, marker={"opacity": 0.65},
                customdata=group[["id", "layout", "point", "error"]].fillna("").to_numpy(),
                hovertemplate="%{customdata[1]}<br>%{customdata[2]}<br>published %{x:.4g}, simulated %{y:.4g} "
                "(%{customdata[3]:+.1%})<br>%{customdata[0]}",
            )
        )  # fmt: skip
    return Chart(
        "scatter",
        f"Simulated against measured: {unit}",
        "Each point is a published measurement; on the line the simulation agrees, between the dotted lines it is "
        "less than 20% off.",
        axes(figure, f"measured {unit}", f"simulated {unit}", log_x=True, log_y=True, height=420, wide=True),
        mine[list(SHOWN)],
    )


def error_chart(cases: pd.DataFrame, metric: str) -> Chart:
    """Signed errors of one metric by GPU and engine, as boxes."""
    mine = cases[cases.metric == metric].dropna(subset=["error"])
    figure = go.Figure()
    for i, (engine, group) in enumerate(mine.groupby("engine", sort=True)):
        figure.add_trace(
            go.Box(name=str(engine), x=list(group.gpu), y=list(group.error * 100), boxpoints="outliers",
                   marker={"color": colour(i), "size": 4}, line={"width": 1.5}, hovertemplate="%{x}: %{y:+.1f}%")
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    frame = ROOM * float(mine.error.abs().quantile(FRAMED)) if len(mine) else 1.0
    beyond = int((mine.error.abs() > frame).sum())
    return Chart(
        "errors",
        "Error by GPU and engine",
        "Half of the cases lie inside a box, its line is the median; above zero the simulation says more than was "
        "measured" + (f"; {beyond} of {len(mine):,} lie outside the frame." if beyond else "."),
        axes(
            figure,
            "GPU",
            "simulated / measured - 1, %",
            height=360,
            boxmode="group",
            yaxis={"range": [-100 * frame, 100 * frame]},
        ),
        score_table(mine, ["gpu", "engine"]),
    )


def score_table(cases: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Cases, median and p90 of the absolute error, and bias (median of the signed error) by columns."""
    scored = cases.dropna(subset=["error"]).assign(size=lambda t: t.error.abs())
    groups = scored.groupby(by, sort=True)
    return pd.DataFrame(
        {
            "cases": groups["size"].count(),
            "median error": groups["size"].median(),
            "p90 error": groups["size"].quantile(0.9),
            "bias": groups["error"].median(),
        }
    ).reset_index()


def band_table(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases of which somebody said how far off they may be (`cases_table`), those outside first.

    Columns: case, layout, load, published, simulated, error, from and to (the band; empty where it has no end),
    inside, why so wide, what is known of a miss, source.
    """
    mine = cases[[isinstance(band, list | tuple) and len(band) == 2 for band in cases.band]]
    ends = [
        pd.to_numeric(pd.Series([b[i] for b in mine.band], index=mine.index), errors="coerce") for i in (0, 1)
    ]
    low, high = (end.astype(float) for end in ends)
    inside = ~(mine.simulated < low) & ~(mine.simulated > high)
    table = pd.DataFrame(
        {
            "case": mine.id,
            "layout": mine.layout,
            "load": mine.point,
            "published": mine.published,
            "simulated": mine.simulated,
            "error": mine.error,
            "from": low,
            "to": high,
            "inside": inside,
            "why so wide": mine.why.fillna(""),
            "known of a miss": mine.missed.fillna(""),
            "source": mine.source.fillna(""),
        }
    )
    return table.sort_values("inside", kind="stable").reset_index(drop=True)


TOLD: Final = ("why so wide", "known of a miss")
"""Columns of `band_table` that many cases share, and that are too long for a row of numbers."""


def band_reasons(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """What a column of TOLD says, once for all cases of which it says it. Columns: it, and cases."""
    told = table[table[column] != ""].groupby(column, sort=False).case
    return told.agg(lambda ids: ", ".join(dict.fromkeys(ids))).rename("cases").reset_index()
