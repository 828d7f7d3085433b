"""Two profiles side by side: the times of one over those of the other, shape by shape, and what that does to a step."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as RichTable

from sim.cost.priced_table import PricedTable
from sim.cost.profile import Profile, Table
from sim.explain import explain
from sim.kernels import FAMILIES
from sim.scenario.loading import LoadedScenario, parse

Floats = NDArray[np.float64]

PHASES: Final = ("decode", "prefill")
STEP: Final = """
model: {model}
gpu: {gpu}
engine: {engine}
deployment:
  serve: {{workers: 1, gpus: 8, tp: 8, ep: 1, max_batch_per_gpu: 64}}
workload:
  arrivals: {{poisson: {{rate_per_s: 1}}}}
  lengths: {{input: {{lognormal: {{mean: 1000, cv: 1.0}}}}, output: {{lognormal: {{mean: 250, cv: 0.8}}}}}}
duration_s: 60
"""
"""The step that two profiles price unless a scenario is given: one node under tensor parallelism."""


@dataclass(frozen=True)
class Compared:
    """One table of a profile, at its own measured shapes, against another profile's table of the same kernels."""

    table: Table
    against: Table
    ratio: Floats
    """Own seconds over the other's, row by row; NaN where one of them measured nothing around the shape."""
    beside: tuple[str, ...] = ()
    """Families that one of both was timed with (`Table.includes`) and the other has apart: added there."""

    @property
    def known(self) -> Floats:
        """The ratios of the shapes that both can tell."""
        return self.ratio[~np.isnan(self.ratio)]

    def quantile(self, share: float) -> float | None:
        """A quantile of the ratios; None where no shape is common."""
        return float(np.quantile(self.known, share)) if len(self.known) else None

    @property
    def farthest(self) -> tuple[dict[str, float], float] | None:
        """The shape whose ratio is the farthest from 1, and the ratio; None where no shape is common."""
        if not len(self.known):
            return None
        row = int(np.nanargmax(np.abs(np.log(self.ratio))))
        return {axis: float(self.table.shape[axis][row]) for axis in FAMILIES[self.table.kernel].axes}, float(
            self.ratio[row]
        )


def compare(own: Profile, other: Profile) -> list[Compared]:
    """Every table of `own` that `other` has too: the same family, dtype and options; its first where it has several.

    `other` is asked at the shapes of `own`: measured, or between its measured shapes. What only one was timed with (the
    quantisation of a product's input) the other adds from its own table of it: both count the same.
    Raises ProfileError without fits.
    """
    found = []
    for table in _tables(own):
        rival = next((t for t in other.tables(table.kernel) if t.variant == table.variant), None)
        if rival is not None:
            priced = PricedTable(rival, other.dims)
            times = np.array([_inside(priced, shape) for shape in _shapes(table)])
            mine, theirs = set(table.includes), set(rival.includes)
            ratio = (table.seconds + _apart(own, theirs - mine, table)) / (
                times + _apart(other, mine - theirs, table)
            )
            found.append(Compared(table, rival, ratio, tuple(sorted(mine ^ theirs))))
    return found


def _apart(profile: Profile, kernels: Iterable[str], at: Table) -> Floats:
    """Seconds of families that a profile has in tables of their own, at the rows of a table; NaN where it lacks one."""
    seconds = np.zeros(len(at.seconds))
    for kernel in kernels:
        table = next(iter(profile.tables(kernel)), None)
        if table is None:
            return np.full(len(seconds), np.nan)
        priced, axes = PricedTable(table, profile.dims), FAMILIES[kernel].axes
        seconds += [_inside(priced, {axis: shape[axis] for axis in axes}) for shape in _shapes(at)]
    return seconds


def alone(own: Profile, other: Profile) -> list[str]:
    """Tables of `own` that `other` lacks."""
    return [t.key for t in _tables(own) if all(t.variant != o.variant for o in other.tables(t.kernel))]


def _tables(profile: Profile) -> Iterator[Table]:
    for kernel in profile.kernels:
        yield from profile.tables(kernel)


def _shapes(table: Table) -> Iterator[dict[str, float]]:
    for row in range(len(table.seconds)):
        yield {axis: float(values[row]) for axis, values in table.columns.items()}


def _inside(priced: PricedTable, shape: Mapping[str, float]) -> float:
    seconds, how = priced.seconds(shape)
    return seconds if how not in ("extrapolated", "scaled") else float("nan")


def ratio_table(compared: Sequence[Compared], own: Profile, other: Profile) -> RichTable:
    """One row per table: common shapes, ratios, and the shape that differs most."""
    title = f"seconds of {own.name} over those of {other.name}, at the shapes of the former"
    table = RichTable("table", "against", "shapes", "p10", "median", "p90", "farthest", title=title, box=None)
    for one in compared:
        ratios = ["" if (q := one.quantile(share)) is None else f"{q:.2f}" for share in (0.1, 0.5, 0.9)]
        far = one.farthest
        where = "no common shape" if far is None else f"{far[1]:.2f} at {_words(far[0])}"
        shapes = f"{len(one.known)} of {len(one.ratio)}"
        name = " + ".join((one.table.key, *one.beside))
        table.add_row(name, one.against.backend, shapes, *ratios, where)
    return table


def _words(shape: Mapping[str, float]) -> str:
    return ", ".join(f"{axis} {value:g}" for axis, value in shape.items())


def step_scenario(other: Profile) -> LoadedScenario:
    """The step that both price where none is given: on the other profile's GPU and engine."""
    text = STEP.format(model=other.header.get("model", "deepseek-v3.2"), gpu=other.gpu, engine=other.engine)
    return parse(text, "the step of calibrate diff")


def step_effect(loaded: LoadedScenario, own: Profile, other: Profile) -> dict[str, dict[str, Any]]:
    """Phase -> seconds of a step priced by each profile and their ratio, and the same for each of its operations.

    An operation that a profile does not know is priced as `run` would: by shipped tables of its GPU, or the roofline.
    """
    found = {}
    for phase in PHASES:
        priced = {}
        for name, profile in (("own", own), ("other", other)):
            scenario = loaded.scenario.model_copy(update={"profile": str(profile.path)})
            priced[name] = explain(scenario, phase)  # type: ignore[arg-type]
        seconds = {name: step.step_s for name, step in priced.items()}
        operations: dict[str, dict[str, float]] = defaultdict(lambda: {"own": 0.0, "other": 0.0})
        for name, step in priced.items():
            for one in step.operations:
                operations[one.operation.name][name] += one.total_s
        found[phase] = {
            "seconds": seconds,
            "ratio": seconds["own"] / seconds["other"],
            "operations": dict(operations),
        }
    return found


def step_table(effect: Mapping[str, Mapping[str, Any]]) -> RichTable:
    """One row per phase, then its operations, those that differ most first."""
    table = RichTable("step", "own ms", "other ms", "ratio", title="what it does to a step", box=None)
    for phase, told in effect.items():
        seconds = told["seconds"]
        table.add_row(
            phase, f"{seconds['own'] * 1e3:.3f}", f"{seconds['other'] * 1e3:.3f}", f"{told['ratio']:.2f}"
        )
        by_difference = sorted(
            told["operations"].items(), key=lambda item: -abs(item[1]["own"] - item[1]["other"])
        )
        for name, both in by_difference:
            ratio = f"{both['own'] / both['other']:.2f}" if both["own"] and both["other"] else ""
            table.add_row(f"  {name}", f"{both['own'] * 1e3:.3f}", f"{both['other'] * 1e3:.3f}", ratio)
    return table


def ratio_page(compared: Sequence[Compared], own: Profile, other: Profile) -> str:
    """A standalone HTML page: for every table the ratio over the innermost axis, one line per outer coordinates."""
    from plotly import graph_objects as go  # noqa: PLC0415 (takes a third of a second to import)

    from sim.report import drawing  # noqa: PLC0415

    parts: list[str] = []
    for one in (one for one in compared if len(one.known)):
        *outer, inner = FAMILIES[one.table.kernel].axes
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in np.flatnonzero(~np.isnan(one.ratio)):
            at = _words({axis: float(one.table.shape[axis][row]) for axis in outer})
            lines[at].append((float(one.table.shape[inner][row]), float(one.ratio[row])))
        figure = go.Figure()
        for at, points in sorted(lines.items()):
            x, y = zip(*sorted(points), strict=True)
            figure.add_scatter(x=x, y=y, mode="lines+markers", name=at)
        figure.add_hline(y=1.0, line_dash="dot")
        figure.update_layout(
            xaxis={"title": inner, "type": "log"},
            yaxis={"title": f"{own.name} / {other.name}", "type": "log"},
        )
        plot = drawing.figure_part(figure, f"figure-{len(parts)}")
        parts.append(f"<h2>{one.table.key}</h2>\n{plot}")
    title = f"{own.name} against {other.name}"
    body = "\n".join(parts)
    head = f"<!doctype html><meta charset='utf-8'><title>{title}</title>{drawing.head()}"
    return f"{head}\n<h1>{title}</h1>\n{body}\n"
