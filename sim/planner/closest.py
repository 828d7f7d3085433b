"""Where nothing keeps the objectives: which of them are out of reach, and the plan that comes closest.

The number of GPUs has a bound: what the question allows, or `closest_gpus` times what carries the traffic when nothing
is promised, where it allows any number or not even that. Each candidate, in the number that this allows, gets its share
of the peak; the least miss of all is told as out of reach, and the plan is the cheapest that misses by no more than
`closest_within` more than that. Where more GPUs than are allowed would keep the objectives, how many is told as well.

No margin is kept then: what the simulation itself cannot keep, none makes safer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

from sim.parallel import Crew
from sim.planner import holding
from sim.planner.budgets import budget, telling
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.final import final
from sim.planner.holding import HoldJob, Simulated, Target
from sim.planner.progress import Tick
from sim.planner.question import Objective, Question
from sim.planner.reasons import in_unit
from sim.planner.search import Found, search
from sim.planner.sizing import LAST, most_replicas_below, replicas_for, sized
from sim.scenario.errors import DeploymentError, ScenarioError

Json = dict[str, Any]


@dataclass(frozen=True)
class Nearest:
    """The candidate that misses least."""

    entry: Entry
    gpus: int
    """That it takes, paid for."""
    values_s: Mapping[str, float]


def closest(found: Found, seed: int, crew: Crew, progress: Tick | None) -> tuple[Found, list[Json]]:
    """A search for the nearest question that has an answer, and what had to give way; the same search where there is
    none. Nothing gives way where the GPUs that are allowed do together what they cannot do each alone."""
    question, limit, free = found.question, found.question.max_gpus, found
    told: list[Json] = []
    carrying = _carrying_gpus(found)
    bound = limit if limit and limit >= carrying else telling().closest_gpus * carrying
    if limit is not None:
        free = search(replace(question, max_gpus=None), found.traffic, seed, crew, progress)
        final(free, seed, crew)
        together = replace(free, question=question)
        if together.ranking(SAFE) or together.ranking(PLAIN):
            return together, []
        if held := free.ranking(SAFE) or free.ranking(PLAIN):
            size = held[0].sizes[SAFE] or held[0].sizes[PLAIN]
            assert size is not None
            told.append(_beyond(limit, carrying, held[0].screened.candidate.name, size.paid))
            if size.paid <= bound:
                return free, told
    within = replace(question, max_gpus=bound, margin=False)
    nearest = _nearest(replace(found, question=within), seed, crew)
    if nearest is None:
        return free, told or [_none_carries(found, bound)]
    relaxed = []
    for one in question.objectives:
        reached = nearest.values_s[one.key]
        if reached > one.bound_s:
            told.append(_out_of_reach(one, nearest, within))
            relaxed.append(replace(one, bound_s=reached * (1 + telling().closest_within)))
        else:
            relaxed.append(one)
    return search(replace(within, objectives=tuple(relaxed)), found.traffic, seed, crew, progress), told


def _carrying_gpus(found: Found) -> int:
    """The fewest, by the estimate, that carry the traffic when nothing is promised."""
    free = replace(found.question, max_gpus=None)
    sizes = (
        sized(free, e.screened, replicas_for(found.traffic.peak_per_s, e.screened.capacity))
        for e in found.entries
    )
    return min(size.paid for size in sizes)


def _beyond(limit: int, carrying: int, name: str, paid: int) -> Json:
    alone = f"; the traffic alone takes {carrying:,}" if limit < carrying else ""
    says = f"no candidate holds on {limit:,} GPUs{alone}; the cheapest that does takes {paid:,} ({name})"
    return {"objective": "max_gpus", "bound": limit, "reached": paid, "with": name, "says": says}


def _none_carries(found: Found, bound: int) -> Json:
    peak_per_s = found.traffic.peak_per_s
    says = f"no candidate was found that carries {peak_per_s:,.4g} requests/s on at most {bound:,} GPUs"
    return {"objective": "traffic", "bound": peak_per_s, "reached": None, "with": None, "says": says}


def _out_of_reach(one: Objective, nearest: Nearest, within: Question) -> Json:
    reached, name = nearest.values_s[one.key], nearest.entry.screened.candidate.name
    return {
        "objective": one.key, "bound": one.bound_s, "reached": reached, "with": name,
        "says": f"{one.label} of {in_unit(one, one.bound_s)} is out of reach: the nearest candidate has "
        f"{in_unit(one, reached)}, as one replica alone at its share of the peak, on {nearest.gpus:,} GPUs of at most "
        f"{within.max_gpus:,} ({name})",
    }  # fmt: skip


def _nearest(found: Found, seed: int, crew: Crew) -> Nearest | None:
    """The least miss among the few candidates that the estimate has nearest; None where none of them carries the
    traffic, turning nobody away."""
    objectives = found.question.objectives
    jobs = []
    for entry in found.entries:
        replicas = most_replicas_below(found.question, entry.screened, LAST, entry.screened.capacity)
        if replicas and (rate := _tried(entry, found.traffic.peak_per_s / replicas)):
            means = {o.key: entry.screened.mean_s(o.metric, rate) for o in objectives}
            one = entry.screened.candidate
            jobs.append((_worst(means, objectives), one.gpus * replicas, one.name, entry, replicas, rate))
    jobs = sorted(jobs, key=lambda job: job[:3])[: telling().sensitivity_candidates]
    asked = [
        HoldJob(found.question, found.traffic, entry.screened, (Target(objectives, rate, 0.0),), seed)
        for *_, entry, _, rate in jobs
    ]
    reached = []
    for (*_, entry, replicas, _), measured in zip(jobs, crew.map(_at_its_share, asked, _lost), strict=True):
        if measured is None:
            continue
        found.requests += measured.requests
        if measured.keeps_up and max(measured.values_s.values()) < inf:
            gpus, values = sized(found.question, entry.screened, replicas).paid, measured.values_s
            reached.append((_worst(values, objectives), gpus, entry.screened.candidate.name, entry, values))
    if not reached:
        return None
    _, gpus, _, entry, values = min(reached, key=lambda one: one[:3])
    return Nearest(entry, gpus, values)


def _tried(entry: Entry, rate: float) -> float | None:
    """The first of the rates that a bisection tries which is no lower; None where the candidate carries none such."""
    top, steps = entry.screened.capacity * (1 + budget().estimate_tolerance), 2 ** budget().halvings
    step = ceil(rate / top * steps)
    return step * top / steps if rate <= entry.screened.capacity else None


def _worst(values: Mapping[str, float], objectives: tuple[Objective, ...]) -> float:
    return max(values[one.key] / one.bound_s for one in objectives)


def _at_its_share(job: HoldJob) -> Simulated | None:
    """One replica at the rate of its target. Runs in a worker process."""
    try:
        return holding.measure(job, job.targets[0].at_most)
    except (DeploymentError, ScenarioError):
        return None


def _lost(job: HoldJob) -> None:
    return None
