"""The winner at full traffic: all its replicas behind one router, repaired until it holds."""

from dataclasses import dataclass
from typing import Any

from sim.parallel import Crew
from sim.planner.budgets import budget
from sim.planner.entry import PLAIN, Entry
from sim.planner.holding import Simulated, judged, length
from sim.planner.question import Objective, Question
from sim.planner.screening import Screened
from sim.planner.search import Found
from sim.planner.sizing import Size, rank, sized
from sim.planner.traffic import Traffic


@dataclass(frozen=True)
class FullJob:
    """What is asked of a worker process: a deployment under the traffic's peak."""

    question: Question
    traffic: Traffic
    screened: Screened
    replicas: int
    seed: int
    more: float = 1.0
    """What the peak is multiplied by."""
    most_requests: int | None = None
    """Of what would take more a share is simulated; None: `full_requests`."""


@dataclass(frozen=True)
class Confirmed:
    """A deployment that was simulated at full traffic."""

    entry: Entry
    size: Size
    measured: Simulated
    repaired: int
    """Replicas added because the first number missed an objective."""
    share: float
    """Of the replicas and of the traffic, that were simulated."""

    def missed(self, objectives: tuple[Objective, ...]) -> list[Objective]:
        return self.measured.missed(objectives)


def confirm(found: Found, target: int, seed: int, crew: Crew) -> Confirmed | None:
    """The cheapest candidate that keeps the objectives at full traffic; None where none holds at all.

    Where the cheapest misses, it gets a replica more and is ranked again, so that another may take its place. After
    `repairs` of them the last is given as it is: its own figures say what it misses.
    """
    repaired: dict[str, int] = {}
    for _ in range(budget().repairs + 1):
        ranking = found.ranking(target)
        if not ranking:
            return None
        entry = ranking[0]
        size, name = entry.sizes[target], entry.screened.candidate.name
        assert size is not None
        if (name, size.replicas) not in found.full:
            job = FullJob(found.question, found.traffic, entry.screened, size.replicas, seed)
            [found.full[name, size.replicas]] = crew.map(at_full_traffic, [job], _lost)
            found.requests += found.full[name, size.replicas][0].requests
        measured, share = found.full[name, size.replicas]
        last = Confirmed(entry, size, measured, repaired.get(name, 0), share)
        if not last.missed(found.question.objectives):
            return last
        repaired[name] = repaired.get(name, 0) + 1
        entry.sizes[target] = sized(found.question, entry.screened, size.replicas + 1)
    return last


def at_full_traffic(job: FullJob) -> tuple[Simulated, float]:
    """The deployment at the peak, and the share of it that was simulated. Runs in a worker process.

    A trace comes at its own times, from its start. Of what would take more than `full_requests` a whole number of
    replicas is simulated under their share of the traffic.
    """
    objectives, peak, most = (
        job.question.objectives,
        job.more * job.traffic.peak_per_s,
        job.most_requests or budget().full_requests,
    )
    overrides: dict[str, Any] = {}
    if job.traffic.own_times:
        simulated, peak = job.replicas, job.traffic.mean_per_s
        overrides["workload.requests"] = min(most, job.traffic.most or most)
    else:
        stay_s = job.screened.mean_s("e2e_s", min(peak / job.replicas, job.screened.capacity))
        _, count = length(stay_s, objectives, peak, budget().full_beyond)
        simulated = job.replicas if count <= most else max(1, job.replicas * most // count)
        peak *= simulated / job.replicas
        warmup_s, count = length(stay_s, objectives, peak, budget().full_beyond)
        overrides = job.traffic.arriving(peak, count, warmup_s)
    scenario = job.question.scenario({**job.screened.candidate.overrides(simulated), **overrides})
    return judged(scenario, job.seed, objectives, peak, simulated), simulated / job.replicas


def _lost(job: FullJob) -> tuple[Simulated, float]:
    raise MemoryError


def cheaper_of(one: Confirmed | None, other: Confirmed | None) -> Confirmed | None:
    """The better of two that were confirmed."""
    both = [c for c in (one, other) if c is not None]
    return min(both, key=lambda c: rank(c.entry.screened, c.size, c.entry.held_per_s(PLAIN)), default=None)
