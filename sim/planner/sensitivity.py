"""What the answer hangs on: each input moved up and down, the price that follows, whether another plan would win.

Under another load the candidates that may win there are simulated further, since the search left them where they
could not win here (`other_loads`). Under the other changes what a replica holds is not simulated again: it moves as its
bound by the estimate does. Both have the same steps, so what queues take from the one they take from the other; where a
bound is not reached at all nothing is said. `at_most`: a candidate that was left may be cheaper still.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sim.deployment.plan import resolve
from sim.parallel import Crew
from sim.planner.budgets import telling
from sim.planner.entry import SAFE, Entry
from sim.planner.full import Confirmed
from sim.planner.other_loads import Ends
from sim.planner.question import Question
from sim.planner.screening import Part, PartJob, Screened, estimate
from sim.planner.search import Found, wanted
from sim.planner.sizing import LAST, NEARLY, Rank, Size, allowed, rank, replicas_for, sized
from sim.units import HOUR_S, MILLION

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Change:
    """One input, moved."""

    input: str
    change: str
    load: float = 1.0
    """What the traffic is multiplied by."""
    speed: float = 1.0
    """What every latency is multiplied by, and every rate divided by: a model that is wrong by so much."""
    gpu_price: float = 1.0
    """What the winner's GPU-hour is multiplied by."""
    overrides: Mapping[str, Any] | None = None
    """Of the scenario: the parts are estimated again."""


@dataclass(frozen=True)
class UnderChange:
    """A candidate under a change."""

    rank: Rank
    entry: Entry
    size: Size
    tokens: float
    """Per arrival."""


def sensitivity(found: Found, best: Confirmed, seed: int, crew: Crew) -> list[Json]:
    """The answer under every change; `best_changes` is None where the change leaves nothing that could be told."""
    changes, ends = list(_changes(found.question, best)), Ends(found, seed, crew)
    told: dict[Change, Json] = {}
    winners: list[Entry] = []
    for change in (one for one in changes if one.load != 1):
        outcomes, left = _under(found, best, found.entries, change, _as_it_is, ends)
        while left and ends.resume(left, change.load, min(outcomes, default=LAST)):
            outcomes, left = _under(found, best, found.entries, change, _as_it_is, ends)
        told[change] = _told(found, best, outcomes, change, at_most=bool(left))
        winners += [outcomes[rank].entry for rank in sorted(outcomes)[:1]]
    rivals = _rivals(found, best, winners)
    moved = _moved_parts(found, rivals, [change for change in changes if change.overrides], crew)

    def screened(change: Change, entry: Entry) -> Screened:
        return moved.get((change, entry.screened.candidate.name), entry.screened)

    for change in (one for one in changes if one.load == 1):
        some = rivals if change.overrides else found.entries
        outcomes, left = _under(found, best, some, change, screened, ends)
        told[change] = _told(found, best, outcomes, change, at_most=bool(left))
    return [told[change] for change in changes]


def _as_it_is(_: Change, entry: Entry) -> Screened:
    return entry.screened


def _moved_parts(
    found: Found, rivals: Sequence[Entry], changes: Sequence[Change], crew: Crew
) -> dict[tuple[Change, str], Screened]:
    """The candidates under the changes of the scenario, estimated again."""
    asked = [(change, entry) for change in changes for entry in rivals]
    jobs = [job for change, entry in asked for job in _part_jobs(found, entry, change)]
    parts = iter(crew.map(estimate, jobs, lambda job: Part(why_not="its process died")))
    return {
        (change, entry.screened.candidate.name): replace(
            entry.screened, parts={role: next(parts) for role in entry.screened.parts}
        )
        for change, entry in asked
    }


def _rivals(found: Found, best: Confirmed, winners: Sequence[Entry]) -> list[Entry]:
    """The winner, those that win at another load, and those that came nearest, one of each setting and kind at least
    where they hold."""
    others = [e for e in found.ranking(SAFE) if e is not best.entry]
    first: dict[str, Entry] = {}
    for entry in others:
        first.setdefault(f"{entry.screened.candidate.setting}{entry.screened.candidate.kind}", entry)
    order = [*(e for e in winners if e is not best.entry), *first.values(), *others]
    unlike = list({e.screened.candidate.name: e for e in order}.values())
    return [best.entry, *unlike[: telling().sensitivity_candidates - 1]]


def _changes(question: Question, best: Confirmed) -> Iterator[Change]:
    step = telling().sensitivity
    scenario = question.scenario(best.entry.screened.candidate.overrides(1))
    workload = scenario.workload
    for sign in (1, -1):
        share, said = 1 + sign * step, f"{sign * step:+.0%}"
        yield Change("load", said, load=share)
        for side in ("input", "output"):
            if workload.lengths is not None and (scaled := _scaled(getattr(workload.lengths, side), share)):
                yield Change(f"{side} length", said, overrides={f"workload.lengths.{side}": scaled})
        if workload.cached_fraction is not None:
            hits = min(0.99, max(0.0, workload.cached_fraction + sign * step / 2))
            yield Change("hit rate", f"to {hits:.0%}", overrides={"workload.cached_fraction": hits})
        yield Change(f"price of {best.entry.screened.candidate.setting['gpu']}", said, gpu_price=share)
        if scenario.speculation.draft_tokens and scenario.speculation.adaptive is None:
            chances = [min(1.0, chance * share) for chance in resolve(scenario).drafts.chances or ()]
            yield Change("acceptance", said, overrides={"speculation.acceptance": chances})
        yield Change("model error: slower" if sign > 0 else "model error: faster", said, speed=share)


def _scaled(length: Any, share: float) -> Json | None:
    """A distribution with another mean; None of a file."""
    if length.constant is not None:
        return {"constant": max(1, round(length.constant * share))}
    if length.uniform is not None:
        return {"uniform": [max(1, round(end * share)) for end in length.uniform]}
    if length.lognormal is not None:
        return {"lognormal": {"mean": max(1.0, length.lognormal.mean * share), "cv": length.lognormal.cv}}
    return None


def _part_jobs(found: Found, entry: Entry, change: Change) -> Iterator[PartJob]:
    """The parts of a candidate under a change. Acceptance is that of the winner's drafts: others keep their own."""
    overrides = dict(change.overrides or {})
    chances = overrides.get("speculation.acceptance")
    drafts = found.question.scenario(entry.screened.candidate.setting).speculation.draft_tokens
    if chances is not None and drafts != len(chances):
        overrides = {}
    setting = {**entry.screened.candidate.setting, **overrides}
    for role in entry.screened.parts:
        yield PartJob(found.question, found.traffic, setting, role, entry.screened.candidate.pools[role])


def _under(
    found: Found,
    best: Confirmed,
    some: Sequence[Entry],
    change: Change,
    screened: Callable[[Change, Entry], Screened],
    ends: Ends,
) -> tuple[dict[Rank, UnderChange], list[Entry]]:
    """What the candidates come to by what they hold, and those that would be cheaper by what they may hold, the best
    first."""
    outcomes: dict[Rank, UnderChange] = {}
    at_best: dict[Rank, Entry] = {}
    for entry in some:
        now, (low, high) = screened(change, entry), ends.of(entry)
        if one := _outcome(found, best, entry, change, now, low):
            outcomes[one.rank] = one
        if not ends.finished(entry) and (one := _outcome(found, best, entry, change, now, high)):
            at_best[one.rank] = entry
    least_usd = min(outcomes, default=LAST)[0] * (1 - NEARLY)
    left = [at_best[rank] for rank in sorted(at_best) if rank[0] < least_usd]
    return outcomes, left


def _outcome(
    found: Found, best: Confirmed, entry: Entry, change: Change, now: Screened, held_per_s: float
) -> UnderChange | None:
    """A candidate whose replica alone holds so much as it is; None where it holds nothing, or not on the GPUs that are
    allowed."""
    question = found.question
    held = held_per_s * entry.together[SAFE] * _moved(found, entry, change, now)
    if held <= 0:
        return None
    size = sized(question, entry.screened, replicas_for(found.peak_per_s(entry, SAFE) * change.load, held))
    if entry is best.entry:  # what the simulation at full traffic asked for beyond the estimate stays
        size = sized(question, entry.screened, size.replicas + best.repaired)
    if entry.screened.candidate.setting["gpu"] == best.entry.screened.candidate.setting["gpu"]:
        size = replace(size, usd_per_hour=size.usd_per_hour * change.gpu_price)
    if not allowed(question, size):
        return None
    return UnderChange(rank(entry.screened, size, held), entry, size, now.any_part.tokens)


def _moved(found: Found, entry: Entry, change: Change, now: Screened) -> float:
    """What the rate that a replica holds is multiplied by: as its bound.

    With everything slower by k, a promise of x seconds is kept where x / k was, at 1 / k of the rate.
    """
    if change.overrides is None and change.speed == 1:
        return 1.0
    found.margin(entry)
    objectives = wanted(entry, found.question, SAFE)
    slower = tuple(replace(one, bound_s=one.bound_s / change.speed) for one in objectives)
    before = entry.screened.bound(objectives)
    after = 0.0 if any(p.why_not for p in now.parts.values()) else now.bound(slower) / change.speed
    return after / before if before else 0.0


def _told(
    found: Found, best: Confirmed, outcomes: Mapping[Rank, UnderChange], change: Change, at_most: bool
) -> Json:
    told: Json = {"input": change.input, "change": change.change}
    if not outcomes:
        nothing = ("usd_per_million", "at_most", "usd_per_hour", "gpus", "best_changes", "best")
        return {**told, **dict.fromkeys(nothing)}
    first = outcomes[min(outcomes)]
    sold = 1 - found.question.loaded.scenario.price.margin
    per_hour = found.traffic.mean_per_s * change.load * HOUR_S * first.tokens
    return {
        **told,
        "usd_per_million": first.size.usd_per_hour / per_hour * MILLION / sold,
        "at_most": at_most,
        "usd_per_hour": first.size.usd_per_hour,
        "gpus": first.size.gpus,
        "best_changes": first.entry is not best.entry,
        "best": first.entry.screened.candidate.name,
    }
