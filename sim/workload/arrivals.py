"""When requests arrive in an open loop: a renewal process of unit rate, run through the cumulative rate."""

import math
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.scenario.errors import DeploymentError, KeyPath, Problem
from sim.scenario.schema import Arrivals, Diurnal
from sim.scenario.section import MOST_SECONDS
from sim.units import HOUR_S
from sim.workload.randomness import generator
from sim.workload.reading import locate, read
from sim.workload.table import fault, real

Floats = NDArray[np.float64]

MOST_REQUESTS = 10_000_000
"""More would not fit in memory: a run keeps some 300 bytes per request, and as much again while it writes its table."""

MOST_DRAWN = 1_000_000_000
"""Where none is kept. All are drawn once, to count them, before the first is served: that takes so many half a minute
to two, and is told as progress."""

PIECE = 2**16
"""Arrivals that are drawn at once."""

HOURS_PER_DAY = 24

KEY: KeyPath = ("workload", "arrivals")
CURVES = Path(__file__).parent / "curves"


def arrival_times(
    form: Arrivals, count: int | None, duration_s: float | None, seed: int, base_folder: Path | None = None
) -> Floats:
    """Arrival times of an open loop, ascending, shape (requests,), seconds.

    Whichever of `count` and `duration_s` comes first ends them; a longer run begins with the same times. A process
    of unit rate arrives at u_1 < u_2 < ...; the request arrives at t_i with Lambda(t_i) = u_i, where Lambda(t) is
    the integral of the rate from 0 to t: exact for Poisson arrivals of any rate (Cinlar, Introduction to stochastic
    processes, 1975, section 4.7). Gaps of unit rate are exponential for Poisson and diurnal arrivals; for Gamma
    arrivals of coefficient of variation c they have shape 1 / c^2 and scale c^2.

    Raises:
        DeploymentError: if nothing ends the arrivals, or more than `MOST_REQUESTS` would come.
        ScenarioError: if the file of a daily curve is broken.
    """
    feasible(_at_most(form, count, duration_s, seed, base_folder), "; `metrics: summary` keeps none")
    return np.concatenate([np.empty(0), *arriving(form, count, duration_s, seed, base_folder)])


def arriving(
    form: Arrivals, count: int | None, duration_s: float | None, seed: int, base_folder: Path | None = None
) -> Iterator[Floats]:
    """The same, at most `PIECE` at a time, up to `MOST_DRAWN` in all."""
    most = _at_most(form, count, duration_s, seed, base_folder)
    if most > MOST_DRAWN:
        says = (
            f"about {most:.3g} requests; at most {MOST_DRAWN:,} are drawn: give fewer `workload.requests`, "
            "a lower rate, or a shorter duration_s"
        )
        raise DeploymentError([Problem(("workload",), says)])
    gaps, end, times_of = _process(form, count, duration_s, seed, base_folder)
    left, total = inf if count is None else count, 0.0
    while left > 0 and total < end:
        drawn = gaps(int(min(PIECE, left)))
        drawn[0] += total
        times = np.cumsum(drawn)
        left, total = left - len(times), float(times[-1])
        yield times_of(times[times < end])


def _at_most(
    form: Arrivals, count: int | None, duration_s: float | None, seed: int, base_folder: Path | None
) -> float:
    """Requests that will hardly be exceeded: four standard deviations of a Poisson count more than expected."""
    _, end, _ = _process(form, count, duration_s, seed, base_folder)
    return min(inf if count is None else count, end + 4 * math.sqrt(end) + 16)


def _process(
    form: Arrivals, count: int | None, duration_s: float | None, seed: int, base_folder: Path | None
) -> tuple[Callable[[int], Floats], float, Callable[[Floats], Floats]]:
    """The next gaps of a process of unit rate, how many arrivals are expected in all, and what arrivals of unit rate
    are in seconds."""
    rng = generator(seed, "arrivals")
    if form.all_at_once is not None:
        if count is None:
            raise DeploymentError([Problem((*KEY, "all_at_once"), "needs `workload.requests`: how many")])
        return np.zeros, inf, lambda times: times
    if form.diurnal is not None:
        curve = DailyCurve.load(form.diurnal, base_folder)
        end = inf if duration_s is None else curve.arrivals_until(duration_s)
        return rng.standard_exponential, end, curve.time_s
    steady = form.poisson or form.gamma
    assert steady is not None
    rate = steady.rate_per_s
    gaps: Callable[[int], Floats] = rng.standard_exponential
    if form.gamma is not None:
        shape = form.gamma.cv**-2
        gaps = lambda n: rng.standard_gamma(shape, n) / shape  # noqa: E731
    return gaps, inf if duration_s is None else rate * duration_s, lambda times: times / rate


def feasible(count: float, hint: str = "") -> int:
    """`count` as an int. Raises DeploymentError if so many requests would not fit in memory."""
    if count > MOST_REQUESTS:
        says = f"about {count:.3g} requests; at most {MOST_REQUESTS:,} fit in memory{hint}"
        raise DeploymentError([Problem(("workload",), says)])
    return int(count)


def check_span(last_s: float) -> None:
    """Raises DeploymentError where requests still arrive after more seconds than a scenario may last."""
    if last_s > MOST_SECONDS:
        says = f"the last request arrives after {last_s:.3g} s; expected at most {MOST_SECONDS:g} s, 30 years"
        raise DeploymentError([Problem(("workload",), says)])


class DailyCurve:
    """A rate that follows a curve over the day, again every day. Time zero is the curve's hour 0.

    The rate is constant from one row's hour to the next; `load` is relative, and scaled so that the mean over the
    day is `mean_rate_per_s`.
    """

    def __init__(self, hours: Floats, loads: Floats, mean_rate_per_s: float) -> None:
        self._starts_s = np.append(hours, HOURS_PER_DAY) * HOUR_S
        spans = np.diff(self._starts_s)
        mean = float((spans * loads).sum() / spans.sum())
        self._expected = np.append(0.0, np.cumsum(spans * loads)) / mean * mean_rate_per_s

    @classmethod
    def load(cls, form: Diurnal, base_folder: Path | None) -> "DailyCurve":
        """The shipped curve of this name, or a file with columns hour,load: hours from 0, ascending, below 24."""
        shipped = {path.stem: path for path in CURVES.glob("*.csv")}
        key = (*KEY, "diurnal", "curve")
        table = read(shipped.get(form.curve) or locate(form.curve, base_folder, shipped, key))
        if not {"hour", "load"} <= table.columns.keys():
            got = ", ".join(table.columns)
            raise fault(table.file, table.source, 1, 1, f"expected columns hour, load; got {got}")
        hours, loads = (np.array(cells) for cells in table.convert({"hour": real, "load": real}))
        out_of_order = (np.diff(hours, prepend=-1.0) <= 0) | (hours >= HOURS_PER_DAY)
        out_of_order[0] = hours[0] != 0
        wrong = [
            (int(row), "hour", "hour: expected 0 first, then ascending below 24")
            for row in np.flatnonzero(out_of_order)
        ]
        wrong += [(int(row), "load", "load: expected at least 0") for row in np.flatnonzero(loads < 0)]
        table.refuse(wrong)
        if not loads.any():
            raise fault(table.file, (), None, None, "the load is zero all day")
        return cls(hours, loads, form.mean_rate_per_s)

    @property
    def peak_per_s(self) -> float:
        """The rate of the busiest row."""
        return float((np.diff(self._expected) / np.diff(self._starts_s)).max())

    def arrivals_until(self, time_s: float) -> float:
        """Expected arrivals from 0 to `time_s`."""
        days, within_s = divmod(time_s, self._starts_s[-1])
        return float(days * self._expected[-1] + np.interp(within_s, self._starts_s, self._expected))

    def time_s(self, expected: Floats) -> Floats:
        """The times by which so many arrivals are expected: the inverse of `arrivals_until`."""
        days, within = np.divmod(expected, self._expected[-1])
        times: Floats = days * self._starts_s[-1] + np.interp(within, self._expected, self._starts_s)
        return times
