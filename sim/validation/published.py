"""The published cases of `scenarios/published`, or of any file of that form, simulated."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sim.deployment.plan import resolve
from sim.validation.case import Case, described
from sim.validation.case_file import CaseFile, Figure, Head, PublishedStep, read_case
from sim.validation.day_figures import cases as day_cases
from sim.validation.points import points, tokens_per_s
from sim.validation.rows import Published
from sim.validation.runs import Benchmark, Trial

FOLDERS: Final = (
    Path(__file__).parents[2] / "scenarios" / "published",
    Path(sys.prefix) / "share" / "tokenworks" / "scenarios" / "published",
)
"""Where the shipped cases lie: in the repository, or installed beside the package."""
SUFFIXES: Final = (".yaml", ".yml")


@cache
def shipped() -> Mapping[str, CaseFile]:
    """The product's own cases by id; none where they are not installed."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    files = [read_case(path) for path in sorted(folder.glob("*.yaml"))] if folder else []
    return {file.head.id: file for file in files}


def named(wanted: Iterable[str]) -> dict[str, CaseFile]:
    """Those of the names that are paths of case files, read. Raises ScenarioError."""
    return {name: read_case(Path(name)) for name in wanted if name.endswith(SUFFIXES)}


def cases(files: Sequence[CaseFile], seed: int) -> Iterator[Case]:
    """Of the files that price a step or simulate a day."""
    for file in files:
        if file.head.step:
            for figure in file.published:
                columns = {**_columns(file), **_said(figure), "metric": figure.metric}
                yield Case(published=figure.value, simulated=_priced(file, file.head.step, figure), **columns)
        elif file.head.day:
            for case in day_cases(file, file.head.day, _columns(file), seed):
                told = [one for one in file.published if one.metric == case.metric]
                yield replace(case, **_said(told[0])) if told else case


def benchmarks(files: Sequence[CaseFile], seed: int) -> list[Benchmark]:
    """Of the files that run a whole scenario."""
    found = []
    for file in files:
        if file.head.kind == "run":
            arrivals, requests = file.scenario.workload.arrivals, file.scenario.workload.requests
            assert requests
            loop = arrivals.closed_loop if arrivals else None
            trial = Trial(file.scenario, seed, loop.concurrency if loop else requests, requests)
            told = {one.metric: Published(one.value, _statistic(one)) for one in file.published}
            columns = {name: value for name, value in _columns(file).items() if name != "note"}
            found.append(Benchmark(columns, told, [trial]))
    return found


def with_bands(found: Iterable[Case], files: Sequence[CaseFile]) -> list[Case]:
    """The cases, those of the files' runs with what the files say about their figures."""
    said = {(file.head.id, one.metric): (file.head, one) for file in files for one in file.published}
    return [
        case
        if case.band or (case.id, case.metric) not in said
        else _dressed(case, *said[case.id, case.metric])
        for case in found
    ]


def _dressed(case: Case, head: Head, figure: Figure) -> Case:
    return replace(case, **_said(figure), note=" ".join(filter(None, (head.note, case.note))))


def _columns(file: CaseFile) -> dict[str, Any]:
    phase = file.head.step.phase if file.head.step else "service"
    head = file.head
    return {"id": head.id, "layout": head.layout, "point": head.point, "note": head.note} | described(
        file.scenario, phase
    )


def _said(figure: Figure) -> dict[str, Any]:
    told = {name: getattr(figure, name) for name in ("unit", "source", "date", "quality", "why", "missed")}
    return told | {"band": figure.within()}


def _statistic(figure: Figure) -> str:
    return "rate" if figure.metric.endswith("_per_gpu") else figure.statistic


def _priced(file: CaseFile, step: PublishedStep, figure: Figure) -> float:
    """Seconds per token of a sequence, or tokens per second of a node."""
    deployment = resolve(file.scenario, step.phase)
    plan = deployment.pool(step.phase)
    rate = tokens_per_s(deployment, step.phase, step.batch, step.context)
    if figure.metric.endswith("tpot"):
        return plan.dp * step.batch / rate
    return rate * float(points()["gpus_per_node"]) / plan.gpus
