"""The search: estimate every worker, order the replicas by what they would cost at best, simulate those that can win.

    shapes -> estimated -> replicas, by their price at best -> bisected, a round at a time -> the cheapest that hold

A candidate is left when even its estimate, which has no queues, costs more than what already holds, so what is left out
cannot win. The rounds are of a fixed size: how many processes there are changes nothing but the time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sim.parallel import Crew
from sim.planner.budgets import budget
from sim.planner.candidates import Shape, replicas, roles, settings, shapes
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.holding import Held, HoldJob, Simulated, Target, hold, lost
from sim.planner.lessons import Lessons
from sim.planner.margin import Margin, margin_of
from sim.planner.progress import Progress, Tick
from sim.planner.question import Objective, Question
from sim.planner.screening import Part, PartJob, Screened, capped, estimate
from sim.planner.sizing import (
    LAST,
    Rank,
    allowed,
    rank,
    rate_to_win,
    replicas_for,
    sized,
)
from sim.planner.traffic import Traffic

PART_REQUESTS = 600
"""What an estimate counts for in the progress, in simulated requests: about as long."""


@dataclass(frozen=True)
class Refused:
    """A worker that cannot be, and why."""

    job: PartJob
    why: str


@dataclass
class Found:
    """What a search found."""

    question: Question
    traffic: Traffic
    entries: list[Entry]
    """All candidates, by their price at best."""
    refused: list[Refused]
    estimated: int
    lessons: Lessons = field(default_factory=Lessons)
    margins: dict[str, Margin] = field(default_factory=dict)
    full: dict[tuple[str, int], tuple[Simulated, float]] = field(default_factory=dict)
    """By candidate and replicas: the simulation at full traffic, and the share of it that was simulated."""
    complete: bool = True
    """False where the budget of simulated requests ran out before every candidate that could win was tried."""
    requests: int = 0
    final: bool = False
    """Whether the contenders were sized by what their replicas hold together."""

    def margin(self, entry: Entry) -> Margin:
        """The margin of a candidate: that of its layouts, in any number."""
        if entry.margin is None:
            one = entry.screened.candidate
            key = repr((sorted(one.setting.items()), sorted(one.pools.items())))
            if key not in self.margins:
                margin = margin_of(self.question.scenario(one.overrides(1)))
                self.margins[key] = margin if self.question.margin else margin.none()
            entry.margin = self.margins[key]
        return entry.margin

    def bound(self, entry: Entry, target: int) -> float:
        """Arrivals per second that a replica cannot exceed, by the estimate and by what was simulated so far."""
        objectives = self.question.objectives
        if target == SAFE:
            objectives = self.margin(entry).tightened(objectives)
        return min(entry.screened.bound(objectives), self.lessons.bound(entry.screened, objectives))

    def ranking(self, target: int) -> list[Entry]:
        """The candidates that hold within the GPUs that are allowed, the best first."""
        held = [e for e in self.entries if (size := e.sizes[target]) and allowed(self.question, size)]
        return sorted(held, key=lambda e: e.rank(target))

    def peak_per_s(self, entry: Entry, target: int) -> float:
        """Arrivals per second that a candidate has to carry: the peak, with the margin or without."""
        return self.traffic.peak_per_s * (self.margin(entry).rate if target == SAFE else 1.0)

    def without_margin(self) -> "Found":
        """The same where no candidate holds with a margin: both targets are the objectives as they are."""
        entries = [
            replace(entry, sizes=[entry.sizes[PLAIN]] * 2, together=[entry.together[PLAIN]] * 2)
            for entry in self.entries
        ]
        for entry in entries:
            entry.margin = self.margin(entry).none()
            if entry.held is not None:
                plain = entry.held.brackets[PLAIN]
                entry.held = replace(entry.held, brackets=(plain, plain))
        return replace(self, question=replace(self.question, margin=False), entries=entries)

    def best(self, target: int) -> Rank:
        """What has to be beaten."""
        first = next(iter(self.ranking(target)), None)
        return LAST if first is None else first.rank(target)


def search(question: Question, traffic: Traffic, seed: int, crew: Crew, tick: Tick | None = None) -> Found:
    """Every candidate that can win, simulated; the others with what rules them out."""
    jobs = list(_part_jobs(question, traffic))
    tell = Progress(tick, PART_REQUESTS * len(jobs))
    parts: list[Part] = []
    for part in estimates(jobs, crew):
        parts.append(part)
        tell(PART_REQUESTS)
    found = screened(question, traffic, jobs, parts)
    waiting = [entry for entry in found.entries if entry.bound > 0]
    while waiting := [entry for entry in waiting if can_win(found, entry)]:
        if found.requests >= budget().most_simulated_requests:
            found.complete = False
            break
        some = _round(waiting)
        waiting = [entry for entry in waiting if entry not in some]
        asked = [_hold_job(found, entry, seed) for entry in some]
        for entry, held in zip(some, crew.map(hold, asked, lost), strict=True):
            take(found, entry, held)
            found.requests += held.requests
            tell(held.requests, len(waiting), budget().most_simulated_requests - found.requests)
    tell.finish()
    return found


def estimates(jobs: Sequence[PartJob], crew: Crew) -> Iterator[Part]:
    """The part of every job, in their order. Decode workers that differ in their cap alone are estimated once, at the
    highest."""
    alike: dict[str, tuple[int, PartJob]] = {}
    for job in jobs:
        key, cap = _but_its_cap(job), int(job.shape.get("max_batch_per_gpu", 0))
        if key not in alike or cap > alike[key][0]:
            alike[key] = (cap, job)
    asked = {key: job for key, (_, job) in alike.items()}
    done = crew.map(estimate, list(asked.values()), _lost_part)
    known: dict[str, Part] = {}
    keys = iter(asked)
    for job in jobs:
        while _but_its_cap(job) not in known:
            known[next(keys)] = next(done)
        part = known[_but_its_cap(job)]
        if job.role == "decode":
            # What does not fit with the highest cap may fit with its own.
            part = estimate(job) if part.why_not else capped(part, job.shape["max_batch_per_gpu"])
        yield part


def _but_its_cap(job: PartJob) -> str:
    left_out = "max_batch_per_gpu" if job.role == "decode" else ""
    shape = {key: value for key, value in job.shape.items() if key != left_out}
    return repr((sorted(job.setting.items()), job.role, sorted(shape.items())))


def _lost_part(job: PartJob) -> Part:
    return Part(why_not="its process died, twice: out of memory?")


def screened(question: Question, traffic: Traffic, jobs: Sequence[PartJob], parts: Sequence[Part]) -> Found:
    """The candidates that the estimated workers make, by their price at best; those that cannot hold come last."""
    refused = [Refused(job, part.why_not) for job, part in zip(jobs, parts, strict=True) if part.why_not]
    entries = []
    for setting in settings(question):
        here = [(j, p) for j, p in zip(jobs, parts, strict=True) if j.setting == setting and not p.why_not]
        fit = {role: [*_worth_trying(question, here, role)] for role in roles(question)}
        for candidate in replicas(question, setting, fit):
            if any(candidate.excluded_by(entry) for entry in question.exclude):
                continue
            of = {
                r: next(p for j, p in here if j.role == r and j.shape == s)
                for r, s in candidate.pools.items()
            }
            one = Screened(candidate, of)
            entry = Entry(one, one.bound(question.objectives))
            if entry.bound > 0:
                entry.optimistic = sized(question, one, replicas_for(traffic.peak_per_s, entry.bound))
            entries.append(entry)
    entries.sort(
        key=lambda e: (
            rank(e.screened, e.optimistic, e.bound)
            if e.optimistic
            else (*LAST[:3], e.screened.candidate.name)
        )
    )
    return Found(question, traffic, entries, refused, len(jobs))


def _worth_trying(question: Question, here: Sequence[tuple[PartJob, Part]], role: str) -> Iterator[Shape]:
    """The shapes of a role, but for lower caps of the batch that the objectives would never let it reach: such a worker
    does what the one with the higher cap does. All caps that the question itself lists are tried."""
    own = [(job, part) for job, part in here if job.role == role]
    if "max_batch_per_gpu" in question.pinned.get(role, {}) or role == "prefill":
        yield from (job.shape for job, _ in own)
        return
    for job, part in own:
        cap = job.shape["max_batch_per_gpu"]
        higher = [p for j, p in own if {**j.shape, "max_batch_per_gpu": cap} == job.shape and p is not part
                  and j.shape["max_batch_per_gpu"] > cap]  # fmt: skip
        if all(_batch(other, role, question) > cap for other in higher):
            yield job.shape


def _batch(part: Part, role: str, question: Question) -> float:
    """Decoding sequences per GPU at the most that the objectives let a worker do."""
    return float(np.interp(part.bound(role, question.objectives), part.rates, part.batch))


def take(found: Found, entry: Entry, held: Held) -> None:
    """Note what a candidate holds, and the size that it then needs."""
    entry.held = held
    found.lessons.learn(entry.screened, held.points)
    for target, bracket in enumerate(held.brackets):
        if bracket.low > 0:
            replicas = replicas_for(found.peak_per_s(entry, target), bracket.low)
            entry.sizes[target] = sized(found.question, entry.screened, replicas)


def wanted(entry: Entry, question: Question, target: int) -> tuple[Objective, ...]:
    """What the simulation must keep."""
    if target == PLAIN or entry.margin is None:
        return question.objectives
    return entry.margin.tightened(question.objectives)


def _part_jobs(question: Question, traffic: Traffic) -> Iterator[PartJob]:
    for setting in settings(question):
        if any(set(entry) <= set(setting) and _all_of(setting, entry) for entry in question.exclude):
            continue
        scenario = question.scenario(setting)
        for role in roles(question):
            for shape in shapes(question, scenario, role):
                yield PartJob(question, traffic, setting, role, shape)


def _all_of(setting: object, entry: object) -> bool:
    assert isinstance(setting, dict) and isinstance(entry, dict)
    return bool(entry) and all(setting[key] == value for key, value in entry.items())


def can_win(found: Found, entry: Entry) -> bool:
    """Whether it may be better than the best that holds, with the margin or without."""
    return any(_rate_to_win(found, entry, target)[0] < found.bound(entry, target) for target in (PLAIN, SAFE))


def _round(waiting: Sequence[Entry]) -> list[Entry]:
    """The next candidates to simulate: the cheapest at best, of as many different prefill workers as there are."""
    first: dict[str, Entry] = {}
    for entry in waiting:
        one = entry.screened.candidate
        first.setdefault(repr((one.setting, one.pools.get("prefill") or one.pools["serve"])), entry)
    chosen = list(first.values())[: budget().round]
    return chosen + [e for e in waiting if e not in chosen][: budget().round - len(chosen)]


def _rate_to_win(found: Found, entry: Entry, target: int) -> tuple[float, bool]:
    """Arrivals per second of a replica below which the candidate loses to the best that holds; and whether its room
    alone decides."""
    best, at_most = found.best(target), found.bound(entry, target)
    return rate_to_win(found.question, entry.screened, best, at_most, found.peak_per_s(entry, target))


def _hold_job(found: Found, entry: Entry, seed: int) -> HoldJob:
    found.margin(entry)
    targets = (
        Target(wanted(entry, found.question, t), found.bound(entry, t), *_rate_to_win(found, entry, t))
        for t in (PLAIN, SAFE)
    )
    return HoldJob(found.question, found.traffic, entry.screened, tuple(targets), seed)
