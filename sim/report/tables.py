"""Results as tables for people: one row per thing shown, units in the headings. What charts are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from sim.price import TokenPrices
from sim.report import said
from sim.steady import OperatingPoint, SteadyState
from sim.units import GB_BYTES, MILLISECOND_S

Json = Mapping[str, Any]

PRICES: Final = {
    "input_cache_hit": "input, cache hit",
    "input_cache_miss": "input, cache miss",
    "output": "output",
}
"""What is sold, in the order of a price list."""
USD: Final = "USD per million tokens"
PERCENTILES: Final = ("p50", "p90", "p99")
STABLE: Final = {True: "yes", False: "no", None: "ends"}
"""Whether a service keeps up, in a word; None is work that ends before that can be told."""
TTFT_PARTS: Final = {
    "queue_s": "queue",
    "prefill_s": "prefill",
    "transfer_s": "KV transfer",
    "admission_s": "admission",
    "first_step_s": "first step",
}
INTERACTIVITY: Final = "tokens/s per user"
PER_GPU: Final = "output tokens/s per GPU"


def at(run: Json, *path: str) -> Any:
    """What stands at a path in the JSON of a run; None where it, or anything on the way to it, is missing or null."""
    value: Any = run
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def curve_table(state: SteadyState) -> pd.DataFrame:
    """The steady state's curve from light load to capacity."""
    return pd.DataFrame([_point(point) for point in state.curve])


def point_table(points: Mapping[str, tuple[str, OperatingPoint]]) -> pd.DataFrame:
    """Operating points of steady states: name -> (kind, point)."""
    return pd.DataFrame([{"name": n, "kind": kind, **_point(p)} for n, (kind, p) in points.items()])


def _point(point: OperatingPoint) -> dict[str, float | None]:
    return {
        INTERACTIVITY: point.interactivity,
        PER_GPU: point.output_tokens_per_s_per_gpu,
        "requests/s": point.requests_per_s,
        "batch per rank": point.batch,
        "TPOT, ms": point.tpot_s / MILLISECOND_S,
        "TTFT, s": point.ttft_s,
        f"blended, {USD}": point.price.usd_per_million.blended,
    }


def run_point(run: Json) -> dict[str, float | None]:
    """The same point of a simulated run; None where it was not stable."""
    tpot_s = at(run, "latency", "tpot_s", "mean")
    return {
        INTERACTIVITY: 1 / tpot_s if tpot_s else None,
        PER_GPU: at(run, "throughput", "output_tokens_per_s_per_gpu"),
        "TPOT, ms": tpot_s / MILLISECOND_S if tpot_s else None,
        "TTFT, s": at(run, "latency", "ttft_s", "mean"),
        f"blended, {USD}": at(run, "cost", "usd_per_million", "blended"),
    }


def price_table(prices: Mapping[tuple[str, str], TokenPrices | Json]) -> pd.DataFrame:
    """Prices of services: (name, kind) -> prices. Columns: name, kind (estimate, simulation), sold, USD per million."""
    rows = [
        {
            "name": name,
            "kind": kind,
            "sold": label,
            USD: getattr(one, key) if isinstance(one, TokenPrices) else at(one, key),
        }
        for (name, kind), one in prices.items()
        for key, label in PRICES.items()
    ]
    return pd.DataFrame(rows, columns=["name", "kind", "sold", USD]).dropna(subset=[USD])


def api_table(api: pd.DataFrame) -> pd.DataFrame:
    """Public API prices from `sim.api_prices`, in the same long form: name (provider), official, sold, price. Of lists
    that change by the hour the prices of most hours, as in a run's table."""
    columns = {f"{key}_usd_per_million": label for key, label in PRICES.items()}
    kept = api[api["hours_utc"].isna()].rename(columns=columns)
    table = kept.melt(
        id_vars=["model", "provider", "official", "as_of", "source"],
        value_vars=list(columns.values()),
        var_name="sold",
        value_name=USD,
    )
    return table.dropna(subset=[USD]).rename(columns={"provider": "name"})


def latency_table(runs: Mapping[str, Json]) -> pd.DataFrame:
    """Percentiles of the latencies of runs: name, latency, percentile, seconds (None where not stable)."""
    labels = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "end to end"}
    return pd.DataFrame(
        [
            {"name": name, "latency": label, "percentile": p, "seconds": at(run, "latency", key, p)}
            for name, run in runs.items()
            for key, label in labels.items()
            for p in PERCENTILES
        ]
    )


def memory_table(state: SteadyState) -> pd.DataFrame:
    """What the memory of one GPU of each pool is spent on, GB."""
    rows = []
    for role, plan in state.deployment.pools.items():
        memory = plan.memory
        parts = {
            "weights": memory.weights_bytes,
            "activations, graphs, buffers": memory.reserve_bytes,
            "KV cache": memory.kv_cache_bytes,
        }
        left = memory.memory_bytes - sum(parts.values())
        parts["unused"] = max(0.0, left)
        rows += [{"pool": role, "part": part, "GB": size / GB_BYTES} for part, size in parts.items() if size]
    return pd.DataFrame(rows)


def ttft_table(runs: Mapping[str, Json]) -> pd.DataFrame:
    """Where the mean TTFT of runs goes, one row per run, ms; the parts add up to it. None where there is none."""
    return pd.DataFrame(
        [
            {
                "scenario": name,
                "TTFT mean, ms": _ms(at(run, "latency", "ttft_s", "mean")),
                **{
                    f"{label}, ms": _ms(at(run, "latency", "ttft_breakdown", key))
                    for key, label in TTFT_PARTS.items()
                },
            }
            for name, run in runs.items()
        ]
    )


def headline_table(runs: Mapping[str, Json]) -> pd.DataFrame:
    """The numbers that a comparison is about, one row per run."""
    rows = []
    for name, run in runs.items():
        rows.append(
            {
                "scenario": name,
                "GPUs": at(run, "gpus"),
                "output tokens/s": at(run, "throughput", "output_tokens_per_s"),
                PER_GPU: at(run, "throughput", "output_tokens_per_s_per_gpu"),
                "TTFT p50, s": at(run, "latency", "ttft_s", "p50"),
                "TTFT p99, s": at(run, "latency", "ttft_s", "p99"),
                **{
                    f"TTFT mean, {label}, s": at(run, "latency", "ttft_breakdown", key)
                    for key, label in TTFT_PARTS.items()
                },
                "TPOT p50, ms": _ms(at(run, "latency", "tpot_s", "p50")),
                "TPOT p99, ms": _ms(at(run, "latency", "tpot_s", "p99")),
                "goodput, requests/s": at(run, "goodput_requests_per_s"),
                "stable": STABLE[at(run, "stable")],
                "load": said.share(at(run, "capacity", "load")),
                "capacity, requests/s": at(run, "capacity", "requests_per_s"),
                "fills first": said.fills_first(run),
                **{
                    f"{label}, USD/M": at(run, "cost", "usd_per_million", key)
                    for key, label in PRICES.items()
                },
                "blended, USD/M": at(run, "cost", "usd_per_million", "blended"),
                "blended when full, USD/M": at(run, "capacity", "usd_per_million_blended"),
                "USD per hour": at(run, "cost", "usd_per_hour"),
                "overhead": said.share(at(run, "cost", "overhead_fraction")),
                "price tier": at(run, "cost", "tier"),
            }
        )
    return pd.DataFrame(rows)


def overview_table(services: Sequence[tuple[str, SteadyState | None, Json | None]]) -> pd.DataFrame:
    """One row per service: (name, estimate, JSON of its simulation). What was simulated comes from the simulation.

    Columns without any value are left out.
    """
    rows = []
    for name, state, run in services:
        if run is not None:
            sold = at(run, "cost", "usd_per_million")
            figures = {
                "stable": STABLE[at(run, "stable")],
                PER_GPU: at(run, "throughput", "output_tokens_per_s_per_gpu"),
                "TTFT, s": at(run, "latency", "ttft_s", "mean"),
                "TPOT, ms": _ms(at(run, "latency", "tpot_s", "mean")),
                "TTFT p99, s": at(run, "latency", "ttft_s", "p99"),
                "TPOT p99, ms": _ms(at(run, "latency", "tpot_s", "p99")),
            }
        elif state is not None:
            point = state.point
            sold = asdict(point.price.usd_per_million)
            figures = {
                "stable": STABLE[state.stable],
                PER_GPU: point.output_tokens_per_s_per_gpu,
                "TTFT, s": point.ttft_s,
                "TPOT, ms": _ms(point.tpot_s),
                "TTFT p99, s": None,
                "TPOT p99, ms": None,
            }
        else:
            continue
        kinds = {"blended": "blended", **PRICES}
        rows.append(
            {
                "scenario": name,
                "from": "estimate" if run is None else "simulation",
                "GPUs": at(run, "gpus") if run else state.deployment.gpus if state else None,
                **{f"{label}, USD/M": at(sold, key) for key, label in kinds.items()},
                **figures,
                "load": state.load if state and not (run and at(run, "stable") is None) else None,
            }
        )
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / MILLISECOND_S
