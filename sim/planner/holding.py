"""The rate that one replica holds under the objectives: simulated with queues, bisected between none and capacity.

The rates that are tried are the same whatever is promised and however much comes: shares k / 2^halvings of the
capacity. So a looser promise never holds less, and more traffic never needs fewer replicas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Final

import numpy as np

from sim.planner.budgets import budget
from sim.planner.question import Objective, Question
from sim.planner.screening import Screened
from sim.planner.sizing import NEARLY
from sim.planner.traffic import Traffic
from sim.result import Result
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Scenario
from sim.simulation import simulate

KEPT: Final = ("cost", "latency", "utilization", "priced_by", "stable", "requests", "tokens")
"""Of a run's JSON, what an answer tells."""


@dataclass(frozen=True)
class Simulated:
    """What a simulation says of the objectives."""

    rate_per_s: float
    values_s: Mapping[str, float]
    """Objective's key -> what was found; infinite where requests were turned away."""
    keeps_up: bool
    """False where the backlog grew."""
    requests: int
    replicas: int
    """That shared the rate."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Of the run's JSON: see KEPT."""

    def missed(self, objectives: Sequence[Objective]) -> list[Objective]:
        """The objectives that do not hold; all of them where the backlog grew."""
        return [o for o in objectives if not self.keeps_up or self.values_s[o.key] > o.bound_s]


@dataclass(frozen=True)
class Target:
    """What must hold, at which rates of a replica it cannot, and which must be held for the candidate to win."""

    objectives: tuple[Objective, ...]
    at_most: float
    """By the estimate."""
    to_win: float
    """A replica that holds less makes no better plan than the best so far; 0: none yet."""
    by_room: bool = False
    """It could win by its room alone, at the best's price: one simulation tells whether it does."""


@dataclass(frozen=True)
class HoldJob:
    """What is asked of a worker process: one candidate, under each target."""

    question: Question
    traffic: Traffic
    screened: Screened
    targets: tuple[Target, ...]
    seed: int
    known: tuple[Simulated, ...] = ()
    """What was simulated of it before."""


@dataclass(frozen=True)
class Bracket:
    """`low` is held, `high` is not."""

    low: float
    high: float


@dataclass(frozen=True)
class Held:
    """What a candidate holds."""

    brackets: tuple[Bracket, ...]
    """One for each target; the search ends early where `high` cannot win."""
    points: tuple[Simulated, ...] = ()
    why_not: str | None = None

    @property
    def requests(self) -> int:
        """Simulated in all."""
        return sum(point.requests for point in self.points)

    def at(self, rate: float) -> Simulated | None:
        """What was simulated at a rate."""
        return next((point for point in self.points if point.rate_per_s == rate), None)


def hold(job: HoldJob) -> Held:
    """The brackets of a candidate. Runs in a worker process: its own faults are answers, too."""
    steps = 2 ** budget().halvings
    top = job.screened.capacity * (1 + budget().estimate_tolerance)
    tried = {round(point.rate_per_s / top * steps): point for point in job.known}

    def kept(k: int, target: Target) -> bool:
        if k * top / steps > target.at_most:
            return False
        if k not in tried:
            tried[k] = measure(job, k * top / steps)
        return not tried[k].missed(target.objectives)

    def bracket(target: Target) -> Bracket:
        low, high = 0, steps
        if target.by_room:
            winning = ceil(target.to_win / top * steps - NEARLY)
            if winning < steps and not kept(winning, target):
                return Bracket(0.0, winning * top / steps)
        while high - low > 1 and high * top / steps > target.to_win:
            middle = (low + high) // 2
            low, high = (middle, high) if kept(middle, target) else (low, middle)
        return Bracket(low * top / steps, high * top / steps)

    try:
        brackets = [bracket(target) for target in job.targets]
    except (DeploymentError, ScenarioError) as error:
        why = "; ".join(problem.message for problem in error.problems)
        return Held(tuple(Bracket(0.0, 0.0) for _ in job.targets), why_not=why)
    except Exception as error:  # one candidate's fault must not end the others
        why = f"{type(error).__name__}: {error}"
        return Held(tuple(Bracket(0.0, 0.0) for _ in job.targets), why_not=why)
    return Held(tuple(brackets), tuple(tried[k] for k in sorted(tried)))


def lost(job: HoldJob) -> Held:
    """Of a candidate whose process died."""
    why = "its process died, twice: out of memory?"
    return Held(tuple(Bracket(0.0, 0.0) for _ in job.targets), why_not=why)


def measure(job: HoldJob, rate: float) -> Simulated:
    """One replica at a rate, for as long as the percentiles need."""
    stay_s = job.screened.mean_s("e2e_s", min(rate, job.screened.capacity))
    warmup_s, count = length(stay_s, job.question.objectives, rate)
    overrides = {
        **job.screened.candidate.overrides(1),
        **job.traffic.arriving(rate, min(count, budget().most_requests), warmup_s),
    }
    return judged(job.question.scenario(overrides), job.seed, job.question.objectives, rate, 1)


def length(
    stay_s: float, objectives: Sequence[Objective], rate: float, more: float = 1.0
) -> tuple[float, int]:
    """(seconds of warm-up, requests in all) that tell the percentiles at a rate of requests that stay `stay_s` on
    average; `more`: times as many measured."""
    limits = budget()
    beyond = max(
        limits.beyond_percentile / (1 - one.percentile / 100)
        for one in (*objectives, Objective("ttft_s", 50.0, inf))
        if one.percentile is not None
    )
    warmup_s = limits.fill_stays * stay_s
    counted = more * max(beyond, limits.least_requests, rate * stay_s * limits.measured_stays)
    return warmup_s, ceil(rate * warmup_s + counted)


def judged(
    scenario: Scenario, seed: int, objectives: Sequence[Objective], rate: float, replicas: int
) -> Simulated:
    """The scenario simulated, and what its requests say of the objectives."""
    result = simulate(scenario.model_copy(update={"metrics": "rows"}), seed)
    data = result.json()
    return Simulated(
        rate_per_s=rate,
        values_s={one.key: _value(result, one) for one in objectives},
        keeps_up=data["stable"] is not False,
        requests=len(result.record.requests.arrival_s),
        replicas=replicas,
        data={key: data[key] for key in KEPT},
    )


def _value(result: Result, objective: Objective) -> float:
    """The percentile, or the mean, over the counted requests; a request that was turned away waits for ever."""
    table = result.requests
    rows = table[table.counted & (table.finish_s.notna() | table.rejected)]
    if not len(rows):
        return inf  # nothing was measured, so nothing was kept
    values = np.where(rows.rejected, inf, rows[objective.metric])
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0  # answers of one token have no TPOT
    if objective.percentile is None:
        return float(values.mean())
    order = np.sort(values)
    if np.isinf(order[-1]):  # no line between a number and infinity
        return float(order[min(len(order) - 1, ceil(objective.percentile / 100 * len(order)) - 1)])
    return float(np.percentile(order, objective.percentile))
