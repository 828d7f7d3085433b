"""One's own measured points -> an anchor: factors of the simulation that are right there, and how far off they are
elsewhere.

    TPOT(x, c) = T + J_x x + J_c c          T and the slopes J by three simulations of each point
    x, c minimise  sum ((TPOT - M) / (scatter M))^2 + (x / width_x)^2 + (c / width_c)^2
    TTFT with them, simulated, leaves the fixed part a by the same rule

M is what was measured, 1 + x the factor and c the constant of a step. One point cannot tell a factor from a constant:
the widths (`anchors.yaml`) share its difference out, and keep a point that contradicts others from having it all.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import yaml

from sim.deployment.plan import resolve
from sim.scenario.anchor import AnchorError, AnchorFile, measured_on, written
from sim.scenario.schema import Scenario
from sim.validation.rows import Published
from sim.validation.runs import Answer, Benchmark, Progress, Trial, answers

FILE: Final = Path(__file__).with_name("anchors.yaml")
THROUGHPUTS: Final = ("total_tput_per_gpu", "output_tput_per_gpu")
"""Of a benchmark, the first one that it has."""
METRICS: Final = ("tpot", "ttft", "throughput")


class NoAnchor(ValueError):
    """Points that no anchor can be made from; says why."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What an anchor changes; nothing, unless said."""

    step_factor: float = 1.0
    step_constant_s: float = 0.0
    ttft_added_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Anchored:
    """An anchor made, and the simulated figures of its points: without it, with it, and each with one from the others
    (empty where there is one point)."""

    form: AnchorFile
    before: Sequence[Mapping[str, float]]
    after: Sequence[Mapping[str, float]]
    left_out: Sequence[Mapping[str, float]]


@cache
def rules() -> Mapping[str, Mapping[str, float]]:
    """`anchors.yaml`, the values."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {part: {name: fact["value"] for name, fact in facts.items()} for part, facts in content.items()}


def make_anchor(points: Sequence[Benchmark], workers: int = 1, progress: Progress | None = None) -> Anchored:
    """The anchor of a deployment from points of it; where there are several, also how far off it is on a point that it
    was not made from.

    Raises NoAnchor where no point has a TPOT, one cannot be simulated, or they are of several deployments.
    """
    trials = [_unanchored(point.trials[0]) for point in points]
    _check(points)
    with tempfile.TemporaryDirectory() as folder:
        runs = _Runs(Path(folder), workers, progress)
        step = rules()["difference"]
        nothing = [Factors()] * len(points)
        slower = [Factors(step_factor=1 + step["step_factor"])] * len(points)
        later = [Factors(step_constant_s=step["step_constant_s"])] * len(points)
        base, by_factor, by_constant = (
            runs.figures(points, trials, each) for each in (nothing, slower, later)
        )
        slopes = np.array(
            [
                [
                    (f["tpot"] - b["tpot"]) / step["step_factor"],
                    (c["tpot"] - b["tpot"]) / step["step_constant_s"],
                ]
                if "tpot" in b
                else [0.0, 0.0]
                for b, f, c in zip(base, by_factor, by_constant, strict=True)
            ]
        )
        every = list(range(len(points)))
        steps = _steps(points, base, slopes, every)
        stepped = runs.figures(points, trials, [steps] * len(points))
        scenario = trials[0].scenario
        made = _with_ttft(scenario, points, stepped, steps, every)
        after = runs.figures(points, trials, [made] * len(points))
        left_out = []
        if len(points) > 1:
            without = [
                _with_ttft(scenario, points, stepped, _steps(points, base, slopes, others), others)
                for left in every
                for others in [[i for i in every if i != left]]
            ]
            left_out = runs.figures(points, trials, without)
    form = AnchorFile(
        step_factor=made.step_factor,
        step_constant_s=made.step_constant_s,
        ttft_added_s=made.ttft_added_s,
        measured_on=measured_on(trials[0].scenario),
        points=[
            _told(point, b, a, left_out[i] if left_out else None)
            for i, (point, b, a) in enumerate(zip(points, base, after, strict=True))
        ],
        error=_error(points, left_out) if left_out else None,
        version=metadata.version("tokenworks"),
    )
    return Anchored(form, base, after, left_out)


def measured(point: Benchmark) -> dict[str, float]:
    """The figures of a point that an anchor looks at, by `METRICS`."""
    return {name: one.value for name, (_, one) in _looked_at(point).items()}


def with_anchor(scenario: Scenario, factors: Factors, folder: Path) -> Scenario:
    """The scenario with these factors, in a file of `folder`."""
    file = folder / f"{factors.step_factor!r}_{factors.step_constant_s!r}_{factors.ttft_added_s!r}.json"
    form = AnchorFile(
        step_factor=factors.step_factor,
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


class _Runs:
    """Simulations with factors, told as one progress."""

    def __init__(self, folder: Path, workers: int, progress: Progress | None) -> None:
        self._folder, self._workers, self._progress = folder, workers, progress

    def figures(
        self, points: Sequence[Benchmark], trials: Sequence[Trial], factors: Sequence[Factors]
    ) -> list[dict[str, float]]:
        changed = [
            replace(trial, scenario=with_anchor(trial.scenario, one, self._folder))
            for trial, one in zip(trials, factors, strict=True)
        ]
        found = answers(changed, self._workers, self._progress)
        return [figures(point, answer) for point, answer in zip(points, found, strict=True)]


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


def _steps(
    points: Sequence[Benchmark], base: Sequence[Mapping[str, float]], slopes: Any, of: Sequence[int]
) -> Factors:
    """Factor and constant of a step, from the TPOT of these points."""
    width, scatter = rules()["width"], rules()["scatter"]["tpot"]
    rows, target = [[1 / width["step_factor"], 0.0], [0.0, 1 / width["step_constant_s"]]], [0.0, 0.0]
    for i in of:
        told = measured(points[i])
        if "tpot" in told and "tpot" in base[i]:
            weight = 1 / (scatter * told["tpot"])
            rows.append([weight * slope for slope in slopes[i]])
            target.append(weight * (told["tpot"] - base[i]["tpot"]))
    x, c = np.linalg.lstsq(np.array(rows), np.array(target), rcond=None)[0].tolist()
    return Factors(max(0.05, 1 + x), c)


def _with_ttft(
    scenario: Scenario,
    points: Sequence[Benchmark],
    stepped: Sequence[Mapping[str, float]],
    steps: Factors,
    of: Sequence[int],
) -> Factors:
    """The same with the fixed part of TTFT, from what these points lack when their steps are right; never less than
    takes the engine's own away."""
    kind = "aggregated" if scenario.deployment.serve else "disaggregated"
    width, scatter = rules()["width"][f"ttft_{kind}_s"], rules()["scatter"]["ttft"]
    lacks, weights = 0.0, 1 / width**2
    for i in of:
        told = measured(points[i])
        if "ttft" in told:
            weight = (scatter * max(told["ttft"], stepped[i]["ttft"])) ** -2
            lacks += weight * (told["ttft"] - stepped[i]["ttft"])
            weights += weight
    fixed: float = getattr(resolve(scenario).engine, f"fixed_ttft_{kind}_s")
    return replace(steps, ttft_added_s=max(-fixed, lacks / weights))


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


def _error(points: Sequence[Benchmark], left_out: Sequence[Mapping[str, float]]) -> AnchorError:
    """Medians over the points, each simulated with the anchor of the others."""

    def of(metric: str) -> float | None:
        errors = [
            abs(found[metric] / told[metric] - 1)
            for point, found in zip(points, left_out, strict=True)
            if metric in (told := measured(point)) and metric in found
        ]
        return median(errors) if errors else None

    return AnchorError(**{name: of(name) for name in METRICS}, left_out=len(points))
