"""Published measurements -> every one simulated, and how far off it is: rows of a table, single steps and gains."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from sim.scenario.schema import Scenario
from sim.validation import draft_gains, points, position_curves, services
from sim.validation import published as files_of
from sim.validation.bands import banded
from sim.validation.blame import Composition
from sim.validation.case import Case, described
from sim.validation.case_file import CaseFile
from sim.validation.errors import by_metric, grouped, score, score_by_layout
from sim.validation.recipes import recipes
from sim.validation.rows import Row, read_rows, read_table
from sim.validation.runs import Benchmark, Progress, Trial, answers
from sim.validation.scenarios import draft_counts, scenario_of
from sim.validation.skips import skipped
from sim.validation.split import split_of

SHIPPED: Final = Path(__file__).parent / "data" / "rows.parquet"
"""The published rows of R1 that come with the product; see `data/README.md`."""
TABLES: Final = {"v4": SHIPPED.with_name("v4.parquet")}
"""Those of other models, by the name that means all of their rows."""
STEPS: Final = {"wide-ep": points, "drafts": draft_gains, "curves": position_curves}
"""Readers of published single steps, by the name that means all of their cases: each has `ids()` and `cases(ids)`."""
SERVICES: Final = services.KINDS[0]
"""The entries of `services.yaml`, which have bands."""
PUBLISHED: Final = "published"
"""The name that means the case files of `scenarios/published`."""


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


def shipped_rows() -> list[Row]:
    """Every published row that comes with the product."""
    return [row for path in (SHIPPED, *TABLES.values()) for row in read_rows(path)]


class UnknownCase(LookupError):
    """No case has this id; says which do."""


def validate(
    path: Path,
    wanted: Sequence[str] = (),
    *,
    published: bool = False,
    quick: bool = False,
    max_prompts: int = 2000,
    workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Simulate the rows of a table and, with `published`, those of `TABLES` and the services, single steps and case
    files that ship; only ids, names of readers or tables, or paths of case files in `wanted`, where there are some.

    quick: a `sample` of the rows, and of the case files those that say so.
    max_prompts: bound on the prompts of a row; see `scenario_of`.

    Raises:
        TableError: the table is no table.
        UnknownCase: nothing has one of the ids.
        ScenarioError: a case file is wrong.
    """
    table = read_table(path)
    own, shipped = files_of.named(wanted), files_of.shipped() if published else {}
    wanted = [id for id in wanted if id not in own]
    readers = {PUBLISHED: [*shipped]}
    tables: dict[str, list[str]] = {}
    rows = table.rows
    if published:
        readers |= {name: reader.ids() for name, reader in STEPS.items()}
        readers |= {kind: services.ids(kind) for kind in services.KINDS}
        more = {name: read_rows(of) for name, of in TABLES.items()}
        tables = {name: [row.id for row in found] for name, found in more.items()}
        rows = [*rows, *(row for found in more.values() for row in found)]
    readers |= tables
    ids = list(dict.fromkeys([id for ids in readers.values() for id in ids] + [row.id for row in rows]))
    if strange := [id for id in wanted if id not in {*readers, *ids}]:
        near = get_close_matches(strange[0], {*readers, *ids}, 3, cutoff=0.3) or ids[:3]
        raise UnknownCase(f"no case '{strange[0]}' in {path.name}; expected an id such as {', '.join(near)}")
    every = not wanted and not own
    asked = {
        name: [id for id in ids if every or name in wanted or id in wanted] for name, ids in readers.items()
    }
    named = {id for name in wanted for id in tables.get(name, ())} | {*wanted}
    rows = [row for row in rows if every or row.id in named]
    chosen = (shipped[id] for id in asked[PUBLISHED])
    files = [*own.values(), *(file for file in chosen if file.head.quick or not quick)]
    told = [id for kind in services.KINDS for id in asked.get(kind, [])]
    others = [*services.benchmarks(told, seed), *files_of.benchmarks(files, seed)]
    found = validate_rows(
        sample(rows) if quick else rows, max_prompts, workers, seed, progress, others=others
    )
    single = [
        case for name, reader in STEPS.items() for case in banded(reader.cases(asked.get(name, [])), name)
    ]
    served = _with_bands(found.cases, files)
    return replace(
        found,
        cases=[*single, *files_of.cases(files, seed), *served],
        ignored=() if path == SHIPPED else table.ignored,
    )


def _with_bands(cases: Sequence[Case], files: Sequence[CaseFile]) -> Iterator[Case]:
    """Cases of runs, those of services and case files with their bands."""
    service_ids = {*services.ids(SERVICES)}
    for case in files_of.with_bands(cases, files):
        yield from banded([case], SERVICES) if case.id in service_ids else [case]


def sample(rows: Sequence[Row]) -> list[Row]:
    """Of every GPU, engine, format and kind of service the row with the least work that is simulated at all."""
    left_out = skipped(rows)
    kinds: dict[tuple[str, ...], Row] = {}
    for row in sorted(rows, key=lambda r: (r.conc * (r.isl + r.osl), r.id)):
        if row.id not in left_out:
            kinds.setdefault((row.model, row.hardware, row.framework, row.precision, row.spec), row)
    return list(kinds.values())


def validate_rows(
    rows: Sequence[Row],
    max_prompts: int = 2000,
    workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    change: Callable[[Scenario], Scenario] = lambda scenario: scenario,
    others: Sequence[Benchmark] = (),
) -> Validation:
    """As `validate`, on rows at hand, after `others`. `change` is applied to the scenario of every row: what-if on
    the whole table.
    """
    reasons = skipped(rows)
    kept = [row for row in rows if row.id not in reasons]
    benchmarks = [*others, *(benchmark_of(row, max_prompts, seed, change) for row in kept)]
    cases: list[Case] = []
    compositions: dict[str, Composition] = {}
    trials = [replace(trial, composed=True) for one in benchmarks for trial in one.trials]
    found = iter(answers(trials, workers, progress))
    for benchmark in benchmarks:
        mine, id_ = [next(found) for _ in benchmark.trials], benchmark.columns["id"]
        answer = mine[0]
        if answer.outcome is None:
            reasons[id_] = answer.problem
            continue
        cases += benchmark.cases(mine)
        if answer.composition:
            compositions[id_] = answer.composition
    simulated = [row for row in kept if row.id not in reasons]
    by_recipe = sum(row.by_recipe for row in simulated)
    return Validation(cases, reasons, compositions, max_prompts, seed, by_recipe, len(simulated) - by_recipe)


def benchmark_of(
    row: Row, max_prompts: int, seed: int, change: Callable[[Scenario], Scenario] = lambda scenario: scenario
) -> Benchmark:
    """The published benchmark of a row, and the simulation that repeats it with `change` applied."""
    scenarios = [change(scenario_of(row, max_prompts, drafts)) for drafts in reversed(draft_counts(row))]
    columns = {
        "id": row.id,
        "split": split_of(row.deployment_id),
        "layout": row.layout,
        "point": f"{row.isl}/{row.osl} conc {row.conc}",
        "source": row.source,
        **described(scenarios[0], "service"),
    }
    prompts = row.conc * recipes()["benchmark"]["prompts_per_seat"]["value"]
    return Benchmark(columns, row.published, [Trial(one, seed, row.conc, prompts) for one in scenarios])
