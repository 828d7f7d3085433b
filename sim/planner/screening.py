"""The estimate of each worker alone, and what follows for replicas: an upper bound of the rate, without any queue.

Prefill and decode are estimated beside more of the other than they can need: p x d layouts take p + d estimates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.planner.budgets import budget, layouts
from sim.planner.candidates import Candidate, Setting, Shape
from sim.planner.question import Objective, Question
from sim.planner.traffic import Traffic
from sim.price import GpuHour
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.steady import SteadyState, steady

PARTNER: Mapping[str, str] = {"prefill": "decode", "decode": "prefill"}
TAIL = 90.0
"""From this percentile on, no latency's percentile is below its mean, as far as services go; lower ones may be."""
LATENCIES: Mapping[str, tuple[str, ...]] = {
    "serve": ("ttft_s", "tpot_s", "e2e_s"), "prefill": ("ttft_s",), "decode": ("tpot_s",),
}  # fmt: skip
"""Whose means a pool decides alone."""


@dataclass(frozen=True)
class PartJob:
    """What is asked of a worker process: one worker of a shape."""

    question: Question
    traffic: Traffic
    setting: Setting
    role: str
    shape: Shape


@dataclass(frozen=True)
class Part:
    """One worker of a shape in its steady state, from light load to capacity. Rates are arrivals per second."""

    rates: tuple[float, ...] = ()
    ttft_s: tuple[float, ...] = ()
    tpot_s: tuple[float, ...] = ()
    batch: tuple[float, ...] = ()
    """Decoding sequences per GPU."""
    limit: str = ""
    """What its capacity ends at."""
    output_tokens: float = 0.0
    tokens: float = 0.0
    """Per arrival: generated, and all."""
    usd_per_gpu_hour: float = 0.0
    """With what comes on top of the GPUs."""
    overhead_fraction: float = 0.0
    """Of that: what comes on top, over the price of a GPU-hour."""
    gpu_hour: GpuHour | None = None
    """Without, and where it comes from; None of a part that cannot be."""
    storage_usd_per_hour: float = 0.0
    """Of the prefix cache below the GPUs' memory, per worker that computes prompts, or in all where they share it."""
    unit_gpus: int = 1
    """Bought at once."""
    why_not: str | None = None
    """Why there is no such worker."""

    @property
    def capacity(self) -> float:
        return self.rates[-1]

    def means_s(self, metric: str) -> np.ndarray:
        """Mean latency along the rates."""
        ttft, tpot = np.array(self.ttft_s), np.array(self.tpot_s)
        return {"ttft_s": ttft, "tpot_s": tpot, "e2e_s": ttft + self.output_tokens * tpot}[metric]

    def bound(self, role: str, objectives: Sequence[Objective]) -> float:
        """Arrivals per second beyond which a mean would miss an objective, or the capacity; 0 where it always does."""
        allowed = 1 + budget().estimate_tolerance
        best = self.capacity * allowed
        for one in objectives:
            if one.metric not in LATENCIES[role] or (one.percentile is not None and one.percentile < TAIL):
                continue
            over = np.flatnonzero(self.means_s(one.metric) > one.bound_s * allowed)
            if len(over):
                best = min(best, self.rates[over[0]] if over[0] else 0.0)
        return best


def estimate(job: PartJob) -> Part:
    """The part of one shape, or why there is none. Runs in a worker process."""
    why = ""
    for partner in _partners(job):
        try:
            return _part(job, steady(job.question.scenario(_beside(job, partner))))
        except DeploymentError as error:
            mine = [p for p in error.problems if PARTNER.get(job.role) not in p.path]
            why = "; ".join(p.message for p in mine or error.problems)
            if mine:
                break
        except ScenarioError as error:
            why = "; ".join(p.message for p in error.problems)
            break
    return Part(why_not=why)


def _partners(job: PartJob) -> Iterator[Shape | None]:
    """Shapes of the other pool, until one fits: the same, then attention DP with ever more GPUs."""
    if job.role == "serve":
        yield None
        return
    yield {key: job.shape[key] for key in ("gpus", "tp", "ep")}
    for gpus in layouts().gpus_per_worker:
        yield {"gpus": gpus, "tp": 1, "ep": gpus}


def _beside(job: PartJob, partner: Shape | None) -> dict[str, object]:
    pools = {job.role: {**job.shape, "workers": 1}}
    if partner is not None:
        pools[PARTNER[job.role]] = {**partner, "workers": layouts().beside}
    one_per_s = job.traffic.arriving(1.0, job.traffic.most or budget().least_requests, 0.0)
    return {**job.setting, "deployment": pools, **one_per_s}


def _part(job: PartJob, state: SteadyState) -> Part:
    per_arrival, price = state.demand.rate_per_s or 1.0, state.point.price
    curve = state.curve
    return Part(
        rates=tuple(p.requests_per_s / per_arrival for p in curve),
        ttft_s=tuple(p.ttft_s for p in curve),
        tpot_s=tuple(p.tpot_s for p in curve),
        batch=tuple(p.batch / int(job.shape["tp"]) for p in curve),
        limit=state.limit,
        output_tokens=state.demand.output_tokens * per_arrival,
        tokens=(state.demand.output_tokens + state.demand.input_tokens) * per_arrival,
        usd_per_gpu_hour=price.gpu_hour.usd * (1 + price.overhead_fraction),
        overhead_fraction=price.overhead_fraction,
        gpu_hour=price.gpu_hour,
        storage_usd_per_hour=0.0 if job.role == "decode" else price.storage_usd_per_hour,
        unit_gpus=price.purchase.unit,
    )


def capped(part: Part, cap: float) -> Part:
    """A decode worker with a lower cap of its batch: the same curve, up to there."""
    if part.why_not or not part.batch or cap >= part.batch[-1]:
        return part
    inside = sum(b < cap for b in part.batch)

    def up_to_cap(values: tuple[float, ...]) -> tuple[float, ...]:
        return (*values[:inside], float(np.interp(cap, part.batch, values)))

    return replace(
        part,
        rates=up_to_cap(part.rates),
        ttft_s=up_to_cap(part.ttft_s),
        tpot_s=up_to_cap(part.tpot_s),
        batch=up_to_cap(part.batch),
        limit="decode batch",
    )


@dataclass(frozen=True)
class Screened:
    """A candidate with the parts that it is made of."""

    candidate: Candidate
    parts: Mapping[str, Part]

    @property
    def any_part(self) -> Part:
        return next(iter(self.parts.values()))

    @property
    def capacity(self) -> float:
        """Arrivals per second of a replica that is full."""
        return min(self.candidate.ratio[role] * part.capacity for role, part in self.parts.items())

    def bound(self, objectives: Sequence[Objective]) -> float:
        """Arrivals per second that a replica cannot exceed under the objectives, by means without queues."""
        return min(
            self.candidate.ratio[role] * part.bound(role, objectives) for role, part in self.parts.items()
        )

    def mean_s(self, metric: str, rate: float) -> float:
        """Mean latency of a replica at a rate, without queues for more."""
        of = {
            role: (lambda name, r=role, p=part: float(
                np.interp(rate / self.candidate.ratio[r], p.rates, p.means_s(name))
            ))
            for role, part in self.parts.items()
        }  # fmt: skip
        first, last = (of.get(role) or of["serve"] for role in ("prefill", "decode"))
        if metric == "e2e_s":
            return first("ttft_s") + self.any_part.output_tokens * last("tpot_s")
        return first("ttft_s") if metric == "ttft_s" else last("tpot_s")

    @property
    def fills_first(self) -> tuple[str, str]:
        """Role of the pool that fills first, and what of it."""
        role = min(self.parts, key=lambda r: self.candidate.ratio[r] * self.parts[r].capacity)
        return role, self.parts[role].limit
