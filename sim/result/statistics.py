"""From a run's record to its per-request table and the numbers of its JSON."""

from importlib import metadata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim import catalog
from sim.cluster.record import RunRecord
from sim.cluster.staff import copies, mean_gpus, most_gpus
from sim.cluster.window import can_tell_growth, tokens_in_window, window_length_s, within
from sim.cost.latency import PRICED_BY
from sim.result.percentiles import intervals, percentiles
from sim.result.stability import backlog_grows
from sim.scenario.schema import Objectives, Scenario

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LATENCIES: Final = ("ttft_s", "tpot_s", "e2e_s")


def request_columns(record: RunRecord) -> dict[str, NDArray[Any]]:
    """The record's request table and the latencies that follow from it; NaN where they do not exist.

    - `ttft_s`: arrival to the first token at the client;
    - `e2e_s`: arrival to the last token;
    - `tpot_s`: (e2e - TTFT) / (output - 1); none for one token;
    - `counted`: arrived after the warm-up, so that the request counts in statistics.
    """
    table = record.requests
    ttft_s = table.first_token_s - table.arrival_s
    e2e_s = table.finish_s - table.arrival_s
    gaps = np.where(table.output_tokens > 1, table.output_tokens - 1.0, np.nan)
    return {
        "id": np.arange(len(table.arrival_s)),
        **vars(table),
        **({"retries": record.life.retries} if record.life else {}),
        "ttft_s": ttft_s,
        "tpot_s": (e2e_s - ttft_s) / gaps,
        "e2e_s": e2e_s,
        "counted": table.arrival_s >= record.window_s[0],
    }


def summary(
    record: RunRecord, cost: dict[str, Any], expected_error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON of a run, but for what identifies it to the reader: plain Python numbers, None where undefined.

    Requests, tokens and latencies are those of requests that arrived after the warm-up; throughput and utilisation
    those of the measurement window; goodput counts the requests that finish in it and keep every objective, whenever
    they arrived. `basis` says what the window is: a steady one, or the whole run. An unstable service has no
    latencies: they depend on how long it lasted. Work that ends has those of all its requests.
    """
    table, columns = record.requests, request_columns(record)
    counted = columns["counted"]
    completed = counted & ~np.isnan(table.finish_s)
    rejected = counted & table.rejected
    served = counted & ~np.isnan(table.prefill_end_s)
    stable = is_stable(record)
    good = meets(record.scenario.objectives, columns) & within(table.finish_s, record.window_s)
    return {
        "scenario": record.scenario.model_dump(mode="json", exclude_none=True),
        "seed": record.seed,
        "version": metadata.version("tokenworks"),
        "catalog_date": catalog.catalog_date(),
        "requests": {
            "arrived": int(counted.sum()),
            "completed": int(completed.sum()),
            "rejected": int(rejected.sum()),
            "in_flight": int((counted & ~completed & ~rejected).sum()),
            **({"retried": int(record.life.retries[counted].sum())} if record.life else {}),
        },
        "tokens": {
            "input": int(table.input_tokens[served].sum()),
            "input_cached": int(table.cached_tokens[served].sum()),
            "output": int(table.generated_tokens[counted].sum()),
        },
        "prefix_cache": prefix_cache(record, served),
        "speculation": speculation(record),
        "gpus": most_gpus(record),
        "window_s": [float(edge_s) for edge_s in record.window_s],
        "basis": "steady window" if record.steady else "whole run",
        "throughput": {**throughput(record), "client": client(record, counted)},
        "latency": {
            **{
                name: {
                    **percentiles(columns[name][completed], stable is not False),
                    "ci": intervals(columns[name][completed]) if stable else None,
                }
                for name in LATENCIES
            },
            "ttft_breakdown": ttft_breakdown(record, completed & (stable is not False)),
        },
        "goodput_requests_per_s": _per_second(float(good.sum()) * copies(record), record),
        "stable": stable,
        "utilization": {
            **{role: _utilization(record, role) for role in ("prefill", "decode", "serve")},
            "kv_cache_peak": max((pool.kv_cache_peak for pool in record.pools.values()), default=None),
        },
        "cost": cost,
        "priced_by": priced_by(record.priced_gpu_s),
        "expected_error": expected_error,
        "invariants": record.invariants,
        "wall_s": record.wall_s,
        "events": record.events,
    }


def prefix_cache(record: RunRecord, served: Flags) -> dict[str, Any] | None:
    """Share of the prompt tokens of `served` requests that were cached, and how many tokens each tier held.

    None where nothing looked for prefixes. Tokens that the workload's `cached_fraction` declares cached were in no
    simulated tier.
    """
    scenario, table = record.scenario, record.requests
    given = scenario.workload.cached_fraction is not None
    if not given and not scenario.prefix_cache.enabled:
        return None
    prompt, cached = int(table.input_tokens[served].sum()), int(table.cached_tokens[served].sum())
    host, disk = (int(tier[served].sum()) for tier in (table.cached_host_tokens, table.cached_disk_tokens))
    return {
        "hit_rate": cached / prompt if prompt else None,
        "hbm_tokens": 0 if given else cached - host - disk,
        "host_tokens": host,
        "disk_tokens": disk,
        "given_tokens": cached if given else 0,
    }


def speculation(record: RunRecord) -> dict[str, Any] | None:
    """Drafts per step at most, and tokens per decode step and sequence, counted over the run; None without drafts.

    The first token of an answer comes from prefill and does not count; the last step of an answer may have accepted
    more than was asked for, which does not count either.
    """
    drafts = record.scenario.speculation.draft_tokens
    if not drafts:
        return None
    tokens = sum(pool.decoded_tokens for pool in record.pools.values())
    steps = sum(pool.sequence_steps for pool in record.pools.values())
    return {"draft_tokens": drafts, "accept_length": tokens / steps if steps else None}


def throughput(record: RunRecord) -> dict[str, float | None]:
    """Tokens of the measurement window over its length, cached ones included; see `tokens_in_window`.

    Rates per pool are None for aggregated serving.
    """
    tokens = tokens_in_window(record)
    output = _per_second(tokens.output * copies(record), record)
    prompt = _per_second((tokens.cached + tokens.uncached) * copies(record), record)
    gpus = mean_gpus(record)
    everything = None if output is None or prompt is None else output + prompt

    def per_gpu(rate: float | None, count: float | None) -> float | None:
        return rate / count if rate is not None and count else None

    return {
        "output_tokens_per_s": output,
        "output_tokens_per_s_per_gpu": per_gpu(output, sum(gpus.values())),
        "output_tokens_per_s_per_decode_gpu": per_gpu(output, gpus.get("decode")),
        "input_tokens_per_s_per_prefill_gpu": per_gpu(prompt, gpus.get("prefill")),
        "total_tokens_per_s_per_gpu": per_gpu(everything, sum(gpus.values())),
    }


def client(record: RunRecord, counted: Flags) -> dict[str, float | None]:
    """What the client of a benchmark prints of the `counted` requests: all their tokens over the time from the first
    arrival to the last completion. None where nothing was completed."""
    table = record.requests
    ended_s = table.finish_s[counted & ~np.isnan(table.finish_s)]
    if not len(ended_s):
        return dict.fromkeys(("output_tokens_per_s", "total_tokens_per_s", "duration_s"))
    duration_s = float(ended_s.max() - table.arrival_s[counted].min())
    output = int(table.generated_tokens[counted].sum()) * copies(record)
    prompts = int(table.input_tokens[counted & ~np.isnan(table.prefill_end_s)].sum()) * copies(record)
    return {
        "output_tokens_per_s": output / duration_s if duration_s else None,
        "total_tokens_per_s": (output + prompts) / duration_s if duration_s else None,
        "duration_s": duration_s,
    }


def ttft_breakdown(record: RunRecord, completed: Flags) -> dict[str, float | None]:
    """Where the mean TTFT of the `completed` requests goes, seconds; the parts add up to it. None without requests.

    - `queue_s`: from arrival to the start of the prefill, but for `admission_s`: ingress, the step that runs, the
      prompts before;
    - `prefill_s`: from the prompt's first step to the end of its last, which yields the first token;
    - `admission_s`: waits for room. Before the prefill, the time in which the next prompt of the rank found no KV
      blocks, or, aggregated, no seat; disaggregated, also until a decode rank has both, before the prefill or after it,
      as the engine asks for them;
    - `transfer_s`: disaggregated, the router's relay, and from then until the KV is whole on that rank; aggregated 0;
    - `first_step_s`: disaggregated, from then until the first token leaves for the client: up to the step in which the
      sequence joins, and that step where the engine answers only then; aggregated 0, since the prefill has yielded it
      there.
    """
    t = record.requests
    parts = {
        "queue_s": t.prefill_start_s - t.arrival_s - t.blocked_s,
        "prefill_s": t.prefill_end_s - t.prefill_start_s,
        "transfer_s": t.received_s - t.placed_s,
        "admission_s": t.blocked_s + (t.placed_s - t.prefill_end_s),
        "first_step_s": t.first_token_s - t.received_s,
    }
    return {name: float(s[completed].mean()) if completed.any() else None for name, s in parts.items()}


def meets(objectives: Objectives, columns: dict[str, NDArray[Any]]) -> Flags:
    """Which requests keep every objective that is given; what a request lacks (TPOT of one token) it keeps."""
    limits = {"ttft_s": objectives.ttft_p99_s, "tpot_s": objectives.tpot_p99_s, "e2e_s": objectives.e2e_p99_s}
    kept = np.ones(len(columns["id"]), dtype=bool)
    for name, limit_s in limits.items():
        if limit_s is not None:
            kept &= ~(columns[name] > limit_s)
    return kept


def is_stable(record: RunRecord) -> bool | None:
    """Whether the service kept up with its arrivals; None for work that ended before that could be told.

    A closed loop always does: nobody sends faster than served.
    """
    table = record.requests
    if _is_open_loop(record.scenario) and len(table.arrival_s):
        came, arrivals_s = ~table.rejected, (record.window_s[0], float(table.arrival_s[-1]))
        tells = record.steady or can_tell_growth(table, arrivals_s)
        if tells and backlog_grows(table.arrival_s[came], table.first_token_s[came], arrivals_s):
            return False
    return True if record.steady else None


def priced_by(priced_gpu_s: dict[str, float]) -> dict[str, float]:
    """Shares of simulated GPU time by the source that priced it; they sum to 1 where anything ran."""
    total = sum(priced_gpu_s.values())
    return {source: priced_gpu_s.get(source, 0.0) / total if total else 0.0 for source in PRICED_BY}


def _is_open_loop(scenario: Scenario) -> bool:
    arrivals = scenario.workload.arrivals
    return arrivals is None or (arrivals.closed_loop is None and arrivals.all_at_once is None)


def _utilization(record: RunRecord, role: str) -> float | None:
    pool = record.pools.get(role)
    return None if pool is None else _per_second(pool.busy_in_window_s, record)


def _per_second(amount: float, record: RunRecord) -> float | None:
    """An amount of the window over its length; None where it has none."""
    length_s = window_length_s(record)
    return float(amount / length_s) if length_s else None
