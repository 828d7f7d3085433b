"""Published services -> their simulations, each scenario once, and the cases that they give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.parallel import each
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.validation.blame import Composition, composition, explainable
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
    composed: bool = False
    """Whether the answer is to tell what its mean decode step is made of."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trial gave: an outcome, or why there is none."""

    outcome: Outcome | None = None
    problem: str = ""
    note: str = ""
    composition: Composition | None = None
    """What the mean decode step is made of, where that was asked for and can be told; priced where the trial ran,
    beside its tables."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published benchmark: what its client printed, and the simulation that repeats it."""

    columns: Mapping[str, Any]
    """Those of its cases, the id among them."""
    published: Mapping[str, Published]
    trials: Sequence[Trial]
    """The first gives the figures, all of them the range that they lie in."""

    def cases(self, found: Sequence[Answer]) -> Iterator[Case]:
        """One per published metric, from the answers of `trials`."""
        outcomes = [answer.outcome for answer in found if answer.outcome]
        for metric, one in self.published.items():
            values = [outcome.value(metric, one.statistic) for outcome in outcomes]
            yield Case(
                metric=metric,
                published=one.value,
                simulated=values[0],
                simulated_range=(min(values), max(values)) if len(values) > 1 else None,
                note=found[0].note,
                **self.columns,
            )


def run_trial(trial: Trial) -> Answer:
    """Simulate a trial; what the deployment does not allow comes back as words. Kernels of the experts that no table of
    the GPU has give way to the engine's own. Rows are kept whatever the scenario says: what a client prints needs them.
    """
    scenario, note = trial.scenario.model_copy(update={"metrics": "rows"}), ""
    try:
        try:
            result = simulate(scenario, trial.seed)
        except DeploymentError as error:
            if not all(problem.path[-1] == "moe_backend" for problem in error.problems):
                raise
            scenario, named = _without_backends(scenario)
            note = f"no table of {named} kernels here: the engine's own"
            result = simulate(scenario, trial.seed)
    except (DeploymentError, ScenarioError) as error:
        return Answer(problem=f"cannot run: {error}")
    if broken := result.record.invariants:
        return Answer(problem=f"an invariant of the simulation did not hold: {broken[0]}")
    if result.record.requests.rejected.any():
        return Answer(problem="the KV cache does not hold a single request")
    found = outcome(result, trial.conc, trial.prompts)
    asked = trial.composed and "tpot" in found.values and explainable(scenario)
    made = composition(scenario, found.value("tpot", "p50")) if asked else None
    return Answer(found, note=note, composition=made)


def _without_backends(scenario: Scenario) -> tuple[Scenario, str]:
    """The scenario with the engine's own kernels of the experts, and the ones that it named."""
    pools = scenario.deployment.pools()
    named = ", ".join(sorted({pool.moe_backend for pool in pools.values() if pool.moe_backend}))
    own = {role: pool.model_copy(update={"moe_backend": None}) for role, pool in pools.items()}
    return scenario.model_copy(update={"deployment": scenario.deployment.model_copy(update=own)}), named


def answers(trials: Sequence[Trial], workers: int, progress: Progress | None) -> list[Answer]:
    """The answer of every trial; equal ones share one simulation, and its answer."""
    keys = [trial.scenario.model_dump_json() for trial in trials]
    first: dict[str, Trial] = {}
    for key, trial in zip(keys, trials, strict=True):
        first.setdefault(key, trial)
    lost = Answer(problem="its process died twice (out of memory?)")
    found: dict[str, Answer] = {}
    for key, answer in zip(
        first, each(run_trial, list(first.values()), workers, lambda _: lost), strict=True
    ):
        found[key] = answer
        if progress:
            progress(len(found), len(first))
    return [found[key] for key in keys]
