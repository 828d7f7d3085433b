"""Charts of one step: where its time goes, what bounds it, what priced it. From `explain --json`."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from sim.report.look import BAD, BOUND, GOOD, GREY, GROUP, PRICED, SHARES, Chart, axes

Json = Mapping[str, Any]

LEAST_SHARE: Final = 0.004
"""Operations below this share of the step are drawn together."""
COLOURS: Final = {"bound": BOUND, "priced_by": PRICED, "group": GROUP}
READABLE: Final = {"minsize": 10, "mode": "hide"}
"""Names inside bars: written where there is room, else left to the pointer."""
REST: Final = "small ones together"
BESIDE: Final = "less: runs beside others"
HOST: Final = "waits for the host to launch"
"""What lies between the operations one after another and the step."""


def operations_table(explained: Json) -> pd.DataFrame:
    """The operations of a step, as they run, with derived rates."""
    table = pd.DataFrame(explained["operations"])
    return table.assign(
        ms=table.seconds * 1e3,
        tflop_per_s=table.flop / table.seconds / 1e12,
        tb_per_s=table.bytes / table.seconds / 1e12,
    )


def waterfall_chart(explained: Json, by: str = "bound") -> Chart:
    """The step, operation by operation, each starting where the one before it ended; coloured `by` a column."""
    table = operations_table(explained)
    shown = table[table.share >= LEAST_SHARE]
    small = table[table.share < LEAST_SHARE]
    figure = go.Figure()
    start = 0.0
    order = []
    for row in shown.to_dict("records"):
        name, n = row["name"], 2
        while name in order:
            name, n = f"{row['name']} ({n})", n + 1
        order.append(name)
        figure.add_trace(
            go.Bar(
                x=[row["ms"]], y=[name], base=[start], orientation="h", showlegend=False,
                marker={"color": COLOURS[by].get(row[by], GREY)},
                hovertemplate=f"{row['name']}, {row['layers']} layers<br>{row['ms']:.3g} ms, {row['share']:.1%}<br>"
                f"{row['flop'] / 1e9:,.4g} GFLOP, {row['bytes'] / 1e9:,.4g} GB<br>bound by {row['bound']}<br>"
                f"{row['priced_by']}: {row['source']}<extra></extra>",
            )
        )  # fmt: skip
        start += row["ms"]
    if len(small):
        order.append(REST)
        figure.add_trace(
            go.Bar(x=[small.ms.sum()], y=[REST], base=[start], orientation="h", showlegend=False,
                   marker={"color": GREY}, hovertemplate=f"{len(small)} operations, %{{x:.3g}} ms<extra></extra>")
        )  # fmt: skip
        start += small.ms.sum()
    for name, seconds, shade in (
        (BESIDE, -explained.get("hidden_s", 0.0), GOOD),
        (HOST, explained.get("launch_wait_s", 0.0), BAD),
    ):
        if abs(seconds) >= LEAST_SHARE * explained["step_s"]:
            order.append(name)
            figure.add_trace(
                go.Bar(x=[seconds * 1e3], y=[name], base=[start], orientation="h", showlegend=False,
                       marker={"color": shade}, hovertemplate=f"{name}: {seconds * 1e3:+.3g} ms<extra></extra>")
            )  # fmt: skip
            start += seconds * 1e3
    figure.add_vline(
        x=explained["step_s"] * 1e3, line={"color": GREY, "dash": "dot"},
        annotation={"text": f"step {explained['step_s'] * 1e3:.3g} ms", "font": {"color": GREY}, "yanchor": "bottom"},
    )  # fmt: skip
    for name in table[by].unique():
        shade = COLOURS[by].get(name, GREY)
        figure.add_trace(
            go.Bar(name=str(name), x=[None], y=[order[0]], marker={"color": shade}, orientation="h")
        )
    figure = axes(figure, "ms since the step began", "", height=80 + 19 * len(order), wide=True,
                  barmode="overlay", bargap=0.25, yaxis=_downwards(order))  # fmt: skip
    words = {"bound": "what it waits for", "priced_by": "where its seconds come from", "group": "its part"}[
        by
    ]
    return Chart(
        "waterfall",
        "Where the step goes",
        f"Each bar is an operation over all its layers, starting where the one before it ended; the colour says "
        f"{words}. Where operations run at the same time, the step is shorter than all of them: dotted line.",
        figure,
        _readable(table),
        terms=("bound", "priced by"),
    )


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """`operations_table` for people: in the order of its columns, in units that keep numbers short."""
    return pd.DataFrame(
        {
            "operation": table.name,
            "layers": table.layers,
            "ms": table.ms,
            "share": table.share,
            "GFLOP": table.flop / 1e9,
            "GB": table.bytes / 1e9,
            "TFLOP/s": table.tflop_per_s,
            "TB/s": table.tb_per_s,
            "bound": table.bound,
            "priced by": table.priced_by,
            "source": table.source,
        }
    )


def shares_chart(explained: Json) -> Chart:
    """Shares of the step by group, by bound and by what priced it: three stacked bars."""
    table = operations_table(explained)
    labels = {"group": "by part", "bound": "bound by", "priced_by": "priced by"}
    figure = go.Figure()
    rows = []
    for column, label in labels.items():
        shares = table.groupby(column).share.sum().sort_values(ascending=False)
        for name, share in shares.items():
            rows.append({"split": label, "part": name, "share of the step": share})
            figure.add_trace(
                go.Bar(
                    x=[share], y=[label], orientation="h", showlegend=False,
                    marker={"color": COLOURS[column].get(str(name), GREY)},
                    text=f"{name} {share:.0%}", textposition="inside",
                    insidetextanchor="middle",
                    hovertemplate=f"{name}: {share:.1%}<extra></extra>",
                )
            )  # fmt: skip
    figure = axes(figure, "share of the step's seconds", "", height=190, wide=True, barmode="stack", bargap=0.3,
                  uniformtext=READABLE, xaxis=SHARES, yaxis=_downwards(list(labels.values())))  # fmt: skip
    return Chart(
        "shares",
        "The step in shares",
        "The same seconds split three ways: by part of the model, by what they wait for, and by where they come from; "
        "the pointer names small parts.",
        figure,
        pd.DataFrame(rows),
        terms=("bound", "priced by"),
    )


def _downwards(names: list[str]) -> dict[str, Any]:
    """An axis with these names from the top."""
    return {"categoryorder": "array", "categoryarray": names[::-1]}
