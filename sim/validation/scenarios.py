"""A row of a published table -> the scenario that repeats it, and what its run says in the terms of the table."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.result import Result
from sim.scenario.errors import Place
from sim.scenario.form import check
from sim.scenario.schema import Scenario
from sim.scenario.tree import graft
from sim.validation.errors import quantile
from sim.validation.launches import launched
from sim.validation.recipes import recipes, settings
from sim.validation.rows import Row

Floats = NDArray[np.float64]

MODEL_FORMAT: Final = "bf16"
"""KV cache of an engine that is told nothing: the model's own format."""
DEFAULT_ROUTER: Final = Scenario.model_fields["router"].default
HABITS: Final = (
    "host_overhead_s", "poll_every_steps", "wait_all_ranks_steps", "gather_prompts_steps", "batch_wait_steps",
    "batch_wait_fill", "prefill_graph_tokens", "whole_prompts", "mix_prompts", "waits_for_prefill_answer",
)  # fmt: skip
"""What a recipe may say about the running engine."""
POOL: Final = ("chunk_tokens", "memory_fraction", "exchange", "moe_backend")
"""What it may say about a pool."""


def scenario_of(row: Row, max_prompts: int, drafts: int | None = None) -> Scenario:
    """The deployment and the benchmark of a row, with at most `max_prompts` prompts.

    A closed loop of `conc` requests over the whole service, whose lengths are uniform between a share of isl and osl
    and the whole; the first `conc` arrive at once. Never fewer than `rounds_at_least` rounds, so that there is a
    steady state to look at. `drafts`: per step, where speculation is on; default the most of `draft_counts`.

    Raises ScenarioError, which names the row, where a value is none of a scenario.
    """
    known = recipes()
    said = settings_of(row)
    bench = known["benchmark"]
    rounds, least = (bench[name]["value"] for name in ("prompts_per_seat", "rounds_at_least"))
    prompts = min(row.conc * rounds, max(max_prompts, row.conc * least))
    share = bench["length_from"]["value"]
    written = graft(
        {
            "model": row.model,
            "gpu": row.hardware,
            "engine": known["engines"][row.engine],
            "engine_version": said.get("engine_version"),
            "deployment": {role: _pool(row, role) for role in row.pools},
            "precision": {
                **known["precisions_of_models"].get(row.model, known["precisions"])[row.precision],
                "kv_cache": said.get("kv_cache", MODEL_FORMAT),
            },
            "speculation": {
                "draft_tokens": max(draft_counts(row)) if drafts is None else drafts,
                **(known["acceptance_of_models"].get(row.model, {}) if row.spec != "none" else {}),
            },
            "experts": known["experts"],
            "router": said.get("router", DEFAULT_ROUTER),
            "scheduling": {k: said[k] for k in HABITS if k in said},
            "workload": {
                "arrivals": {"closed_loop": {"concurrency": row.conc}},
                "lengths": {
                    name: {"uniform": (max(1, int(length * share)), length)}
                    for name, length in (("input", row.isl), ("output", row.osl))
                },
                "requests": prompts,
            },
            # Nothing that is scored depends on it; some GPUs have no default price.
            "price": {"usd_per_gpu_hour": 1.0},
        },
        Place(row.id),
    )
    return check(written, Scenario)


def settings_of(row: Row, role: str = "") -> dict[str, Any]:
    """What the launch scripts in general, the recipe of this very service, and the row itself say of a pool (default:
    the one that decodes); the latter wins."""
    scripts = settings(row.columns(role), row.ran) if row.by_recipe else {}
    return {**scripts, **launched(row, role), **row.said}


def draft_counts(row: Row) -> tuple[int, ...]:
    """Drafts per step: one number where it is known, else the fewest and the most."""
    if row.spec == "none":
        return (0,)
    told = settings_of(row).get("drafts")
    return (told,) if told else tuple(recipes()["drafts"][row.spec])


def _pool(row: Row, role: str) -> dict[str, Any]:
    shape, flags = row.pools[role], settings_of(row, role)
    pool: dict[str, Any] = {
        "workers": shape.workers,
        "gpus": shape.gpus,
        "tp": shape.tp,
        "ep": shape.ep,
        "max_batch_per_gpu": ceil(row.conc / shape.tp),
        "max_batch_per_rank": flags.get("seats"),
    }
    if redundant := flags.get("redundant"):
        pool["experts"] = {**recipes()["experts"], "redundant": redundant}
    return pool | {name: flags[name] for name in POOL if flags.get(name) is not None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated row says: metric and statistic -> value, in seconds or tokens per second and GPU."""

    values: dict[str, dict[str, float]]

    def value(self, metric: str, statistic: str) -> float:
        """The figure that a published one is compared with."""
        return self.values[metric][statistic]


def outcome(result: Result, conc: int, prompts_published: int) -> Outcome:
    """The figures of a run as the benchmark's client would have printed them after `prompts_published` prompts.

    The first `conc` requests start in a burst, all others as one leaves. A run that was cut short has too large a
    share of them: each weighs as its kind does in the full benchmark. Throughput is all tokens over the time from
    the first request to the last answer; a cut run is prolonged at the rate that it had after its burst.
    """
    table = result.requests
    count = len(table)
    weights = np.ones(count)
    if conc < count < prompts_published:
        weights[conc:] = (prompts_published - conc) / (count - conc)
    pools = {role: pool.gpus for role, pool in result.record.pools.items()}
    gpus = sum(pools.values())
    values: dict[str, dict[str, float]] = {}
    for metric, column in (("tpot", "tpot_s"), ("ttft", "ttft_s")):
        seconds = table[column].to_numpy(dtype=np.float64)
        there = ~np.isnan(seconds)
        if not there.any():  # answers of one token have no TPOT
            continue
        values[metric] = {
            "p50": quantile(seconds[there], weights[there], 0.5),
            "mean": float(np.average(seconds[there], weights=weights[there])),
        }
    lasted_s = duration_s(table["finish_s"].to_numpy(dtype=np.float64), conc, prompts_published)
    tokens = {name: float((table[name] * weights).sum()) for name in ("input_tokens", "output_tokens")}
    decoding = pools.get("decode", gpus)  # the table counts answers per GPU that generates them
    values["output_tput_per_gpu"] = {"rate": tokens["output_tokens"] / lasted_s / decoding}
    values["total_tput_per_gpu"] = {"rate": sum(tokens.values()) / lasted_s / gpus}
    return Outcome(values)


def duration_s(finish_s: Floats, conc: int, prompts: int) -> float:
    """Seconds from the first request to the last answer, had there been `prompts` of them.

    Those that are missing come at the steady rate: of the answers after the first `conc`, which all began in one
    burst, up to the last at full concurrency. A run of two rounds or fewer has none but those of the burst.
    """
    ends = np.sort(finish_s)
    count = len(ends)
    if count >= prompts:
        return float(ends[-1])
    # With `count` requests the last start is the end number count - conc: until then all seats are taken.
    last = max(count - conc, 1)
    first = conc if last > conc else 0
    rate = (last - first) / (ends[last] - ends[first])
    return float(ends[-1] + (prompts - count) / rate)
