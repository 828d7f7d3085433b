"""One's own measured points -> an anchor: factors of the simulation that are right there, and how far off they are
elsewhere.

    TPOT(x, c) = T + J_x x + J_c c          T and the slopes J by three simulations of each point
    TTFT(a) = F + a
    x, c, a minimise  sum ((TPOT - M) / (scatter M))^2 + ... + (x / width_x)^2 + (c / width_c)^2 + (a / width_a)^2

M is what was measured, 1 + x the factor and c the constant of a step, a the fixed part of TTFT. A few short answers
follow no line: while a point is off by more than its scatter, T and F are simulated again with what was found, a few
times, and the factors with the least sum stay.
One point cannot tell a factor from a constant: the widths (`anchors.yaml`) share its difference out, and keep a point
that contradicts others from having it all.
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
        lines = _Lines(points, slopes, trials[0].scenario)
        steps = replace(lines.solved(base, Factors()), ttft_added_s=0.0)
        stepped = runs.figures(points, trials, [steps] * len(points))

        def first(left_out: int | None = None) -> Factors:
            added = lines.solved(stepped, steps, left_out).ttft_added_s
            return replace(lines.solved(base, Factors(), left_out), ttft_added_s=added)

        made, after, least = Factors(), base, lines.off(base, Factors())
        factors = first()
        for _ in range(int(rules()["difference"]["rounds"])):
            found = runs.figures(points, trials, [factors] * len(points))
            if (off := lines.off(found, factors)) < least:
                made, after, least = factors, found, off
            if lines.explained(found):
                break
            factors = lines.solved(found, factors)
        left_out = []
        if len(points) > 1:
            left_out = runs.figures(points, trials, [first(left) for left in range(len(points))])
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


class _Lines:
    """TPOT as a line over a step's factor and constant, TTFT over its fixed part, at every point.

    slopes: of TPOT, points x (factor, constant).
    """

    def __init__(self, points: Sequence[Benchmark], slopes: Any, scenario: Scenario) -> None:
        self._measured, self._slopes = [measured(point) for point in points], slopes
        kind = "aggregated" if scenario.deployment.serve else "disaggregated"
        width, self._scatter = rules()["width"], rules()["scatter"]
        self._widths = np.array([width[n] for n in ("step_factor", "step_constant_s", f"ttft_{kind}_s")])
        self._fixed_s: float = getattr(resolve(scenario).engine, f"fixed_ttft_{kind}_s")

    def solved(
        self, found: Sequence[Mapping[str, float]], used: Factors, left_out: int | None = None
    ) -> Factors:
        """The factors of the least sum, going on from the figures `found` with those that were used. TTFT never loses
        more than the engine's own fixed part."""
        at = _as_array(used)
        rows, target = [*np.diag(1 / self._widths)], [0.0] * len(at)
        for i, (told, here) in enumerate(zip(self._measured, found, strict=True)):
            if i == left_out:
                continue
            for name, slope in (("tpot", [*self._slopes[i], 0.0]), ("ttft", [0.0, 0.0, 1.0])):
                if name in told and name in here:
                    weight = 1 / self._scale(name, told, here)
                    rows.append(weight * np.array(slope))
                    target.append(weight * (told[name] - here[name] + float(np.dot(slope, at))))
        x, c, a = np.linalg.lstsq(np.array(rows), np.array(target), rcond=None)[0].tolist()
        return Factors(max(0.05, 1 + x), c, max(-self._fixed_s, a))

    def off(self, found: Sequence[Mapping[str, float]], used: Factors) -> float:
        """The sum that is to be least, of these figures."""
        total = float(np.sum((_as_array(used) / self._widths) ** 2))
        for told, here in zip(self._measured, found, strict=True):
            for name in ("tpot", "ttft"):
                if name in told and name in here:
                    total += ((here[name] - told[name]) / self._scale(name, told, here)) ** 2
        return total

    def explained(self, found: Sequence[Mapping[str, float]]) -> bool:
        """Whether nothing is further off than what no factor explains."""
        return all(
            abs(here[name] - told[name]) <= self._scale(name, told, here)
            for told, here in zip(self._measured, found, strict=True)
            for name in ("tpot", "ttft")
            if name in told and name in here
        )

    def _scale(self, name: str, told: Mapping[str, float], here: Mapping[str, float]) -> float:
        """Seconds that no factor explains; of a TTFT that is simulated too long, as a share of that."""
        return self._scatter[name] * (max(told[name], here[name]) if name == "ttft" else told[name])


def _as_array(factors: Factors) -> Any:
    """x, c and a of the module's docstring."""
    return np.array([factors.step_factor - 1, factors.step_constant_s, factors.ttft_added_s])


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
