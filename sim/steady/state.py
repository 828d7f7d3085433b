"""From a scenario to the load at which its service settles, its speed and its price.

Everything is a mean: no queue in front of a busy pool, no burst, no percentile. The simulation has those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.model.deployment import Deployment, deploy
from sim.scenario.schema import Scenario
from sim.simulation import cluster_plan
from sim.steady.demand import Demand, demand_of
from sim.steady.service import Limit, OperatingPoint, Service


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Where a service settles, and the curve that it moves along as its load changes."""

    demand: Demand
    deployment: Deployment
    point: OperatingPoint
    """At the workload's load; at capacity where the load is higher."""
    curve: tuple[OperatingPoint, ...]
    """From light load to capacity."""
    capacity_requests_per_s: float
    limit: Limit
    """What the capacity ends at."""
    stable: bool
    """Whether the capacity suffices for the arrivals."""
    priced_by: Mapping[str, float]
    """Shares of busy GPU time by what priced it, at `point`."""

    @property
    def load(self) -> float:
        """Arrivals over capacity; above 1 the backlog grows."""
        wanted = self.demand.rate_per_s
        return (wanted if wanted is not None else self.point.requests_per_s) / self.capacity_requests_per_s


def steady(scenario: Scenario, demand: Demand | None = None, base_folder: Path | None = None) -> SteadyState:
    """The steady state of a scenario, in tens of milliseconds.

    With W workers of D ranks, T(b) the seconds of a decode step of b sequences per rank, a tokens per sequence and
    step, O output tokens (the first one comes from the prefill), N new prompt tokens, C a chunk, S(n) the seconds
    of a prefill step of n tokens per rank, and r the requests per second (Little's law):

    - disaggregated: TPOT = T(b) / a, r = W D b / (TPOT (O - 1)), and r <= W D C / (S(C) N) of the prefill pool;
      with DSA, S(n) is that of the dense form times the chance that all prompts of the step are short enough for it,
      and of the sparse one times the rest;
    - aggregated: prefill takes the share f = n S of a worker's time with n prefill steps of S seconds per second, so
      TPOT = T(b) / (a (1 - f)) and r as above;
    - prefill steps: prompts that arrive (Poisson, r / W per worker) during a step are computed in the next one, so
      n = 1 / (S + E[exp(-r S / W)] / g), g the steps per second that begin while nobody waits: r / W, or beside
      decode (1 - exp(-r T / W)) / T. S waits for the longest of the k = r / (W n) prompts of a step; where prompts
      ride along in decode steps, f counts what they add;
    - aggregated, answers that are all of one length: those that begin together end together, and leave room for
      prompts that are computed together. In a closed loop b prompts per rank are computed first and b answers then
      generated, r = W D b / (ingress + S(b N) + (O - 1) T(b) / a); an open loop comes to that at its capacity.

    b ends at the batch cap and where b sequences of the mean context fill the KV cache. Prices are those of
    `sim.price` at that rate.
    Raises what `sim.simulate` raises, for the same reasons.
    """
    deployment = deploy(scenario)
    cluster = cluster_plan(scenario, deployment, seed=0)
    room = min(pool.kv_blocks * pool.block_tokens for pool in cluster.pools.values())
    demand = demand or demand_of(scenario, base_folder, min(cluster.max_tokens, room))
    service = Service(scenario, deployment, demand, cluster)
    full, limit = service.full()
    curve = service.curve(full)
    capacity = float(curve["requests_per_s"].max())
    at = {name: float(column[-1]) for name, column in curve.items()}
    if demand.concurrency is not None:
        points = np.arange(len(curve["batch"]))
        stay_s = curve["ttft_s"] + service.decode_tokens * curve["tpot_s"]
        in_flight = np.maximum.accumulate(curve["requests_per_s"] * stay_s)
        place = float(np.interp(demand.concurrency, in_flight, points))
        at = {name: float(np.interp(place, points, column)) for name, column in curve.items()}
    elif demand.rate_per_s is not None and demand.rate_per_s < capacity:
        at = {name: float(c[0]) for name, c in service.at_rates(np.array([demand.rate_per_s])).items()}
    return SteadyState(
        demand=demand,
        deployment=deployment,
        point=service.point(at),
        curve=tuple(
            service.point({name: float(column[i]) for name, column in curve.items()})
            for i in range(len(curve["batch"]))
        ),
        capacity_requests_per_s=capacity,
        limit=limit,
        stable=demand.rate_per_s is None or demand.rate_per_s <= capacity,
        priced_by=service.priced_by(at),
    )
