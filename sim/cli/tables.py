"""What the commands show to a person: dictionaries in, text and tables out. Knows no simulator.

The headline comes first, every number has its unit, every price names its tier, and what the numbers rest on
(measured or analytic) stands below them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sim.catalog.validated import in_words
from sim.cli.day_table import day
from sim.cli.terminal import number, percent, seconds, usd
from sim.cost.latency import PRICED_BY
from sim.report import said
from sim.result.objectives import judged
from sim.scenario import anchor

Json = Mapping[str, Any]


class RunRow(NamedTuple):
    """One line of a table: what a person reads, where it stands in the JSON, how it is written."""

    label: str
    path: tuple[str, ...]
    written: Callable[[float | None], str] = number


def _latency(label: str, key: str) -> list[RunRow]:
    return [RunRow(f"{label} {p}", ("latency", key, p), seconds) for p in ("p50", "p90", "p99")]


TTFT_PARTS = {
    "queue_s": "in the queue",
    "prefill_s": "prefill",
    "transfer_s": "transfer of the KV cache",
    "admission_s": "waiting for a seat or KV cache",
    "first_step_s": "from there to the first token",
}

SECTIONS: Mapping[str, Sequence[RunRow]] = {
    "Requests": [
        RunRow("arrived", ("requests", "arrived")),
        RunRow("completed", ("requests", "completed")),
        RunRow("rejected, can never fit", ("requests", "rejected")),
        RunRow("asked again, because their worker failed", ("requests", "retried")),
        RunRow("input tokens", ("tokens", "input")),
        RunRow("of these from the prefix cache", ("tokens", "input_cached")),
        RunRow("share from the prefix cache", ("prefix_cache", "hit_rate"), percent),
        RunRow("found in HBM", ("prefix_cache", "hbm_tokens")),
        RunRow("found in host memory", ("prefix_cache", "host_tokens")),
        RunRow("found on disk", ("prefix_cache", "disk_tokens")),
        RunRow("output tokens", ("tokens", "output")),
    ],
    "Throughput": [
        RunRow("output tokens/s", ("throughput", "output_tokens_per_s")),
        RunRow("output tokens/s per GPU", ("throughput", "output_tokens_per_s_per_gpu")),
        RunRow("output tokens/s per decode GPU", ("throughput", "output_tokens_per_s_per_decode_gpu")),
        RunRow("input tokens/s per prefill GPU", ("throughput", "input_tokens_per_s_per_prefill_gpu")),
        RunRow(
            "client: output tokens/s, first arrival to last answer",
            ("throughput", "client", "output_tokens_per_s"),
        ),
        RunRow("client: input and output tokens/s", ("throughput", "client", "total_tokens_per_s")),
        RunRow("client: from first arrival to last answer", ("throughput", "client", "duration_s"), seconds),
        RunRow("tokens per decode step and sequence", ("speculation", "accept_length")),
        RunRow("requests/s that meet the objectives", ("goodput_requests_per_s",)),
    ],
    "Latency": [
        *_latency("TTFT", "ttft_s"),
        RunRow("TTFT mean", ("latency", "ttft_s", "mean"), seconds),
        *(
            RunRow(f"of this {label}", ("latency", "ttft_breakdown", key), seconds)
            for key, label in TTFT_PARTS.items()
        ),
        *_latency("TPOT", "tpot_s"),
        *_latency("end to end", "e2e_s"),
    ],
    "Load": [
        RunRow("GPUs", ("gpus",)),
        RunRow("paid for but unused: the tier sells whole nodes or racks", ("cost", "stranded_gpus")),
        RunRow("prefill pool not idle", ("utilization", "prefill"), percent),
        RunRow("decode pool not idle", ("utilization", "decode"), percent),
        RunRow("serving pool not idle", ("utilization", "serve"), percent),
        RunRow("KV cache in use, peak", ("utilization", "kv_cache_peak"), percent),
    ],
    "Capacity, estimated without queues": [
        RunRow("requests/s that fill it", ("capacity", "requests_per_s")),
        RunRow("load: arrivals / that", ("capacity", "load"), percent),
        RunRow("price per million tokens when full, blended", ("capacity", "usd_per_million_blended"), usd),
    ],
    "Price per million tokens at this load": [
        RunRow("input, cache hit", ("cost", "usd_per_million", "input_cache_hit"), usd),
        RunRow("input, cache miss", ("cost", "usd_per_million", "input_cache_miss"), usd),
        RunRow("output", ("cost", "usd_per_million", "output"), usd),
        RunRow("blended", ("cost", "usd_per_million", "blended"), usd),
        RunRow("all of it, per hour", ("cost", "usd_per_hour"), usd),
        RunRow("of this storage of cached prefixes", ("cost", "storage_usd_per_hour"), usd),
    ],
    "Public API price per million tokens": [
        RunRow("maker, input, cache hit", ("api", "official", "input_cache_hit"), usd),
        RunRow("maker, input, cache miss", ("api", "official", "input_cache_miss"), usd),
        RunRow("maker, output", ("api", "official", "output"), usd),
        RunRow("others, input, cache miss, lowest", ("api", "lowest", "input_cache_miss"), usd),
        RunRow("others, output, lowest", ("api", "lowest", "output"), usd),
        RunRow("others, output, median", ("api", "median", "output"), usd),
    ],
    "Simulated GPU time priced by": [RunRow(kind, ("priced_by", kind), percent) for kind in PRICED_BY],
}


def _at(run: Json, path: Sequence[str]) -> float | None:
    value: Any = run
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def runs(by_name: Mapping[str, Json], api_prices: Mapping[str, Sequence[Json]]) -> Iterator[RenderableType]:
    """One run, or several side by side with ratios to the first.

    `api_prices`: what providers charge for each model, to set beside the simulated cost.
    """
    beside = {
        name: {**run, "api": offers(api_prices[run["scenario"]["model"]])} for name, run in by_name.items()
    }
    for run in beside.values():
        if not any(judged(run)):
            run["goodput_requests_per_s"] = None  # nothing was promised
    for name, run in beside.items():
        yield headline(name, run)
        yield from promises(run)
    yield ""
    yield _side_by_side(beside)
    yield ""
    for name, run in beside.items():
        if run.get("hours"):
            yield Text(f"{name}, by hour", style="bold")
            yield day(run)
            yield ""
    for name, run in beside.items():
        yield f"{name}: {basis(run)}"


def headline(name: str, run: Json) -> Text:
    """The answer in two lines: price with its tier, throughput, latency; before them, whether it holds at all."""
    scenario = run["scenario"]
    text = Text.assemble((f"{name}: ", "bold"))
    if run["stable"] is False:
        text.append(
            "stable: no (the backlog grows). Waits grow for as long as requests arrive, so they have no percentiles; "
            "add workers or lower the load. At this limit:\n  ",
            style="bold red",
        )
    blended = usd(_at(run, ("cost", "usd_per_million", "blended")))
    load = _at(run, ("capacity", "load"))
    at_load = f" at {percent(load)} of capacity" if load is not None and run["stable"] else ""
    if at_load and load is not None and load > 1:
        at_load += ", as estimated: only a longer run tells whether the backlog grows"
    if ends(run):
        at_load = (
            f", paid until the last answer, after {seconds(_at(run, ('throughput', 'client', 'duration_s')))}"
        )
    text.append(f"{blended} per million tokens at {tier(run)}{at_load}", style="bold")
    text.append(
        f"\n  {_file_name(scenario['model'])} on {run['gpus']} GPUs {_file_name(scenario['gpu'])}{_paid(run)}, "
        f"engine {scenario['engine']}: "
    )
    text.append(f"{number(_at(run, ('throughput', 'output_tokens_per_s')))} output tokens/s")
    for label, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")):
        p50, p99 = (_at(run, ("latency", key, p)) for p in ("p50", "p99"))
        if p99 is not None:
            text.append(f", {label} p50 {seconds(p50)}, p99 {seconds(p99)}")
    return text


def ends(run: Json) -> bool:
    """Whether this is work that ends, told as a whole, rather than a service that goes on."""
    return run["stable"] is None


def _stable(run: Json) -> RenderableType:
    if ends(run):
        return "ends: told over the whole run"
    return "yes" if run["stable"] else Text("no: the backlog grows", style="bold red")


def _file_name(name: str) -> str:
    """A name of the catalog as it is, a file without its folders."""
    return Path(name).name


def _paid(run: Json) -> str:
    """The GPUs that are bought along, where whole nodes or racks hold more than are used."""
    cost = run["cost"]
    return f" ({number(cost['bought_gpus'])} paid for)" if cost["stranded_gpus"] else ""


def promises(run: Json) -> Iterator[Text]:
    """Each objective of the scenario: kept or missed."""
    for one in said.promises(run, seconds):
        yield Text(f"  {one.text}", style="green" if one.kept else "bold red")


def basis(run: Json) -> str:
    """What the price rests on."""
    cost = run["cost"]
    return (
        f"{tier(run)} as of {cost['as_of'] or 'the scenario'}, {percent(cost['overhead_fraction'])} overhead, "
        f"{percent(cost['margin'])} margin; {cost['source']}"
    )


def offers(prices: Sequence[Json]) -> Json:
    """A model's public API prices in short: the maker's latest, and the lowest and median of all others; of those that
    change by the hour the one of most hours."""
    kinds = ("input_cache_hit", "input_cache_miss", "output")
    prices = [price for price in prices if not price.get("hours_utc")]
    by_date = sorted((price for price in prices if price["official"]), key=lambda price: str(price["as_of"]))
    short: dict[str, dict[str, float | None]] = {}
    if by_date:
        short["official"] = {kind: by_date[-1][f"{kind}_usd_per_million"] for kind in kinds}
    others = [price for price in prices if not price["official"]]
    for name, pick in (("lowest", min), ("median", median)):
        known = {
            kind: [value for p in others if (value := p[f"{kind}_usd_per_million"]) is not None]
            for kind in kinds
        }
        short[name] = {kind: pick(values) if values else None for kind, values in known.items()}
    return short


def tier(run: Json) -> str:
    """The GPU price that a result rests on; nothing moves the result more."""
    cost, asked = run["cost"], run["scenario"]["price"]
    name = cost.get("tier") or asked.get("tier") or "the scenario's own price"
    per_hour = cost.get("usd_per_gpu_hour") or asked.get("usd_per_gpu_hour")
    return f"{name} ({usd(per_hour)} per GPU-hour)" if per_hour else str(name)


def plain_table() -> Table:
    return Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))


def _side_by_side(by_name: Mapping[str, Json]) -> Table:
    table = plain_table()
    table.add_column("")
    for index, name in enumerate(by_name):
        table.add_column(name, justify="right", overflow="fold")
        if index:
            table.add_column("ratio", justify="right")
    shown = list(by_name.values())
    for title, rows in SECTIONS.items():
        known = {row: values for row in rows if any(values := [_at(run, row.path) for run in shown])}
        if known:
            table.add_row(Text(title, style="bold"))
            for row, values in known.items():
                table.add_row(f"  {row.label}", *_cells(row, values))
            table.add_row("")
    table.add_row(Text("Fills first", style="bold"), *_spread([said.fills_first(run) for run in shown]))
    table.add_row(Text("Stable", style="bold"), *_spread([_stable(run) for run in shown]))
    table.add_row(
        Text("Expected error", style="bold"), *_spread([in_words(run.get("expected_error")) for run in shown])
    )
    if any("anchor" in run for run in shown):
        told = [anchor.in_words(run["anchor"]) if "anchor" in run else "-" for run in shown]
        table.add_row(Text("Anchor", style="bold"), *_spread(told))
    return table


def _cells(row: RunRow, values: Sequence[float | None]) -> list[str]:
    cells = [row.written(values[0])]
    for value in values[1:]:
        ratio = f"{value / values[0]:.2f}x" if value is not None and values[0] else "-"
        cells += [row.written(value), ratio]
    return cells


def _spread(cells: Sequence[RenderableType]) -> list[RenderableType]:
    """One cell per run, with the ratio columns left empty."""
    return [cells[0], *(part for cell in cells[1:] for part in (cell, ""))]
