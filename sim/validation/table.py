"""A table of published rows -> every row simulated, and how far off it is.

Rows that share deployment, lengths and load are simulated once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from sim.parallel import each
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.validation.blame import Composition, composition
from sim.validation.errors import Case, by_metric, grouped, score, score_by_layout
from sim.validation.points import ALL, point_ids, validate_points
from sim.validation.recipes import recipes
from sim.validation.rows import Row, read_table
from sim.validation.scenarios import Outcome, outcome, scenario_of
from sim.validation.skips import skipped
from sim.validation.split import split_of

Progress = Callable[[int, int], None]

SHIPPED: Final = Path(__file__).parent / "data" / "rows.parquet"
"""The published rows that come with the product; see `data/README.md`."""


@dataclass(frozen=True)
class Job:
    """One simulation, picklable."""

    scenario: Scenario
    seed: int
    conc: int
    prompts: int
    """Prompts of the published benchmark."""


@dataclass(frozen=True)
class Answer:
    """What a job gave: an outcome, or why there is none."""

    outcome: Outcome | None = None
    problem: str = ""


def run_job(job: Job) -> Answer:
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


@dataclass(frozen=True)
class Validation:
    """Every case, what was skipped, and what the decode steps are made of."""

    cases: Sequence[Case]
    skipped: Mapping[str, str]
    compositions: Mapping[str, Composition]
    """By row id; rows of one simulation share theirs."""
    max_prompts: int
    seed: int
    by_recipe: int = 0
    """Rows that were simulated with the flags of InferenceX's launch scripts; the others with the engines' defaults."""
    by_default: int = 0
    ignored: tuple[str, ...] = ()
    """Columns of the table that say nothing to the simulation."""

    def simulations(self) -> list[str]:
        """One row id per simulation: the first of those that share it."""
        firsts: dict[int, str] = {}
        for row_id, made in self.compositions.items():
            firsts.setdefault(id(made), row_id)
        return list(firsts.values())

    def json(self) -> dict[str, Any]:
        """The names of INTERFACES, and scores by split and by layout."""
        splits = {
            name: _scores([c for c in self.cases if c.split == name])
            for name in dict.fromkeys(c.split for c in self.cases)
            if name
        }
        return {
            "cases": [case.json() for case in self.cases],
            "median_abs_error": by_metric(self.cases, lambda s: s.median),
            "p90_abs_error": by_metric(self.cases, lambda s: s.p90),
            "skipped": [{"id": id, "reason": reason} for id, reason in self.skipped.items()],
            "scores": {"all": _scores(self.cases), **splits},
            "layouts": {
                name: {metric: s.json() for metric, g in _metrics(group) if (s := score(g))}
                for name, group in grouped(self.cases, lambda c: c.layout).items()
            },
            "compositions": {row_id: self.compositions[row_id].json() for row_id in self.simulations()},
            "rows": {"inferencex_flags": self.by_recipe, "engine_defaults": self.by_default},
            "ignored_columns": list(self.ignored),
            "max_prompts": self.max_prompts,
            "seed": self.seed,
        }


def _metrics(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    return list(grouped(cases, lambda case: case.metric).items())


def _scores(cases: Sequence[Case]) -> dict[str, Any]:
    """Per metric: every case once, and every layout once."""
    return {
        metric: {
            "by_case": (found := score(group)) and found.json(),
            "by_layout": (layouts := score_by_layout(group)) and layouts.json(),
        }
        for metric, group in _metrics(cases)
    }


class UnknownCase(LookupError):
    """No case has this id; says which do."""


def validate(
    path: Path,
    ids: Sequence[str] = (),
    *,
    points: bool = False,
    max_prompts: int = 2000,
    workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Simulate the rows of a table and, with `points`, the published steps and gains; only `ids` where some are given.

    max_prompts: bound on the prompts of a row; see `scenario_of`.

    Raises:
        TableError: the table is no table.
        UnknownCase: neither a row nor a point has one of the ids.
    """
    table = read_table(path)
    rows = table.rows
    steps = point_ids() if points else []
    known = {*steps, *([ALL] if points else []), *(row.id for row in rows)}
    if strange := [id for id in ids if id not in known]:
        near = get_close_matches(strange[0], known, 3, cutoff=0.3) or [*steps, *(row.id for row in rows)][:3]
        raise UnknownCase(f"no case '{strange[0]}' in {path.name}; expected an id such as {', '.join(near)}")
    if ids:
        rows = [row for row in rows if row.id in ids]
        steps = [id for id in steps if ALL in ids or id in ids]
    found = validate_rows(rows, max_prompts, workers, seed, progress)
    ignored = () if path == SHIPPED else table.ignored
    return replace(found, cases=[*validate_points(steps), *found.cases], ignored=ignored)


def validate_rows(
    rows: Sequence[Row],
    max_prompts: int = 2000,
    workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    change: Callable[[Scenario], Scenario] = lambda scenario: scenario,
) -> Validation:
    """As `validate`, on rows at hand. `change` is applied to every scenario: what-if on the whole table."""
    reasons = skipped(rows)
    jobs: dict[str, Job] = {}
    owners: dict[str, str] = {}
    per_seat = recipes()["benchmark"]["prompts_per_seat"]["value"]
    for row in rows:
        if row.id not in reasons:
            scenario = change(scenario_of(row, max_prompts))
            owners[row.id] = scenario.model_dump_json()
            jobs.setdefault(owners[row.id], Job(scenario, seed, row.conc, row.conc * per_seat))
    answers: dict[str, Answer] = {}
    lost = Answer(problem="its process died twice (out of memory?)")
    for key, answer in zip(jobs, each(run_job, list(jobs.values()), workers, lambda _: lost), strict=True):
        answers[key] = answer
        if progress:
            progress(len(answers), len(jobs))
    cases: list[Case] = []
    made: dict[str, Composition] = {}
    for row in rows:
        if row.id in reasons:
            continue
        answer = answers[owners[row.id]]
        if answer.outcome is None:
            reasons[row.id] = answer.problem
            continue
        cases += _cases(row, answer.outcome)
        if owners[row.id] not in made:
            tpot_s = answer.outcome.value("tpot", "p50")
            made[owners[row.id]] = composition(jobs[owners[row.id]].scenario, tpot_s)
    compositions = {id: made[owner] for id, owner in owners.items() if owner in made}
    simulated = [row for row in rows if row.id in compositions]
    by_recipe = sum(row.by_recipe for row in simulated)
    return Validation(cases, reasons, compositions, max_prompts, seed, by_recipe, len(simulated) - by_recipe)


def _cases(row: Row, found: Outcome) -> list[Case]:
    template = Case(
        row.id,
        "",
        0.0,
        0.0,
        split_of(row.deployment_id),
        row.layout,
        f"{row.isl}/{row.osl} conc {row.conc}",
        row.model,
    )
    return [
        replace(
            template,
            metric=metric,
            published=one.value,
            simulated=found.value(metric, one.statistic),
        )
        for metric, one in row.published.items()
    ]
