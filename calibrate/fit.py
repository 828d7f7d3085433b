"""Fitting a table: efficiency parameters by least squares, and the error on whole axis values left out.

The parameters of `sim.cost.form` minimise the soft-L1 norm of log(predicted / measured). Then all ways of
interpolating are tried on the same question: each inner value of each axis is left out as a whole, the rest is
fitted again, and the left-out shapes are predicted from their neighbours. The best one prices the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibrate.tables import WEIGHT
from sim.catalog import Gpu
from sim.cost.fits import Fit
from sim.cost.form import Form
from sim.cost.priced_table import PricedTable
from sim.cost.profile import TAKEN_OUT, Profile, Table
from sim.kernels import FAMILIES
from sim.kernels.family import Dims, Stage

Floats = NDArray[np.float64]

METHODS: Final = ("fitted", "linear")
"""The first one where neither predicted left-out shapes better, or none could be left out."""

Way = tuple[str, bool]
"""(method, whether by tokens) of a `Fit`."""

COMPUTE_SHARE: Final = (0.02, 1.0)
TRAFFIC_SHARE: Final = (0.02, 2.0)
"""Fitted rates lie between these shares of the datasheet's peak; bytes above 1 because caches serve part of them."""
SHARPNESS: Final = (1.0, 16.0)
CLOSE: Final = 0.02
"""Shapes whose innermost axis differs by less than this share should take the same time."""
OUTLIER: Final = 0.1
"""Relative error beyond which a row counts linearly rather than quadratically."""
EVALUATIONS: Final = 60
TOLERANCE: Final = 1e-5
"""The solver stops where a step gains less than this share, or after so many evaluations."""
LEAST_WORK: Final = 0.25
"""Share of a table's rows, those of least work, that tell the launch cost of a mended one."""
MOST_ROWS: Final = 1500
"""Rows that determine the parameters at most, evenly spread over a larger table: there are at most eight of them."""


@dataclass(frozen=True)
class Problem:
    """The work of a table's rows, and what the GPU could do at most."""

    stages: Sequence[Stage]
    seconds: Floats
    peaks: Sequence[tuple[float, float]]
    """FLOP/s and bytes/s of each stage, by the datasheet."""
    weights: Floats
    """How much each row counts: 1, or less where it was measured on a throttled or unsteady GPU."""
    launched: bool = False
    """See `Family.launched`: whether launches may hide behind work, or work behind launches."""

    def only(self, kept: NDArray[Any]) -> "Problem":
        """The same problem on some of its rows."""
        rows = len(self.seconds)
        stages = [(np.broadcast_to(f, rows)[kept], np.broadcast_to(b, rows)[kept]) for f, b in self.stages]
        return replace(self, stages=stages, seconds=self.seconds[kept], weights=self.weights[kept])

    def thinned(self, most: int) -> "Problem":
        """The same problem on `most` rows at most, evenly spread in their order."""
        rows = len(self.seconds)
        return self if rows <= most else self.only(np.linspace(0, rows - 1, most).astype(int))


def fit_profile(profile: Profile, gpu: Gpu) -> dict[str, Fit]:
    """The fit of every table of a profile. `gpu` bounds the rates."""
    tables = [table for kernel in profile.kernels for table in profile.tables(kernel)]
    return {table.key: fit_table(table, profile.dims, gpu) for table in tables}


def fit_table(table: Table, dims: Dims, gpu: Gpu) -> Fit:
    """Parameters, method and held-out error of one table."""
    problem = _problem(table, dims, gpu)
    start = _starts(problem)
    parameters = _solve(problem, start)
    form = _form(problem, parameters)
    ways = _ways(table)
    errors: dict[Way, dict[str, list[float]]] = {way: {} for way in ways}
    for axis, dropped in _left_out(table):
        kept = _form(problem, _solve(problem.only(~dropped), parameters))
        for method, by_tokens in ways:
            fit = Fit(kept, method, by_tokens=by_tokens)
            found = errors[method, by_tokens].setdefault(axis, [])
            found += _errors(table, dims, fit, dropped)
    told = {w: {axis: summary(found) for axis, found in errors[w].items() if found} for w in ways}
    best = min(ways, key=lambda w: score({a: (e["median"], e["p90"]) for a, e in told[w].items()}))
    noise = table.noise if table.noise is not None else neighbour_noise(table)
    return Fit(form, best[0], told[best], noise, by_tokens=best[1])


def _ways(table: Table) -> list[Way]:
    """How a table may be interpolated; only the form's work tells shapes apart that share a computed coordinate."""
    family = FAMILIES[table.kernel]
    methods = ("fitted",) if family.computed else METHODS
    return [(m, by_tokens) for by_tokens in (False, True)[: 2 if family.by_tokens else 1] for m in methods]


def fit_again(fit: Fit, table: Table, dims: Dims, gpu: Gpu) -> Fit:
    """The fit of a table whose rows were mended, from that of the rows as they were measured.

    Where time was taken out of rows the rates stay, which the others told, and the launch cost is what the rows of
    least work have left, with no launches to hide; where rows were left out, all is fitted again. Method and held-out
    error stay those of the rows as measured, which alone can tell them.
    """
    problem = _problem(table, dims, gpu)
    if TAKEN_OUT not in table.columns:
        return replace(fit, form=_form(problem, _solve(problem, _starts(problem))))
    form = replace(fit.form, launch_s=0.0, hiding=1.0)
    work = form.seconds_each(problem.stages, len(problem.seconds))
    least = work <= np.quantile(work, LEAST_WORK)
    left = float(np.median((problem.seconds - work)[least]))
    return replace(fit, form=replace(form, launch_s=max(left, float(problem.seconds.min()) / 100)))


def summary(errors: Sequence[float]) -> dict[str, float]:
    """Median and p90 of relative errors, and how many."""
    return {
        "median": float(np.median(errors)),
        "p90": float(np.quantile(errors, 0.9)),
        "shapes": float(len(errors)),
    }


def neighbour_noise(table: Table) -> float | None:
    """Median half-spread of the pairs of `neighbour_steps`; None where there are none."""
    steps = neighbour_steps(table)
    return float(np.median(steps) / 2) if len(steps) else None


def neighbour_steps(table: Table) -> Floats:
    """By how much shapes differ in log seconds that differ by less than 2% in the innermost axis only; (pairs,).

    Stands for the noise of tables that repeat no shape: GEMM tables measure m and m + 1.
    """
    *outer, inner = (table.shape[axis] for axis in FAMILIES[table.kernel].axes)
    order = np.lexsort((inner, *outer[::-1]))
    same = np.all([np.diff(axis[order]) == 0 for axis in outer], axis=0) if outer else True
    close = same & (np.diff(inner[order]) < CLOSE * inner[order][1:])
    return np.asarray(np.abs(np.diff(np.log(table.seconds[order])))[close])


def score(errors: Mapping[str, tuple[float, float]]) -> float:
    """Mean over axes of the median error, with a tenth of the 90th percentile to break near-ties.

    errors: (median, p90) by axis.
    """
    found = [median + 0.1 * p90 for median, p90 in errors.values()]
    return float(np.mean(found)) if found else 0.0


def _left_out(table: Table) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(axis, rows to leave out) for every inner value of every axis of the grid."""
    for axis in FAMILIES[table.kernel].axes:
        values = table.shape[axis]
        for value in np.unique(values)[1:-1]:
            yield axis, values == value


def _errors(table: Table, dims: Dims, fit: Fit, dropped: NDArray[np.bool_]) -> list[float]:
    """|predicted / measured - 1| of the left-out rows that the remaining hull encloses."""
    kept = replace(
        table,
        columns={a: v[~dropped] for a, v in table.columns.items()},
        seconds=table.seconds[~dropped],
        fit=fit,
    )
    priced = PricedTable(kept, dims)
    found = []
    for row in np.flatnonzero(dropped):
        seconds, how = priced.seconds({a: float(v[row]) for a, v in table.columns.items()})
        if how != "extrapolated":
            found.append(abs(seconds / float(table.seconds[row]) - 1))
    return found


def _problem(table: Table, dims: Dims, gpu: Gpu) -> Problem:
    family = FAMILIES[table.kernel]
    stages = family.work(table.shape, table.variant, dims)
    traffic = {
        "memory": gpu.memory_bytes_per_s,
        "cache": gpu.memory_bytes_per_s,
        "scale_up": gpu.scale_up_bytes_per_s,
        "scale_out": gpu.scale_out_bytes_per_s,
    }
    carriers = family.carried_by(len(stages))
    dtypes = [table.variant.dtype] + [_core_dtype(table, gpu)] * (len(stages) - 1)
    compute = [
        gpu.flop_per_s("bf16" if dtype == "fp32" else dtype) or gpu.bf16_flop_per_s for dtype in dtypes
    ]
    peaks = [(c, traffic[carrier]) for c, carrier in zip(compute, carriers, strict=True)]
    weights = table.columns.get(WEIGHT, np.ones(len(table.seconds)))
    return Problem(stages, table.seconds, peaks, weights, family.launched)


def _core_dtype(table: Table, gpu: Gpu) -> str:
    """Arithmetic of what follows a block's projections: BF16, or the cache's FP8 where the GPU's kernels compute in
    it (Hopper's convert it first, and its indexer is a small part)."""
    return (
        "fp8" if table.variant.options.get("kv_cache") == "fp8" and gpu.generation == "blackwell" else "bf16"
    )


def _rates(problem: Problem) -> list[tuple[int, int, float]]:
    """(stage, 0 for FLOP or 1 for bytes, peak) of every rate that the rows can tell."""
    return [
        (stage, kind, peak)
        for stage, (work, peaks) in enumerate(zip(problem.stages, problem.peaks, strict=True))
        for kind, (amount, peak) in enumerate(zip(work, peaks, strict=True))
        if np.any(amount > 0)
    ]


def _starts(problem: Problem) -> Floats:
    """Half the shortest time as launch cost, soft norms, half of every peak."""
    norms = [np.log(2.0)] * _norms(problem)
    rates = [np.log(peak / 2) for _, _, peak in _rates(problem)]
    return np.array([np.log(problem.seconds.min() / 2), *norms, *rates])


def _norms(problem: Problem) -> int:
    """How many norms are fitted: p of the stages, and q of launches that may hide."""
    return 2 if problem.launched else 1


def _form(problem: Problem, parameters: Floats) -> Form:
    count = len(problem.stages)
    rates = np.ones((count, 2))
    launch_s, sharpness, *more = np.exp(parameters).tolist()
    hiding = more.pop(0) if problem.launched else 1.0
    for (stage, kind, _), value in zip(_rates(problem), more, strict=True):
        rates[stage, kind] = value
    return Form(launch_s, sharpness, tuple(rates[:, 0].tolist()), tuple(rates[:, 1].tolist()), hiding)


def _solve(problem: Problem, start: Floats) -> Floats:
    problem = problem.thinned(MOST_ROWS)
    rows = len(problem.seconds)
    target = np.log(problem.seconds)
    shares = [(COMPUTE_SHARE, TRAFFIC_SHARE)[kind] for _, kind, _ in _rates(problem)]
    peaks = [peak for _, _, peak in _rates(problem)]
    rates = np.log([(peak * low, peak * high) for peak, (low, high) in zip(peaks, shares, strict=True)])
    least = problem.seconds.min()
    norms = _norms(problem)
    low = [np.log(least / 100), *[np.log(SHARPNESS[0])] * norms, *rates[:, 0]]
    high = [np.log(least * 1.5), *[np.log(SHARPNESS[1])] * norms, *rates[:, 1]]
    inside = np.clip(start, np.array(low) + 1e-6, np.array(high) - 1e-6)

    def residuals(parameters: Floats) -> Floats:
        missed = np.log(_form(problem, parameters).seconds_each(problem.stages, rows)) - target
        return np.asarray(np.sqrt(problem.weights) * missed)

    found = least_squares(
        residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=OUTLIER,
        max_nfev=EVALUATIONS, ftol=TOLERANCE, xtol=TOLERANCE,
    )  # fmt: skip
    return np.asarray(found.x)
