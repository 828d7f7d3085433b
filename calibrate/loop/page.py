"""The loop as a page: the table, and both timelines of every load."""

from collections.abc import Sequence
from html import escape
from statistics import median

import pandas as pd
import plotly.graph_objects as go

from calibrate.loop.closing import AS_IS, Closed, Repeat
from calibrate.loop.served import METRICS, Served
from sim.report.html import chart_part, document, table_part
from sim.report.look import GREY, SERIES, Chart

WAITING, ANSWERING = GREY, SERIES[0]
REQUEST_PIXELS = 7
"""A request's row, of each side."""


def page(closed: Closed, device: str, loads: Sequence[str]) -> str:
    """A standalone HTML page."""
    title = "The loop closed on " + device
    rates = ", ".join(f"{name} {rate:.3g} requests/s" for name, rate in closed.rates.items())
    effects = pd.DataFrame([one.json() for one in closed.effects])
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='says'>Predicted by the simulator from measured steps, against the same requests served for real: "
        f"{escape(rates)}.</p>",
        table_part(pd.DataFrame([one.json() for one in closed.cases])),
        "<h2>Effects</h2><p class='says'>With the mechanism over without it.</p>",
        table_part(effects),
        *(chart_part(_timelines(name, typical(closed.repeats[AS_IS, name]))) for name in loads),
    ]
    return document(title, body)


def typical(repeats: Sequence[Repeat]) -> Repeat:
    """The repeat whose measured throughput is nearest to the median."""
    each = [measured.figures()["throughput"] for _, measured in repeats]
    return min(zip(repeats, each, strict=True), key=lambda one: abs(one[1] - median(each)))[0]


def _timelines(load: str, repeat: Repeat) -> Chart:
    """Both sides of a repeat, one above the other."""
    figure = go.Figure()
    predicted, measured = repeat
    for side, served in (("predicted", predicted), ("measured", measured)):
        _bars(figure, side, served)
    figure.update_layout(
        barmode="overlay",
        height=200 + 2 * REQUEST_PIXELS * len(predicted.arrival_s),
        xaxis={"title": "seconds since the beginning"},
        yaxis={"showticklabels": False, "autorange": "reversed", "title": "requests, by arrival"},
    )
    rows = [
        {"side": side, **one.figures()} for side, one in zip(("predicted", "measured"), repeat, strict=True)
    ]
    table = pd.DataFrame(rows).rename(columns=METRICS)
    says = "Predicted above, measured below, a row a request: grey until its first token, then coloured."
    return Chart(f"timeline-{load}", f"Timelines: {load}", says, figure, table)


def _bars(figure: go.Figure, side: str, served: Served) -> None:
    rows = [f"{number}, {side}" for number in range(len(served.arrival_s))]
    colour = ANSWERING if side == "predicted" else SERIES[1]
    spans = (
        ("waits for its first token", served.arrival_s, served.first_s, WAITING),
        ("is answered", served.first_s, served.finish_s, colour),
    )
    for what, begin_s, end_s, fill in spans:
        figure.add_bar(
            y=rows, x=end_s - begin_s, base=begin_s, orientation="h", marker_color=fill, name=f"{side}: {what}",
            hovertemplate="%{y}: %{base:.3f} s for %{x:.3f} s",
        )  # fmt: skip
