"""What comes: the rate at the peak, which sizes a deployment, and on the mean, which prices its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.api_prices import DayShare, flat
from sim.catalog.traffic import curve_utc_offsets_h
from sim.planner.budgets import peak_window_s
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario
from sim.units import HOUR_S
from sim.workload import requests
from sim.workload.arrivals import HOURS_PER_DAY, DailyCurve


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrivals per second, and what they look like."""

    peak_per_s: float
    mean_per_s: float
    cv: float | None
    """Coefficient of variation of Gamma gaps; None: Poisson."""
    said: str
    """Where the two come from, for people."""
    most: int | None = None
    """Requests that a trace has; None where they are drawn without end."""
    own_times: bool = False
    """The trace's own times are the last test."""

    @property
    def mean_share(self) -> float:
        """The mean over the peak."""
        return self.mean_per_s / self.peak_per_s

    def arriving(self, rate_per_s: float, count: int, warmup_s: float) -> dict[str, Any]:
        """Overrides of a scenario: `count` requests of the workload at this rate, `warmup_s` left out."""
        count = min(count, self.most or count)
        kind: Mapping[str, Any] = {"poisson": {"rate_per_s": rate_per_s}}
        if self.cv is not None:
            kind = {"gamma": {"rate_per_s": rate_per_s, "cv": self.cv}}
        return {
            "workload.arrivals": kind,
            "workload.requests": count,
            "duration_s": None,
            "warmup_s": min(warmup_s, 0.5 * count / rate_per_s),
        }


def traffic_of(scenario: Scenario, seed: int) -> Traffic:
    """The traffic of a scenario's workload.

    - Poisson and Gamma arrivals: the rate is both peak and mean, and gaps keep their variation;
    - a daily curve: its highest hour and its mean;
    - a trace at its own times: the busiest window of `peak_window_s` and the mean; a trace shorter than two such
      windows has one rate. Candidates see its requests with gaps without memory, the winner its own times.

    Raises DeploymentError where requests come whenever others end, which asks how fast, not how many GPUs; and where
    a trace holds sessions: they last longer than a candidate is simulated.
    """
    arrivals = scenario.workload.arrivals
    if arrivals is None or scenario.workload.trace is not None:
        return _of_a_trace(scenario, seed)
    if arrivals.diurnal is not None:
        mean = arrivals.diurnal.mean_rate_per_s
        curve = DailyCurve.load(arrivals.diurnal, None)
        hourly = np.diff([curve.arrivals_until(h * HOUR_S) for h in range(HOURS_PER_DAY + 1)]) / HOUR_S
        return Traffic(float(hourly.max()), mean, None, "the highest hour of a daily curve, and its mean")
    opened = arrivals.poisson or arrivals.gamma
    if opened is None:
        raise _not_open()
    cv = arrivals.gamma.cv if arrivals.gamma else None
    return Traffic(opened.rate_per_s, opened.rate_per_s, cv, "the rate of the workload")


def day_share(scenario: Scenario) -> DayShare:
    """Share of a day's arrivals between two hours of the day in UTC: of a daily curve, else as if always the same."""
    arrivals = scenario.workload.arrivals
    if arrivals is None or arrivals.diurnal is None:
        return flat
    curve, offset_h = DailyCurve.load(arrivals.diurnal, None), scenario.price.utc_offset_h
    if offset_h is None:
        offset_h = curve_utc_offsets_h().get(arrivals.diurnal.curve, 0.0)
    whole = curve.arrivals_until(HOURS_PER_DAY * HOUR_S)

    def until(utc_h: float) -> float:
        return curve.arrivals_until((utc_h + offset_h + HOURS_PER_DAY) * HOUR_S) / whole

    return lambda start_h, end_h: until(end_h) - until(start_h)


def _of_a_trace(scenario: Scenario, seed: int) -> Traffic:
    stream = requests(scenario, seed)
    arrivals, times_s = scenario.workload.arrivals, stream.arrival_s
    if stream.concurrency is not None or not len(times_s):
        raise _not_open()
    if stream.turns is not None:
        says = "holds sessions, whose turns wait for each other; expected lengths and a cached_fraction"
        raise DeploymentError([Problem(("workload", "trace"), says)])
    most = len(requests(scenario.model_copy(update={"duration_s": None}), seed))
    opened = (arrivals.poisson or arrivals.gamma) if arrivals else None
    if opened is not None:
        cv = arrivals.gamma.cv if arrivals and arrivals.gamma else None
        return Traffic(opened.rate_per_s, opened.rate_per_s, cv, "the rate of the workload", most)
    span_s, window_s = float(times_s[-1]), peak_window_s()
    if span_s <= 0:
        raise _not_open()
    mean = len(times_s) / span_s
    if span_s < 2 * window_s:
        return Traffic(mean, mean, None, "the mean rate of the trace", most, own_times=True)
    counts = np.searchsorted(times_s, times_s + window_s) - np.arange(len(times_s))  # from each arrival on
    said = f"the busiest {window_s:g} s of the trace, and its mean"
    return Traffic(max(mean, float(counts.max()) / window_s), mean, None, said, most, own_times=True)


def _not_open() -> DeploymentError:
    says = (
        "expected requests that arrive by the clock (poisson, gamma, diurnal, or a trace with times): "
        "a closed loop or a batch sends no faster than it is served"
    )
    return DeploymentError([Problem(("workload", "arrivals"), says)])
