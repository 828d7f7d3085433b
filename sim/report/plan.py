"""A plan as one HTML page, and its charts: the frontier, what the price hangs on, the runners-up."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sim.report.html import chart_part, document, table_part
from sim.report.look import BAD, GOOD, GREY, Chart, axes, colour

Json = Mapping[str, Any]


def page(plan: Json) -> str:
    """The answer of `sim.planner.plan` as a page."""
    body = [
        f"<h1>{escape(plan['name'])}</h1>",
        *_lead(plan),
        table_part(plans_table(plan)),
        *(chart_part(chart) for chart in charts(plan)),
        "<h2>Why the others lost</h2>",
        table_part(candidates_table(plan)),
        *_refused(plan),
        *_break_even(plan),
        *_ledger(plan["ledger"]),
    ]
    return document(plan["name"], body)


def charts(plan: Json) -> list[Chart]:
    """The charts of a plan, as far as it has them."""
    found = [frontier_chart(plan)]
    if plan["sensitivity"]:
        found.append(sensitivity_chart(plan))
    return found


def frontier_chart(plan: Json) -> Chart:
    """USD per million tokens against the speed that one user sees."""
    table = frontier_table(plan)
    figure = go.Figure()
    names = list(dict.fromkeys((row.gpu, row.kind) for row in table.itertuples()))
    for index, (gpu, kind) in enumerate(names):
        for simulated, mode in ((False, "lines+markers"), (True, "markers")):
            some = table[(table.gpu == gpu) & (table.kind == kind) & (table.simulated == simulated)]
            if some.empty:
                continue
            said = "simulated, as paid for" if simulated else "by the estimate, full"
            figure.add_trace(
                go.Scatter(
                    x=some["tokens/s per user"], y=some["USD per million tokens"], mode=mode,
                    name=f"{gpu} {kind}, {said}", text=some["candidate"],
                    marker={"color": colour(index), "symbol": "diamond" if simulated else "circle"},
                    line={"color": colour(index)},
                    hovertemplate="%{text}<br>%{x:.3g} tokens/s, $%{y:.3g}<extra></extra>",
                )
            )  # fmt: skip
    ends = table["USD per million tokens"].agg(["min", "max"])
    for one in plan["objectives"]:
        if one["objective"].startswith(
            "tpot"
        ):  # a line of its own: plotly misplaces the words of a rule on log axes
            figure.add_trace(
                go.Scatter(
                    x=[1 / one["bound_s"]] * 2, y=ends, mode="lines", name=f"objective {one['label']}",
                    line={"color": GREY, "dash": "dash"},
                )
            )  # fmt: skip
    axes(figure, "tokens/s per user", "USD per million tokens", log_x=True, log_y=True, wide=True)
    return Chart(
        "frontier",
        "Price against speed",
        "Each point of the lines is a layout at a load that no other beats in both; diamonds are simulated with "
        "queues, in whole nodes or racks.",
        figure,
        table,
    )


def frontier_table(plan: Json) -> pd.DataFrame:
    """The frontier's points."""
    names = {
        "tokens_per_s_per_user": "tokens/s per user",
        "usd_per_million": "USD per million tokens",
        "name": "candidate",
    }
    return pd.DataFrame(plan["frontier"]).rename(columns=names)


def sensitivity_chart(plan: Json) -> Chart:
    """How the price moves with each input: the widest first."""
    table = sensitivity_table(plan)
    base = plan["best"]["usd_per_million"]["blended"]
    known = table.dropna(subset=["USD per million tokens"])
    width = known.groupby("input")["USD per million tokens"].agg(lambda p: (p - base).abs().max())
    order = width.sort_values().index.tolist()
    figure = go.Figure()
    for sign, name, tint in ((1, "dearer", BAD), (-1, "cheaper", GOOD)):
        some = known[(known["USD per million tokens"] - base) * sign >= 0]
        figure.add_trace(
            go.Bar(
                y=some["input"], x=some["USD per million tokens"] - base, base=base, orientation="h", name=name,
                marker={"color": tint}, text=some["change"], customdata=some["then the best is"],
                hovertemplate="%{y} %{text}: $%{x:.3g}<br>%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(barmode="overlay")
    axes(
        figure, "USD per million tokens", "", wide=True,
        yaxis={"categoryorder": "array", "categoryarray": order},
    )  # fmt: skip
    return Chart(
        "sensitivity",
        "What the price hangs on",
        "Each input moved alone, up and down; the plan is sized again. At most: a candidate that was left may be "
        "cheaper still.",
        figure,
        table,
    )


def sensitivity_table(plan: Json) -> pd.DataFrame:
    """Every change, the price that follows and who would win."""
    return pd.DataFrame(
        {
            "input": one["input"].removesuffix(": slower").removesuffix(": faster"),
            "change": one["change"],
            "USD per million tokens": one["usd_per_million"],
            "at most": "yes" if one["at_most"] else "",
            "GPUs": one["gpus"],
            "then the best is": one["best"] if one["best_changes"] else "the same",
        }
        for one in plan["sensitivity"]
    )


PLANS = {
    "best": "with the expected error as margin", "without_margin": "without it", "n_plus_1": "with a worker to spare",
}  # fmt: skip


def plans_table(plan: Json) -> pd.DataFrame:
    """The plans side by side."""
    columns = {}
    titles = PLANS
    if plan["best"] is not None and not plan["best"]["with_margin"]:
        titles = {"best": "no margin can be kept", "n_plus_1": PLANS["n_plus_1"]}
    for key, title in titles.items():
        if (one := plan[key]) is not None:
            prices = {f"USD per million, {k.replace('_', ' ')}": v for k, v in one["usd_per_million"].items()}
            columns[title] = {
                "GPUs": one["gpus"], "GPUs paid for": one["gpus_paid"], "replicas": one["replicas"],
                "USD per hour": one["usd_per_hour"], **prices,
            }  # fmt: skip
    return pd.DataFrame(columns).reset_index(names="")


def candidates_table(plan: Json) -> pd.DataFrame:
    """The candidates, cheapest first, with what rules each out."""
    return pd.DataFrame(
        {
            "candidate": one["name"],
            "GPUs paid for": one["gpus_paid"],
            "USD per hour": one["usd_per_hour"],
            "at best": "yes" if one["at_best"] else "",
            "why not": one["why_not"] or "the best",
        }
        for one in plan["candidates"]
    )


def _lead(plan: Json) -> Iterator[str]:
    best = plan["best"]
    for one in plan["out_of_reach"]:
        yield f"<p class='bad'>{escape(one['says'])}</p>"
    if best is None:
        yield "<p class='lead bad'>No candidate holds.</p>"
        return
    what = "" if best["meets_objectives"] else "Closest: "
    yield (
        f"<p class='lead'>{what}<b>${best['usd_per_hour']:,.2f} per hour</b>, "
        f"${best['usd_per_million']['blended']:.3g} per million tokens: {best['replicas']} x [{escape(best['name'])}], "
        f"{best['gpus']} GPUs ({best['gpus_paid']} paid for).</p>"
    )
    for one in best["objectives"]:
        said = "kept" if one["kept"] else "<span class='bad'>missed</span>"
        found = "-" if one["found_s"] is None else f"{one['found_s']:.3g} s"
        found += "" if best["meets_objectives"] else " by the whole plan at the peak"
        yield f"<p class='says'>{escape(one['label'])} &le; {one['bound_s']:g} s: {said} ({found})</p>"
    if best.get("alone"):
        yield f"<p class='says'>{escape(best['alone']['says'])}.</p>"
    yield (
        f"<p class='says'>Fills first: {escape(best['limited_by'])} ({escape(best['limit'])}); relieved by "
        f"{escape(best['relief'] or '-')}.</p>"
    )
    price, engine = best["price"], best["engine"]
    assumed = " (assumed)" if engine["assumed"] else ""
    yield (
        f"<p class='says'>Priced at ${price['usd_per_gpu_hour']:.2f} per GPU-hour, and "
        f"{price['overhead_fraction']:.0%} on top for what is not GPUs. Engine: {escape(engine['name'])}{assumed}.</p>"
    )
    yield from (f"<p class='says'>{escape(one['says'])}.</p>" for one in plan.get("gpu_prices", ()))


def _refused(plan: Json) -> Iterator[str]:
    if plan["refused"]:
        table = pd.DataFrame(
            {"GPU": r["gpu"], "pool": r["role"], "worker": _words(r["shape"]), "why not": r["why_not"]}
            for r in plan["refused"]
        )
        yield f"<details><summary>Workers that cannot be</summary>{table_part(table.head(200))}</details>"


def _words(shape: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in shape.items())


def _break_even(plan: Json) -> Sequence[str]:
    if not plan["break_even"]:
        return ()
    table = pd.DataFrame(
        {
            "provider": one["provider"], "USD per million tokens of this mix": one["usd_per_million"],
            "own": one["own_usd_per_million"], "owning wins": "yes" if one["owning_wins"] else "no",
            "even at USD per GPU-hour": one["usd_per_gpu_hour_at_most"],
            "even at requests/s on the mean": one["rate_per_s_at_least"],
            "that the plan's GPUs hold": one["holds_per_s"],
        }
        for one in plan["break_even"]
    )  # fmt: skip
    return (
        "<h2>Own, or the public API</h2>",
        "<p class='says'>A GPU-hour is without what comes on top of it, which is paid for all the same.</p>",
        table_part(table),
    )


def _ledger(done: Json) -> Iterator[str]:
    state = "complete" if done["complete"] else "cut short"
    yield (
        f"<footer>{done['screened']:,} candidates of {done['estimated']:,} workers screened, {done['simulated']} "
        f"simulated ({done['simulated_requests']:,} requests); {state}; seed {done['seed']}, {done['wall_s']:.0f} s; "
        f"catalog of {escape(done['catalog_date'])}.</footer>"
    )
