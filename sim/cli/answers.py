"""What `run` and `compare` add to a result: what the deployment could carry, and which objectives it kept."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.result import Result

OBJECTIVES = {
    "ttft_p99_s": ("TTFT", "ttft_s"),
    "tpot_p99_s": ("TPOT", "tpot_s"),
    "e2e_p99_s": ("end to end", "e2e_s"),
}
"""Objective -> what a person reads, and the latency that it bounds at p99."""


def answer(result: "Result") -> dict[str, Any]:
    """The JSON of a run with `capacity`: the steady state's estimate of the load at which the deployment is full.

    `load` is the arrivals' share of it, None for work that ends before a load is reached; `usd_per_million_blended`
    the price of a full deployment; both are means without queues, where the simulation has percentiles.
    `limited_by` is the role of the pool that fills first.
    """
    from sim.steady import steady

    record, told = result.record, result.json()
    state = steady(record.scenario)
    capacity = {
        "requests_per_s": state.capacity_requests_per_s,
        "load": None if told["stable"] is None else state.load,
        "limit": state.limit,
        "usd_per_million_blended": state.curve[-1].price.usd_per_million.blended,
    }
    filling = "prefill" if state.limit == "prefill" else "decode"
    limited_by = filling if filling in record.pools else "serve"
    return {**told, "capacity": capacity, "limited_by": limited_by}


def kept(run: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """(what is bounded at p99, the bound in seconds, the p99 or None where the run is unstable) per objective."""
    for key, (label, latency) in OBJECTIVES.items():
        bound = run["scenario"].get("objectives", {}).get(key)
        if bound is not None:
            yield label, bound, run["latency"][latency]["p99"]
