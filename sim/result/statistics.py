"""From a run's record to its per-request table and the numbers of its JSON."""

from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import catalog
from sim.cluster.record import RunRecord
from sim.cluster.staff import copies, mean_gpus, most_gpus
from sim.cluster.window import can_tell_growth, tokens_in_window, window_length_s
from sim.cost.latency import PRICED_BY
from sim.result.books import Books
from sim.result.totals import LATENCIES, Totals, latencies
from sim.scenario.schema import Scenario


def request_columns(record: RunRecord) -> dict[str, NDArray[Any]]:
    """The record's request table, the `latencies` that follow from it, and `counted`: arrived after the warm-up, so
    that the request counts in statistics.

    Raises RowsNotKeptError where the scenario asks for a summary.
    """
    table = record.requests
    return {
        "id": np.arange(len(table.arrival_s)),
        **vars(table),
        **({"retries": record.life.retries} if record.life else {}),
        **latencies(table),
        "counted": table.arrival_s >= record.window_s[0],
    }


def summary(
    record: RunRecord, known: Books, cost: dict[str, Any], expected_error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON of a run, but for what identifies it to the reader: plain Python numbers, None where undefined.

    Requests, tokens and latencies are those of requests that arrived after the warm-up; throughput and utilisation
    those of the measurement window; goodput counts the requests that finish in it and keep every objective, whenever
    they arrived. `basis` says what the window is: a steady one, or the whole run. An unstable service has no
    latencies: they depend on how long it lasted. Work that ends has those of all its requests.
    """
    totals, stable = known.totals, is_stable(record, known)
    good = known.good(record.window_s) if window_length_s(record) else 0
    return {
        "scenario": record.scenario.model_dump(mode="json", exclude_none=True),
        "seed": record.seed,
        "version": metadata.version("tokenworks"),
        "catalog_date": catalog.catalog_date(),
        "requests": {
            "arrived": totals.arrived,
            "completed": totals.completed,
            "rejected": totals.rejected,
            "in_flight": totals.arrived - totals.completed - totals.rejected,
            **({"retried": totals.retried} if record.life else {}),
        },
        "tokens": {
            "input": totals.input_tokens,
            "input_cached": totals.cached_tokens,
            "output": totals.generated_tokens,
        },
        "prefix_cache": prefix_cache(record.scenario, totals),
        "speculation": speculation(record),
        "gpus": most_gpus(record),
        "window_s": [float(edge_s) for edge_s in record.window_s],
        "basis": "steady window" if record.steady else "whole run",
        "throughput": {**throughput(record), "client": client(totals, copies(record))},
        "latency": {
            **{
                name: {
                    **known.percentiles(name, stable is not False),
                    "ci": known.intervals(name) if stable else None,
                }
                for name in LATENCIES
            },
            "ttft_breakdown": ttft_breakdown(totals, stable is not False),
        },
        "goodput_requests_per_s": _per_second(float(good) * copies(record), record),
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


def prefix_cache(scenario: Scenario, totals: Totals) -> dict[str, Any] | None:
    """Share of the computed requests' prompt tokens that were cached, and how many tokens each tier held.

    None where nothing looked for prefixes. Tokens that the workload's `cached_fraction` declares cached were in no
    simulated tier.
    """
    given = scenario.workload.cached_fraction is not None
    if not given and not scenario.prefix_cache.enabled:
        return None
    prompt, cached = totals.input_tokens, totals.cached_tokens
    host, disk = totals.cached_host_tokens, totals.cached_disk_tokens
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


def client(totals: Totals, copies: float) -> dict[str, float | None]:
    """What the client of a benchmark prints of the requests that count: all their tokens over the time from the first
    arrival to the last completion. None where nothing was completed."""
    if not totals.completed:
        return dict.fromkeys(("output_tokens_per_s", "total_tokens_per_s", "duration_s"))
    duration_s = totals.last_finish_s - totals.first_arrival_s
    output, prompts = totals.generated_tokens * copies, totals.input_tokens * copies
    return {
        "output_tokens_per_s": output / duration_s if duration_s else None,
        "total_tokens_per_s": (output + prompts) / duration_s if duration_s else None,
        "duration_s": duration_s,
    }


def ttft_breakdown(totals: Totals, known: bool = True) -> dict[str, float | None]:
    """Where the mean TTFT of the completed requests goes, seconds, as `parts_of_ttft` has it; the parts add up to it.
    None without requests, or where not `known`."""
    return {
        name: s / totals.completed if known and totals.completed else None
        for name, s in totals.breakdown_s.items()
    }


def is_stable(record: RunRecord, known: Books) -> bool | None:
    """Whether the service kept up with its arrivals; None for work that ended before that could be told.

    A closed loop always does: nobody sends faster than served.
    """
    requests = record.requests if record.summary is None else record.summary
    came_s = requests.arrivals_s()
    if _is_open_loop(record.scenario) and came_s is not None:
        arrivals_s = (record.window_s[0], came_s[1])
        if (record.steady or can_tell_growth(requests, arrivals_s)) and known.grows(arrivals_s):
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
