"""The final: the contenders, each in the fewest replicas that keep the objectives together, behind one router.

Replicas that share each other's bursts hold more than each alone, the more of them the more, so that what one holds
makes a plan too large, and unlike ones by unlike shares. The numbers that are tried are the halves, quarters and so on
of a power of two, whatever is promised: a looser promise never takes a candidate more replicas.
"""

from dataclasses import dataclass, replace

from sim.parallel import Crew
from sim.planner import full
from sim.planner.budgets import budget
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.full import FullJob
from sim.planner.holding import Simulated
from sim.planner.question import Objective
from sim.planner.rivals import complete, rivals
from sim.planner.search import Found, wanted
from sim.planner.sizing import most_replicas_below, replicas_for, sized
from sim.scenario.errors import DeploymentError, ScenarioError


@dataclass(frozen=True)
class FinalJob:
    """What is asked of a worker process: one contender."""

    full: FullJob
    """In the number that each replica alone asks for, which holds."""
    objectives: tuple[Objective, ...]
    least: int
    """Fewer cannot do, by the estimate."""
    to_win: int
    """More lose to the best so far."""


@dataclass(frozen=True)
class Together:
    """What came of it."""

    replicas: int
    points: tuple[tuple[int, Simulated, float], ...] = ()
    """Replicas, what they did, and the share of them that was simulated."""


def final(found: Found, seed: int, crew: Crew) -> None:
    """Size the few contenders that are cheapest alone by what their replicas hold together: first the cheapest, with
    the margin and without, then those that may still win over it, and the best of every other GPU. A trace at its own
    times has no peak that could be simulated by itself: there the sizes stay."""
    if found.final:
        return
    found.final = True
    complete(found, seed, crew)
    if found.traffic.own_times:
        return
    targets = (PLAIN, SAFE) if found.question.margin else (SAFE,)  # which then are the same
    few = {target: found.ranking(target)[: budget().finalists] for target in targets}
    others = rivals(found, few[SAFE][0]) if few[SAFE] else []
    few[SAFE] += [entry for entry in others if entry.sizes[SAFE] and entry not in few[SAFE]]
    for first, last in ((0, 1), (1, None)):
        asked = [
            (entry, target, job)
            for target, entries in few.items()
            for entry in entries[first:last]
            if (job := _job(found, entry, target, seed, target == SAFE and entry in others))
        ]
        told = crew.map(fewest, [job for *_, job in asked], _lost)
        for (entry, target, _), one in zip(asked, told, strict=True):
            for same in (target,) if found.question.margin else (PLAIN, SAFE):
                _take(found, entry, same, one)
            found.requests += sum(measured.requests for _, measured, _ in one.points)


def _job(found: Found, entry: Entry, target: int, seed: int, to_the_end: bool) -> FinalJob | None:
    """None where fewer replicas cannot win, or cannot be. `to_the_end`: whether it can win or not."""
    size, peak = entry.sizes[target], found.peak_per_s(entry, target)
    objectives = wanted(entry, found.question, target)
    bound = entry.screened.bound(objectives)
    assert size is not None
    to_win, best = size.replicas, found.best(target)
    if best < entry.rank(target) and not to_the_end:
        to_win = most_replicas_below(found.question, entry.screened, best, entry.held_per_s(target))
    least = replicas_for(peak, bound) if bound else size.replicas
    if least > to_win or least >= size.replicas:
        return None
    more = peak / found.traffic.peak_per_s
    most = budget().final_run_requests
    job = FullJob(found.question, found.traffic, entry.screened, size.replicas, seed, more, most)
    return FinalJob(job, objectives, least, min(to_win, size.replicas))


def _take(found: Found, entry: Entry, target: int, one: Together) -> None:
    size = entry.sizes[target]
    assert size is not None
    if one.replicas < size.replicas:
        entry.sizes[target] = sized(found.question, entry.screened, one.replicas)
        alone = found.peak_per_s(entry, target) / entry.held_per_s(target)
        entry.together[target] = alone / one.replicas
    if target == PLAIN:  # with nothing added: what `confirm` would simulate, where it is the whole
        name = entry.screened.candidate.name
        found.full |= {(name, count): (measured, 1.0) for count, measured, share in one.points if share == 1}


def fewest(job: FinalJob) -> Together:
    """The fewest replicas that keep the objectives together. Runs in a worker process: a number that cannot be
    simulated does not keep them."""
    alone, tried = job.full.replicas, dict[int, tuple[Simulated, float]]()

    def kept(count: int) -> bool:
        if not job.least <= count < alone:
            return count >= alone
        if count not in tried:
            try:
                tried[count] = full.at_full_traffic(replace(job.full, replicas=count))
            except (DeploymentError, ScenarioError):
                return False
        return not tried[count][0].missed(job.objectives)

    fewest = alone
    if kept(job.to_win):
        low, high = 0, 1 << (alone - 1).bit_length()
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if kept(middle) else (middle, high)
        fewest = high
    return Together(fewest, tuple((count, *tried[count]) for count in sorted(tried)))


def _lost(job: FinalJob) -> Together:
    return Together(job.full.replicas)
