"""From a scenario to the load at which its service settles, its speed and its price.

Everything is a mean: no queue in front of a busy pool, no burst, no percentile. The simulation has those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.cluster.plan import cluster_plan
from sim.deployment.notes import scenario_notes
from sim.deployment.plan import Deployment, deploy
from sim.scenario.schema import Scenario
from sim.steady.capacity import closed, curve, full, overloaded
from sim.steady.demand import Demand, demand_of
from sim.steady.doubts import doubts
from sim.steady.point import OperatingPoint, point, priced_by, utilization
from sim.steady.service import Limit, Service


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Where a service settles, and the curve that it moves along as its load changes."""

    demand: Demand
    deployment: Deployment
    point: OperatingPoint
    """At the workload's load; at capacity where the load is higher, or below it where overload costs throughput."""
    curve: tuple[OperatingPoint, ...]
    """From light load to capacity."""
    capacity_requests_per_s: float
    limit: Limit
    """What the capacity ends at."""
    stable: bool
    """Whether the capacity suffices for the arrivals."""
    priced_by: Mapping[str, float]
    """Shares of busy GPU time by what priced it, at `point`."""
    utilization: Mapping[str, float]
    """By pool: share of the time in which its workers work, at `point`."""
    doubts: tuple[str, ...]
    """Sentences that say why a simulation may differ from `point` by more than 10%; mostly none."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was decided on the way."""

    @property
    def load(self) -> float:
        """Arrivals over capacity; above 1 the backlog grows."""
        wanted = self.demand.rate_per_s
        return (wanted if wanted is not None else self.point.requests_per_s) / self.capacity_requests_per_s

    def capacity_json(self) -> dict[str, Any]:
        """The `capacity` of a run's JSON: the load at which the deployment is full, and its price there.

        `load` is the arrivals' share of it; means without queues, where the simulation has percentiles.
        """
        return {
            "requests_per_s": self.capacity_requests_per_s,
            "load": self.load,
            "limit": self.limit,
            "usd_per_million_blended": self.curve[-1].price.usd_per_million.blended,
        }

    @property
    def limited_by(self) -> str:
        """Role of the pool that fills first."""
        filling = "prefill" if self.limit == "prefill" else "decode"
        return filling if filling in self.deployment.pools else "serve"

    def outlook(self) -> dict[str, Any]:
        """What a run's JSON takes from the estimate."""
        return {"capacity": self.capacity_json(), "limited_by": self.limited_by}

    def json(self) -> dict[str, Any]:
        """The steady state under the names of a run's JSON, as far as it has them: every latency is a mean."""
        point = self.point
        tpot_s = point.tpot_s if self.demand.output_tokens > 1 else None
        return {
            "estimate": True,
            "gpus": self.deployment.gpus,
            "requests_per_s": point.requests_per_s,
            "throughput": {
                "output_tokens_per_s": point.output_tokens_per_s,
                "output_tokens_per_s_per_gpu": point.output_tokens_per_s_per_gpu,
            },
            "latency": {"ttft_s": {"mean": point.ttft_s}, "tpot_s": {"mean": tpot_s}},
            "stable": self.stable,
            "batch": point.batch,
            "utilization": {**self.utilization, "kv_cache": point.kv_cache_share},
            "cost": point.price.json(),
            **self.outlook(),
            "priced_by": dict(self.priced_by),
            "notes": list(self.notes),
            "doubts": list(self.doubts),
        }


def steady(scenario: Scenario, demand: Demand | None = None, base_folder: Path | None = None) -> SteadyState:
    """The steady state of a scenario, in tens of milliseconds once its steps are priced.

    With W workers of D ranks, T(b) the seconds of a decode step of b sequences per rank, a tokens per sequence and
    step (the first token comes from the prefill, and the last step may generate some in vain), O output tokens, and r
    the requests per second (Little's law):

    - disaggregated: TPOT = T(b) / a and r = W D b / (TPOT (O - 1)); the prefill pool computes W D C / (S N) requests
      per second at most, with N new prompt tokens and S the seconds of a step of full chunks of C tokens;
    - aggregated: prefill takes the share f = n S of a worker's time with n prefill steps of S seconds per second, so
      TPOT = T(b) / (a (1 - f)) and r as above; where prompts ride along in decode steps, f counts what they add;
    - prefill steps: prompts that arrive during a step are begun in the next one. How many that are decides S: few
      have ranks of their own, chunk by chunk, and many share chunks. A step waits for the dearest chunk of its ranks;
      chunks are cut from the workload's prompts as the simulation cuts them (`sim.steady.chunks`);
    - decode steps wait for the rank with the most context (`sim.steady.phases`);
    - full, aggregated: prompts wait everywhere; those who leave between two decode steps make room for as many, which
      are computed together. Where all answers have one length and none has drafts, those that begin together end
      together: b prompts per rank are computed first and b answers then generated, if more leave that way.

    b ends at the batch cap and where b sequences of the mean context, with what the engine keeps free for their growth,
    fill the KV cache. Requests too long for that or for the model are rejected and count nowhere.

    The point is found at the rate that is offered, so its price is what an hour costs over the tokens of an hour.
    Prices are those of `sim.price`. `doubts` says where a simulation may differ.
    Raises what `sim.simulate` raises, for the same reasons.
    """
    scenario = scenario.whole_fleet()
    deployment = deploy(scenario)
    cluster = cluster_plan(deployment, seed=0)
    room = min(pool.longest_tokens for pool in cluster.pools.values())
    demand = demand or demand_of(scenario, base_folder, min(cluster.max_tokens, room))
    service = Service(deployment, demand, cluster, scenario.price)
    at_capacity, limit = full(service)
    columns = curve(service, at_capacity)
    capacity = float(columns["requests_per_s"].max())
    at = {name: float(column[0]) for name, column in overloaded(service, at_capacity).items()}
    if demand.concurrency is not None:
        at = closed(service, columns, demand.concurrency)
    elif demand.rate_per_s is not None and demand.rate_per_s < capacity:
        at = {name: float(c[0]) for name, c in service.at_rates(np.array([demand.rate_per_s])).items()}
    load = (demand.rate_per_s or at["requests_per_s"]) / capacity
    return SteadyState(
        demand=demand,
        deployment=deployment,
        point=point(service, at),
        curve=tuple(
            point(service, {name: float(column[i]) for name, column in columns.items()})
            for i in range(len(columns["batch"]))
        ),
        capacity_requests_per_s=capacity,
        limit=limit,
        stable=demand.rate_per_s is None or demand.rate_per_s <= capacity,
        priced_by=priced_by(service, at),
        utilization=utilization(service, at),
        doubts=tuple(doubts(scenario, service, at, limit, load)),
        notes=(*deployment.model.notes, *scenario_notes(scenario)),
    )
