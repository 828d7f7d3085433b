"""One's own measured points -> an anchor: factors of the simulation that are right there, and how far off they are
elsewhere. Several points are fitted together; each is then simulated with an anchor of others, made in the same way.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from sim.deployment.plan import resolve
from sim.scenario.anchor import AnchorError, AnchorFile, measured_on, written
from sim.scenario.schema import Scenario
from sim.validation.anchor_fit import METRICS, Factors, Lines
from sim.validation.anchor_judged import judged, off
from sim.validation.rows import Published
from sim.validation.runs import Answer, Benchmark, Progress, Trial, answers

THROUGHPUTS: Final = ("total_tput_per_gpu", "output_tput_per_gpu")
"""Of a benchmark, the first one that it has."""


class NoAnchor(ValueError):
    """Points that no anchor can be made from; says why."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """An anchor made, and the simulated figures of its points: without it, with it, and each with one from the others
    (empty where there is one point)."""

    form: AnchorFile
    before: Sequence[Mapping[str, float]]
    after: Sequence[Mapping[str, float]]
    left_out: Sequence[Mapping[str, float]]


def make_anchor(points: Sequence[Benchmark], workers: int = 1, progress: Progress | None = None) -> Anchored:
    """The anchor of a deployment from points of it; where there are several, also how far off it is on a point that it
    was not made from. Where that is further (median of TPOT or TTFT) than without an anchor, the points contradict each
    other: this part of it changes nothing (`judged`).

    Raises NoAnchor where no point has a TPOT, one cannot be simulated, or they are of several deployments.
    """
    trials = [_unanchored(point.trials[0]) for point in points]
    _check(points)
    scenario = trials[0].scenario
    kind = "aggregated" if scenario.deployment.serve else "disaggregated"
    with tempfile.TemporaryDirectory() as folder:

        def simulate(asked: Sequence[tuple[int, Factors]]) -> list[dict[str, float]]:
            changed = [
                replace(trials[i], scenario=with_anchor(trials[i].scenario, factors, Path(folder)))
                for i, factors in asked
            ]
            done = answers(changed, workers, progress)
            return [figures(points[i], answer) for (i, _), answer in zip(asked, done, strict=True)]

        fixed_s: float = getattr(resolve(scenario).engine, f"fixed_ttft_{kind}_s")
        told = [measured(point) for point in points]
        lines = Lines(told, simulate, fixed_s, kind == "aggregated")
        found = judged(lines, told, simulate)
    made, left_out = found.made, found.left_out
    form = AnchorFile(
        step_factor=made.step_factor,
        prompt_factor=made.prompt_factor,
        step_constant_s=made.step_constant_s,
        ttft_added_s=made.ttft_added_s,
        measured_on=measured_on(scenario),
        points=[
            _told(point, b, a, left_out[i] if left_out else None)
            for i, (point, b, a) in enumerate(zip(points, lines.base, found.after, strict=True))
        ],
        error=_error(told, left_out) if left_out else None,
        notes=list(found.notes),
        version=metadata.version("tokenworks"),
    )
    return Anchored(form, lines.base, found.after, left_out)


def measured(point: Benchmark) -> dict[str, float]:
    """The figures of a point that an anchor looks at, by `METRICS`."""
    return {name: one.value for name, (_, one) in _looked_at(point).items()}


def with_anchor(scenario: Scenario, factors: Factors, folder: Path) -> Scenario:
    """The scenario with these factors, in a file of `folder`."""
    file = folder / f"{'_'.join(map(repr, astuple(factors)))}.json"
    form = AnchorFile(
        step_factor=factors.step_factor,
        prompt_factor=factors.prompt_factor,
        step_constant_s=factors.step_constant_s,
        ttft_added_s=factors.ttft_added_s,
        measured_on=measured_on(scenario),
        points=[{}],
        version=metadata.version("tokenworks"),
    )
    if not file.exists():
        file.write_text(written(form), encoding="utf-8")
    return scenario.model_copy(update={"anchor": str(file)})


def figures(point: Benchmark, answer: Answer) -> dict[str, float]:
    """The same figures of a point's simulation. Raises NoAnchor where there is none."""
    if answer.outcome is None:
        raise NoAnchor(f"{point.columns['id']}: {answer.problem}")
    return {
        name: answer.outcome.value(metric, one.statistic)
        for name, (metric, one) in _looked_at(point).items()
        if metric in answer.outcome.values
    }


def _looked_at(point: Benchmark) -> dict[str, tuple[str, Published]]:
    """By `METRICS`: the metric of the benchmark, and what was measured."""
    rate = next((name for name in THROUGHPUTS if name in point.published), None)
    names = {"tpot": "tpot", "ttft": "ttft", "throughput": rate}
    return {
        name: (metric, point.published[metric])
        for name, metric in names.items()
        if metric is not None and metric in point.published
    }


def _unanchored(trial: Trial) -> Trial:
    return replace(trial, scenario=trial.scenario.model_copy(update={"anchor": None}))


def _check(points: Sequence[Benchmark]) -> None:
    if not any("tpot" in point.published for point in points):
        raise NoAnchor("no point has a TPOT, which tells how long a step takes; expected one at least")
    first = measured_on(points[0].trials[0].scenario)
    for point in points[1:]:
        if measured_on(point.trials[0].scenario) != first:
            told = f"{points[0].columns['id']} and {point.columns['id']}"
            raise NoAnchor(f"{told} are of two deployments; expected the points of one")


def _told(
    point: Benchmark,
    before: Mapping[str, float],
    after: Mapping[str, float],
    left_out: Mapping[str, float] | None,
) -> dict[str, Any]:
    """A point, for the file."""
    told: dict[str, Any] = {"id": point.columns["id"], "load": point.columns["point"]}
    for name, value in measured(point).items():
        told[name] = {"measured": value, "simulated": before[name], "anchored": after[name]}
        if left_out:
            told[name]["from_the_others"] = left_out[name]
    return told


def _error(told: Sequence[Mapping[str, float]], left_out: Sequence[Mapping[str, float]]) -> AnchorError:
    """Medians over the points, each simulated with the anchor of the others."""
    return AnchorError(**{name: off(told, left_out, name) for name in METRICS}, left_out=len(told))
