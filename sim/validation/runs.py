"""Published services -> their simulations, each scenario once, and the cases that they give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.parallel import each
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.validation.case import Case
from sim.validation.rows import Published
from sim.validation.scenarios import Outcome, outcome

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulation, picklable."""

    scenario: Scenario
    seed: int
    conc: int
    prompts: int
    """Prompts of the published benchmark."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job gave: an outcome, or why there is none."""

    outcome: Outcome | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published benchmark: what its client printed, and the simulation that repeats it."""

    columns: Mapping[str, Any]
    """Those of its cases, the id among them."""
    published: Mapping[str, Published]
    job: Trial

    def cases(self, found: Outcome) -> Iterator[Case]:
        """One per published metric."""
        for metric, one in self.published.items():
            simulated = found.value(metric, one.statistic)
            yield Case(metric=metric, published=one.value, simulated=simulated, **self.columns)


def run_job(job: Trial) -> Answer:
    """Simulate a job; what the deployment does not allow comes back as words."""
    try:
        result = simulate(job.scenario, job.seed)
    except (DeploymentError, ScenarioError) as error:
        return Answer(problem=f"cannot run: {error}")
    if broken := result.record.invariants:
        return Answer(problem=f"an invariant of the simulation did not hold: {broken[0]}")
    if result.record.requests.rejected.any():
        return Answer(problem="the KV cache does not hold a single request")
    return Answer(outcome(result, job.conc, job.prompts))


def answers(jobs: Sequence[Trial], workers: int, progress: Progress | None) -> list[Answer]:
    """The answer of every job; equal ones share one simulation, and its answer."""
    keys = [job.scenario.model_dump_json() for job in jobs]
    first: dict[str, Trial] = {}
    for key, job in zip(keys, jobs, strict=True):
        first.setdefault(key, job)
    lost = Answer(problem="its process died twice (out of memory?)")
    found: dict[str, Answer] = {}
    for key, answer in zip(first, each(run_job, list(first.values()), workers, lambda _: lost), strict=True):
        found[key] = answer
        if progress:
            progress(len(found), len(first))
    return [found[key] for key in keys]
