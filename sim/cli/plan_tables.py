"""What `tokenworks plan` shows: the answer first, then why the others lost, then what it hangs on."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sim.catalog.validated import in_words
from sim.cli.tables import plain_table
from sim.cli.terminal import number, percent, seconds, usd

Json = Mapping[str, Any]
MOST_SHOWN = 12
"""Runners-up on the terminal; the files have all."""


def answer(plan: Json) -> Iterator[RenderableType]:
    """The whole answer, part by part."""
    best = plan["best"]
    yield from _headline(plan, best)
    if best is not None:
        yield ""
        yield _plans(plan)
        yield from _details(best)
        yield from (Text(one["says"]) for one in plan["gpu_prices"])
    yield ""
    yield _runners_up(plan)
    if plan["sensitivity"]:
        yield ""
        yield (
            "What the answer hangs on, its margin kept:"
            if any(plan["best"]["margin"].values())
            else "What the answer hangs on:"
        )
        yield _sensitivity(plan)
    if plan["break_even"]:
        yield ""
        yield from _break_even(plan)
    yield ""
    yield _ledger(plan)


def _headline(plan: Json, best: Json | None) -> Iterator[Text]:
    traffic = plan["traffic"]
    load = f"{number(traffic['peak_per_s'])} requests/s at the peak"
    if traffic["mean_per_s"] != traffic["peak_per_s"]:
        load += f", {number(traffic['mean_per_s'])} on the mean"
    yield Text.assemble((f"{plan['name']}: ", "bold"), f"{load} ({traffic['basis']})")
    for one in plan["out_of_reach"]:
        yield Text(f"  {one['says']}", style="bold red")
    if best is None:
        yield Text("  no candidate holds", style="bold red")
        return
    kept = best["meets_objectives"]
    what = "" if kept else "closest: "
    yield Text(
        f"  {what}{usd(best['usd_per_hour'])} per hour, {usd(best['usd_per_million']['blended'])} per million tokens: "
        f"{built(best)}",
        style="bold green" if kept else "bold",
    )
    for one in best["objectives"]:
        said = "kept" if one["kept"] else "missed"
        where = "" if kept else " by the whole plan at the peak"
        yield Text(
            f"  objective {one['label']} <= {seconds(one['bound_s'])}: {said} ({seconds(one['found_s'])}{where})",
            style="green" if one["kept"] else "bold red",
        )


def built(one: Json) -> str:
    """`2 x (1 x 8 prefill ... : 1 x 16 decode ...) on h200_sxm: 48 GPUs (48 paid for)`."""
    paid = f", {one['gpus_paid']} paid for" if one["stranded"] else ""
    return f"{one['replicas']} x [{one['name']}]: {one['gpus']} GPUs{paid}"


PLANS = {
    "best": "with the expected error as margin", "without_margin": "without it", "n_plus_1": "with a worker to spare",
}  # fmt: skip
WITHOUT = "no margin can be kept"


def _plans(plan: Json) -> Table:
    table = plain_table()
    shown = {title: plan[key] for key, title in PLANS.items() if plan[key]}
    if not plan["best"]["with_margin"]:
        shown = {WITHOUT: plan["best"], PLANS["n_plus_1"]: plan["n_plus_1"]}
    table.add_column("")
    for title in shown:
        table.add_column(title, justify="right", overflow="fold")
    lines = {
        "GPUs, of these paid for and unused": lambda p: f"{p['gpus_paid']:,}, {p['stranded']}",
        "replicas": lambda p: str(p["replicas"]),
        "workers": lambda p: " : ".join(
            f"{v['workers']} x {v['gpus']} {r}" for r, v in p["deployment"].items()
        ),
        "per hour": lambda p: usd(p["usd_per_hour"]),
        "per million tokens, blended": lambda p: usd(p["usd_per_million"]["blended"]),
        "  input, cache hit": lambda p: usd(p["usd_per_million"]["input_cache_hit"]),
        "  input, cache miss": lambda p: usd(p["usd_per_million"]["input_cache_miss"]),
        "  output": lambda p: usd(p["usd_per_million"]["output"]),
    }
    for label, write in lines.items():
        table.add_row(label, *(write(one) for one in shown.values()))
    return table


def _details(best: Json) -> Iterator[Text]:
    idle = ", ".join(f"{role} {percent(share)}" for role, share in (best["idle_at_mean"] or {}).items())
    yield Text(f"Idle at the mean load: {idle or '-'}")
    yield Text(
        f"Fills first: {best['limited_by']} ({best['limit']}); relieved by {best['relief'] or 'more of it'}"
    )
    yield Text(f"A replica alone holds {_held(best)}; what ends it: {best['ends_at'] or '-'}")
    if (rate := best["output_tokens_per_s"]) is not None:
        per_gpu = number(best["output_tokens_per_s_per_gpu"])
        yield Text(f"At the peak {number(rate)} output tokens/s, {per_gpu} per GPU")
    if best["alone"]:
        yield Text(best["alone"]["says"], style="bold")
    yield Text(f"Priced at {price(best['price'])}")
    assumed = ", assumed: the file names none (engine: NAME, or search: {engine: [...]})"
    yield Text(f"Engine: {best['engine']['name']}{assumed if best['engine']['assumed'] else ''}")
    measured = (best["priced_by"] or {}).get("measured")
    yield Text(f"Measured: {percent(measured)} of the simulated GPU time")
    margin = ", ".join(f"{m} {percent(e)}" for m, e in best["margin"].items() if e)
    yield Text(f"Expected error: {in_words(best['expected_error'])}; margin: {margin or '-'}")
    if best["repaired"]:
        yield Text(
            f"At full traffic {best['repaired']} more replicas were needed than one replica alone told"
        )
    if best["simulated_share"] < 1:
        yield Text(
            f"At full traffic {percent(best['simulated_share'])} of the replicas were simulated, with their share"
        )


def _held(best: Json) -> str:
    """`17.2 requests/s as simulated, 15.5 with the throughput margin of 10% kept`."""
    said = f"{number(best['held_per_s'])} requests/s as simulated"
    if not best["meets_objectives"]:
        said += ", with what is out of reach relaxed to about what is reached"
    if margin := best["margin"]["throughput"]:
        said += f", {number(best['usable_per_s'])} with the throughput margin of {percent(margin)} kept"
    return said


def price(one: Json) -> str:
    """`$2.05 per GPU-hour, rent_3yr as of 2026-07 (SemiAnalysis ...), 8 bought at once`."""
    dated = f" as of {one['as_of']}" if one["as_of"] else ""
    dated += f": {one['note']}" if one["note"] else ""
    more = one["overhead_fraction"]
    paid = usd(one["usd_per_gpu_hour"] * (1 + more))
    on_top = (
        f"; {percent(more)} on top for what is not GPUs (price.overhead_fraction): {paid}" if more else ""
    )
    return (
        f"{usd(one['usd_per_gpu_hour'])} per GPU-hour, {one['tier']}{dated} ({one['source']}), "
        f"{one['bought_at_once']} bought at once{on_top}"
    )


def _runners_up(plan: Json) -> Table:
    table = plain_table()
    for title in ("candidate", "GPUs", "per hour", "why not"):
        table.add_column(title, overflow="fold", justify="right" if title in ("GPUs", "per hour") else "left")
    for one in plan["candidates"][:MOST_SHOWN]:
        at_least = ">= " if one["at_best"] else ""
        why = one["why_not"] or "the best"
        table.add_row(
            one["name"], f"{at_least}{one['gpus_paid']}", f"{at_least}{usd(one['usd_per_hour'])}", why
        )
    return table


def _sensitivity(plan: Json) -> Table:
    table = plain_table()
    for title in ("if", "changes", "per million tokens", "GPUs", "then the best is"):
        table.add_column(title, overflow="fold")
    for one in plan["sensitivity"]:
        if one["best_changes"] is None:
            table.add_row(one["input"], one["change"], "-", "-", "none of the best few holds")
            continue
        who = one["best"] if one["best_changes"] else "the same"
        at_most = "at most " if one["at_most"] else ""
        table.add_row(
            one["input"], one["change"], f"{at_most}{usd(one['usd_per_million'])}", str(one["gpus"]), who
        )
    return table


def _break_even(plan: Json) -> Iterator[Text]:
    for one in plan["break_even"]:
        verb = "beats" if one["owning_wins"] else "does not beat"
        now = usd(one["usd_per_gpu_hour"])
        rate, holds = number(one["rate_per_s_at_least"]), number(one["holds_per_s"])
        enough = (
            f" (now {now}), or at {rate} requests/s on the mean, of {holds} that these GPUs hold"
            if one["load_is_enough"]
            else f"; at {now}, as now, it takes {rate} requests/s on the mean, and these GPUs hold {holds}"
        )
        yield Text(
            f"Serving it yourself {verb} {one['provider']} ({usd(one['usd_per_million'])} per million tokens of this "
            f"mix{_at_hours(one)}, {one['as_of']}): equal at {usd(one['usd_per_gpu_hour_at_most'])} per GPU-hour"
            f"{_without_overhead(plan['best']['price'])}{enough}"
        )


def _without_overhead(one: Json) -> str:
    return f" without the {percent(one['overhead_fraction'])} on top" if one["overhead_fraction"] else ""


def _at_hours(one: Json) -> str:
    """The prices of some hours, and how much of the load pays them."""
    told = [
        f"; {usd(price['usd_per_million'])} for {percent(price['load_share'])} of the load, at UTC {price['hours_utc']}"
        for price in one["by_hour"] or ()
        if price["hours_utc"]
    ]
    return "".join(told)


def _ledger(plan: Json) -> Text:
    done = plan["ledger"]
    state = "complete" if done["complete"] else "cut short: the budget of simulated requests ran out"
    return Text(
        f"{done['screened']:,} candidates of {done['estimated']} workers screened, {done['simulated']} simulated "
        f"({done['simulated_requests']:,} requests), {done['failed']} failed; {state}; seed {done['seed']}, "
        f"{done['wall_s']:.0f} s",
        style="dim",
    )


def rows(plan: Json) -> Iterator[dict[str, Any]]:
    """The candidates as rows of a CSV file."""
    for one in plan["candidates"]:
        prices = {f"usd_per_million_{kind}": value for kind, value in one["usd_per_million"].items()}
        found = {o["objective"]: o["found_s"] for o in one["objectives"]}
        keys = ("name", "gpu", "kind", "replicas", "gpus", "gpus_paid", "stranded", "usd_per_hour")
        simulated = {
            f"{of}_{p}_s": (one["latency"] or {}).get(f"{of}_s", {}).get(p)
            for of in ("ttft", "tpot")
            for p in ("p50", "p99")
        }
        rates = {k: one[k] for k in ("output_tokens_per_s", "output_tokens_per_s_per_gpu")}
        more = ("at_best", "held_per_s", "limited_by", "meets_objectives", "why_not")
        yield {
            **{k: one[k] for k in keys},
            **prices,
            **rates,
            **simulated,
            **found,
            **{k: one[k] for k in more},
        }
