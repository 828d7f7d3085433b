"""A question -> its answer: search, confirm at full traffic, and tell; where nothing holds, the closest plan."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sim.deployment.slips import given_by, unusual
from sim.parallel import Crew
from sim.planner import answer
from sim.planner.closest import closest
from sim.planner.entry import PLAIN, SAFE, Entry
from sim.planner.final import final
from sim.planner.full import Confirmed, cheaper_of, confirm
from sim.planner.notes import heading, lost_pins, promises_left_out
from sim.planner.one_price import shared_price
from sim.planner.progress import Tick
from sim.planner.question import Question, load_question
from sim.planner.rivals import gpu_prices, price_of
from sim.planner.search import Found, search
from sim.planner.sensitivity import sensitivity
from sim.planner.traffic import traffic_of
from sim.scenario import anchor
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario
from sim.scenario.tree import find

NO_MORE_GPUS: Final = ("memory_fraction", "chunk_tokens", "engine_version")
"""Settings that may make room without another GPU."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The answer to a plan file."""

    data: Json
    scenario: Scenario | None
    """The winner's, ready for `run`."""
    heading: str = ""
    """Comments for the top of its file: what it was planned for."""

    def json(self) -> Json:
        """As `tokenworks plan --json` prints it."""
        return self.data


def plan_file(
    file: str | Path, seed: int = 0, workers: int | None = None, progress: Tick | None = None
) -> Plan:
    """The cheapest deployment for a plan file; `workers`: processes (None: one per core), which change no byte but
    `ledger.wall_s`. `progress` is told (simulated requests done, of all as far as is known).

    Raises ScenarioError where the file or its base is broken, DeploymentError where its traffic is none that a
    deployment could be sized for, or no layout can be built at all.
    """
    return plan(load_question(file), seed, workers, progress)


def plan(question: Question, seed: int = 0, workers: int | None = None, progress: Tick | None = None) -> Plan:
    """The same of a question that was read."""
    started = time.perf_counter()
    with question.loaded.locating():
        traffic = traffic_of(question.loaded.scenario, seed)
    with Crew(workers or os.cpu_count() or 1) as crew:
        found = search(question, traffic, seed, crew, progress)
        if not found.entries:
            raise _nothing(found)
        out_of_reach: list[Json] = []
        asked = found
        if not (found.ranking(PLAIN) or found.ranking(SAFE)):
            found, out_of_reach = closest(found, seed, crew, progress)
        final(found, seed, crew)
        best = confirm(found, SAFE, seed, crew)
        # A margin is more than any candidate has: then the plan without one is the best there is.
        if best is None:
            found = found.without_margin()
            best = confirm(found, SAFE, seed, crew)
        without = cheaper_of(confirm(found, PLAIN, seed, crew), best)
        told = _told(asked, found, best, without, out_of_reach, seed, crew)
    told["ledger"] = answer.ledger(found, seed, time.perf_counter() - started)
    scenario = None
    if best is not None:
        scenario = question.scenario(best.entry.screened.candidate.overrides(best.size.replicas))
    return Plan(told, scenario, heading(question))


def _notes(found: Found) -> Iterator[str]:
    """GPUs that are left out; an anchor, and layouts that it is not of; and what may not be meant: a promise, or a
    number of the scenario around it, far from what is usual."""
    question = found.question
    yield from question.left_out
    yield from shared_price(question)
    yield from lost_pins(found)
    yield from (f"no worker can be built of {says}" for says in _unbuilt(found))
    yield from _narrow(found)
    yield from _anchored(found)
    yield from unusual({f"objectives.{o.key}": o.bound_s for o in question.objectives})
    yield from unusual(dict(given_by(question.loaded.scenario)))
    yield from promises_left_out(question)


def _anchored(found: Found) -> Iterator[str]:
    """What an anchor does, and that it was measured on another layout than candidates have."""
    name = found.question.loaded.scenario.anchor
    if name is None:
        return
    yield f"anchored on {anchor.in_words(anchor.read_anchor(name).json())}"
    measured = anchor.measured_layout(name)
    others = sum(anchor.layout_of(e.screened.candidate.pools) != measured for e in found.entries)
    if others:
        told = " : ".join(f"{p['gpus']} {role} (tp {p['tp']}, ep {p['ep']})" for role, p in measured.items())
        yield (
            f"the anchor was measured on another deployment than {others} of {len(found.entries)} candidates: {told} "
            "there. Its factors may not hold for these, whose expected error is that without an anchor"
        )


def _told(
    asked: Found,
    found: Found,
    best: Confirmed | None,
    without: Confirmed | None,
    out_of_reach: list[Json],
    seed: int,
    crew: Crew,
) -> Json:
    question, traffic = asked.question, asked.traffic
    return {
        "name": question.name,
        "traffic": {
            "peak_per_s": traffic.peak_per_s, "mean_per_s": traffic.mean_per_s, "basis": traffic.said,
        },
        "notes": list(dict.fromkeys(_notes(asked))),
        "objectives": [{"objective": o.key, "label": o.label, "bound_s": o.bound_s} for o in question.objectives],
        "max_gpus": question.max_gpus,
        "best": _best(asked, found, best, SAFE),
        "without_margin": _best(asked, found, without, PLAIN),
        "n_plus_1": None if best is None else answer.n_plus_1(found, best),
        "out_of_reach": out_of_reach,
        "candidates": answer.runners_up(found, best),
        "refused": [
            {"gpu": r.job.setting["gpu"], "role": r.job.role, "shape": dict(r.job.shape), "why_not": r.why}
            for r in found.refused
        ],
        "frontier": answer.frontier(found),
        "sensitivity": [] if best is None else sensitivity(found, best, seed, crew),
        "break_even": [] if best is None else answer.break_even(found, best),
        "gpu_prices": [] if best is None else gpu_prices(found, best),
    }  # fmt: skip


def _best(asked: Found, found: Found, confirmed: Confirmed | None, target: int) -> Json | None:
    """One of the plans at full traffic, judged by what was asked."""
    if confirmed is None:
        return None
    judged = replace(found, question=replace(found.question, objectives=asked.question.objectives))
    told = answer.candidate(judged, confirmed.entry, target, confirmed)
    limit = asked.question.max_gpus
    within = limit is None or told["gpus_paid"] <= limit
    missed = [f"{o['label']} is out of reach" for o in told["objectives"] if not o["kept"]]
    says = [*missed, *([] if within else [f"takes {told['gpus_paid']:,} GPUs; {limit:,} are allowed"])]
    return {
        **told,
        "meets_objectives": told["meets_objectives"] and within,
        "why_not": "; ".join(says) or None,
        "with_margin": found.question.margin and confirmed.entry.sizes[SAFE] == confirmed.size,
        "repaired": confirmed.repaired,
        "simulated_share": confirmed.share,
        "alone": answer.alone(found, confirmed, target),
        "price": price_of(confirmed.entry),
        "engine": _engine(found.question, confirmed.entry),
    }


def _engine(question: Question, entry: Entry) -> Json:
    """The engine of a plan, and whether anybody asked for it."""
    asked = "engine" in question.varied or bool(find(question.loaded.tree, ("engine",))[0])
    name = question.scenario(entry.screened.candidate.setting).engine
    return {"name": name, "assumed": not asked}


def _nothing(found: Found) -> DeploymentError:
    """No worker can be built."""
    says = "; ".join(lost_pins(found)) or "; ".join(_unbuilt(found)) or "every candidate is excluded"
    return DeploymentError([Problem(("search",), f"no deployment can be built: {says}")])


def _unbuilt(found: Found) -> Iterator[str]:
    """The GPUs of which no worker can be built, and why: what is said of all of them, or else of the first."""
    reasons: dict[str, list[str]] = {}
    for refused in found.refused:
        reasons.setdefault(refused.job.setting["gpu"], []).append(refused.why)
    built = {entry.screened.candidate.setting["gpu"] for entry in found.entries}
    for gpu in (name for name in reasons if name not in built):
        parts = [why.split("; ") for why in reasons[gpu]]
        common = [part for part in parts[0] if all(part in other for other in parts)]
        yield f"{gpu}: {'; '.join(common or parts[0])}"


def _narrow(found: Found) -> Iterator[str]:
    """By GPU, the smallest worker, and smaller than all that can be built, that one of the settings which a plan leaves
    as the engine has them keeps from being built: without it the plan may be dearer."""
    built: dict[str, int] = {}
    for entry in found.entries:
        candidate = entry.screened.candidate
        least = min(int(shape["gpus"]) for shape in candidate.pools.values())
        gpu = candidate.setting["gpu"]
        built[gpu] = min(least, built.get(gpu, least))
    told: dict[str, str] = {}
    for refused in found.refused:
        lacks, _, changes = refused.why.partition("; would fit: ")
        settings = [change for change in changes.split("; or ") if change.startswith(NO_MORE_GPUS)]
        gpu, shape = refused.job.setting["gpu"], refused.job.shape
        if settings and shape["gpus"] < built.get(gpu, 0):
            built[gpu] = int(shape["gpus"])
            worker = f"{shape['gpus']} x {gpu} (tp {shape['tp']}, ep {shape['ep']})"
            told[gpu] = f"{worker}: {lacks}; would fit with {' or '.join(settings)}"
    yield from told.values()
