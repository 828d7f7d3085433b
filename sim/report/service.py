"""Charts of a service: its speed, its price, its latencies, its memory."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sim.report.look import (
    DASHES,
    GREY,
    PRICED,
    SHARES,
    Chart,
    Trace,
    axes,
    bars,
    colour,
    finish,
    line,
    points,
)
from sim.report.tables import INTERACTIVITY, PER_GPU, PERCENTILES, PRICES, USD
from sim.scenario.schema import Objectives

SYMBOLS: Final = {"estimate": "circle-open", "simulation": "star"}
"""How a point came about, as its mark."""
SOLD: Final = {label: i for i, label in enumerate(PRICES.values())}
"""What is sold, and where it stands in the chart of prices."""
SHIFT: Final = 0.22
"""How far beside its label a price stands: the public ones to the left, this service's to the right."""
DOWNWARDS: Final = {"autorange": "reversed"}
"""An axis of names that reads from the top."""
TIMELINE_POINTS: Final = 3000
"""Requests that the timeline draws at most; evenly picked."""


def throughput_chart(curves: Mapping[str, pd.DataFrame], marked: pd.DataFrame) -> Chart:
    """Throughput against interactivity: a curve per scenario (`curve_table`), points (`point_table`) on top."""
    traces: list[Trace] = []
    names = list(curves)
    hover = (
        "%{customdata[0]:.3g} sequences per rank<br>%{x:.3g} tokens/s per user<br>%{y:.4g} tokens/s per GPU"
        "<br>%{customdata[1]:.3g} requests/s<br>$%{customdata[2]:.3g} per million tokens"
    )
    behind = ["batch per rank", "requests/s", f"blended, {USD}"]
    for i, (name, whole) in enumerate(curves.items()):
        curve = frontier(whole)
        traces.append(
            line(name, curve[INTERACTIVITY], curve[PER_GPU], colour(i), line={"dash": DASHES[i % len(DASHES)]},
                 customdata=curve[behind].to_numpy(), hovertemplate=hover)
        )  # fmt: skip
    shown = marked.dropna(subset=[INTERACTIVITY, PER_GPU])
    for row in shown.to_dict("records"):
        shade = colour(names.index(row["name"])) if row["name"] in names else GREY
        traces.append(
            points(
                f"{row['name']}, {row['kind']}", [row[INTERACTIVITY]], [row[PER_GPU]], shade, SYMBOLS[row["kind"]], 13,
                marker={"line": {"width": 2.5, "color": shade}}, showlegend=False,
                hovertemplate="%{x:.3g} tokens/s per user<br>%{y:.4g} tokens/s per GPU",
            )
        )  # fmt: skip
    traces += _marks(shown.kind.unique())
    table = pd.concat(
        [curve.assign(scenario=name) for name, curve in curves.items()] or [pd.DataFrame()], ignore_index=True
    )
    return Chart(
        "throughput",
        "Throughput against interactivity",
        "As load grows along a line, GPUs yield more tokens and each user sees fewer per second; it begins where load "
        "starts to cost users speed. Marks show the load asked for.",
        axes(traces, "interactivity, tokens/s per user", "output tokens/s per GPU"),
        table,
        terms=("throughput", "interactivity", "estimate", "simulation"),
    )


def frontier(curve: pd.DataFrame) -> pd.DataFrame:
    """The points of a curve (`curve_table`) that no heavier load equals in both tokens per GPU and tokens per user."""
    falling = curve.sort_values([PER_GPU, INTERACTIVITY], ascending=False)
    best = falling[INTERACTIVITY].cummax().shift(fill_value=0.0)
    return falling[falling[INTERACTIVITY] > best].iloc[::-1]


def _marks(kinds: Iterable[str]) -> list[Trace]:
    """What the marks mean, in the legend."""
    return [
        points(kind, [None], [None], GREY, SYMBOLS[kind], 10, marker={"line": {"width": 2, "color": GREY}})
        for kind in kinds
    ]


def public_prices(api: pd.DataFrame) -> list[Trace]:
    """The points of public API prices (`api_table`) in `price_chart`."""
    hover = (
        "%{customdata[0]}, %{customdata[1]}, as of %{customdata[2]}<br>$%{y:.3g} per million<extra></extra>"
    )
    return [
        points(name, listed.sold.map(SOLD) - SHIFT, listed[USD], GREY, symbol, size,
               customdata=listed[["name", "model", "as_of"]].to_numpy(), hovertemplate=hover)
        for name, listed, symbol, size in (
            ("API, other providers", api[~api.official], "line-ew-open", 16),
            ("API, DeepSeek", api[api.official], "diamond", 11),
        )
        if len(listed)
    ]  # fmt: skip


def price_chart(prices: pd.DataFrame, api: pd.DataFrame, public: Sequence[Trace]) -> Chart:
    """Prices (`price_table`) beside public API prices: `api_table`, and its points, which are the same every time."""
    traces = [*public]
    sellers = list(prices.name.unique())
    for (seller, kind), mine in prices.groupby(["name", "kind"], sort=False):
        i = sellers.index(seller)
        traces.append(
            points(f"{seller}, {kind}", mine.sold.map(SOLD) + SHIFT * (i + 1) / len(sellers), mine[USD], colour(i),
                   SYMBOLS[str(kind)], 13, marker={"line": {"width": 2.5, "color": colour(i)}}, showlegend=False,
                   customdata=mine.sold,
                   hovertemplate=f"{seller}, {kind}<br>%{{customdata}}: $%{{y:.3g}} per million<extra></extra>")
        )  # fmt: skip
    for i, seller in enumerate(sellers):
        traces.append(points(str(seller), [None], [None], colour(i), "square", 10))
    traces += _marks(prices.kind.unique())
    figure = axes(traces, "tokens sold", USD, log_y=True, xaxis={
        "tickvals": list(SOLD.values()), "ticktext": list(SOLD), "range": [-0.5, len(SOLD) - 0.5],
    })  # fmt: skip
    table = pd.concat([prices, api.assign(kind="public API")], ignore_index=True)
    return Chart(
        "prices",
        "Price per million tokens",
        "What a million tokens must sell for to pay the GPUs, beside what public APIs charge for the same model.",
        figure,
        table,
        terms=("price tier", "cache hit", "cache miss"),
    )


def latency_chart(
    latencies: pd.DataFrame, names: Sequence[str], objectives: Mapping[str, Objectives]
) -> Chart:
    """Percentiles of TTFT and TPOT (`latency_table`), with what each service promises (`objectives`) as dashed lines.

    names: of all services shown, simulated or not, so that each keeps its colour. What all promise alike is one line.
    """
    figure = make_subplots(cols=2, rows=1, horizontal_spacing=0.24)
    limits = {
        "TTFT": {name: promised.ttft_p99_s for name, promised in objectives.items()},
        "TPOT": {name: promised.tpot_p99_s for name, promised in objectives.items()},
    }
    named = set[str]()
    for column, (latency, unit, scale) in enumerate((("TTFT", "s", 1.0), ("TPOT", "ms", 1e3)), start=1):
        mine = latencies[latencies.latency == latency].dropna(subset=["seconds"])
        for name in latencies.name.unique():
            one = mine[mine.name == name]
            bars = go.Bar(
                name=name,
                x=list(one.percentile),
                y=list(one.seconds * scale),
                marker={"color": colour(names.index(name))},
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate=f"{latency} %{{x}}: %{{y:.3g}} {unit}",
            )
            figure.add_trace(bars, row=1, col=column)
        alike = len(set(limits[latency].values())) == 1
        marks = dict(itertools.islice(limits[latency].items(), 1 if alike else None))
        for name, limit in marks.items():
            if limit is None:
                continue
            title = "objective at p99" if alike else f"objective of {name}"
            mark = line(title, PERCENTILES, [limit * scale] * len(PERCENTILES),
                        GREY if alike else colour(names.index(name)), line={"dash": "dash"}, legendgroup=title,
                        showlegend=title not in named)  # fmt: skip
            figure.add_trace(mark, row=1, col=column)
            named.add(title)
        figure.update_yaxes(title_text=f"{latency}, {unit}", rangemode="tozero", row=1, col=column)
        figure.update_xaxes(categoryorder="array", categoryarray=list(PERCENTILES), row=1, col=column)
    return Chart(
        "latency",
        "Latency percentiles",
        "How long users wait for the first token (TTFT) and between tokens (TPOT): half of them less than p50, "
        "one in a hundred longer than p99.",
        finish(figure),
        latencies.rename(columns={"seconds": "seconds (empty: not stable)"}),
        terms=("TTFT", "TPOT"),
    )


def timeline_chart(requests: pd.DataFrame) -> Chart:
    """Time to first token of each request of a run over its arrival."""
    served = requests.dropna(subset=["ttft_s"])
    shown = served.iloc[:: max(1, len(served) // TIMELINE_POINTS)]
    figure = go.Figure(
        points("requests", shown.arrival_s, shown.ttft_s, colour(0), size=4, marker={"opacity": 0.5},
               customdata=shown[["input_tokens", "output_tokens"]].to_numpy(),
               hovertemplate="arrived at %{x:.1f} s<br>first token after %{y:.3g} s<br>%{customdata[0]} tokens in, "
               "%{customdata[1]} out<extra></extra>")
    )  # fmt: skip
    return Chart(
        "timeline",
        "Waiting over time",
        "Each point is a request: where points climb steadily, requests arrive faster than they are served.",
        axes(figure, "arrival, s", "TTFT, s"),
        shown[["arrival_s", "ttft_s", "tpot_s", "input_tokens", "output_tokens"]],
        terms=("TTFT", "stable"),
    )


def memory_chart(memory: pd.DataFrame) -> Chart:
    """The memory of one GPU of each pool (`memory_table`)."""
    traces = []
    parts = {
        "weights": colour(0),
        "activations, graphs, buffers": GREY,
        "KV cache": colour(2),
        "unused": "#c9ced6",
    }
    for part, shade in parts.items():
        mine = memory[memory.part == part]
        if len(mine):
            told = f"{part}: %{{x:.1f}} GB<extra>%{{y}}</extra>"
            traces.append(bars(part, mine.GB, mine.pool, shade, hovertemplate=told))
    return Chart(
        "memory",
        "Memory of one GPU",
        "Weights and buffers leave the rest to the KV cache, which bounds how many sequences decode together.",
        axes(traces, "GB", "pool", height=100 + 45 * memory.pool.nunique(), barmode="stack", yaxis=DOWNWARDS),
        memory,
        terms=("KV cache",),
    )


def provenance_chart(shares: Mapping[str, Mapping[str, float]]) -> Chart:
    """By what the simulated GPU time of each run was priced."""
    rows = [
        {"name": n, "priced by": k, "share of GPU time": v}
        for n, s in shares.items()
        for k, v in s.items()
        if v is not None
    ]
    table = pd.DataFrame(rows, columns=["name", "priced by", "share of GPU time"])
    traces = []
    for kind, shade in PRICED.items():
        mine = {name: share for name, of_run in shares.items() if (share := of_run.get(kind)) is not None}
        if sum(mine.values()) > 0:
            told = f"{kind}: %{{x:.1%}}<extra>%{{y}}</extra>"
            traces.append(bars(kind, mine.values(), mine, shade, hovertemplate=told))
    figure = axes(traces, "share of GPU time", "", height=100 + 40 * len(shares), barmode="stack",
                  xaxis=SHARES, yaxis=DOWNWARDS)  # fmt: skip
    return Chart(
        "provenance",
        "What the numbers rest on",
        "The share of GPU time whose seconds were measured on silicon, derived from measurements, or only computed "
        "from datasheets.",
        figure,
        table,
        terms=("priced by",),
    )
