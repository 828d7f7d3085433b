"""Simulated against published: one case per metric, and what their errors come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class Case:
    """One published figure and its simulation."""

    id: str
    metric: str
    published: float
    """Seconds, or tokens per second and GPU."""
    simulated: float
    split: str | None
    """`train`, `test`, or None for what the committed split does not know."""
    layout: str
    """Deployment and layout; sweeps over load share it."""
    point: str
    """Lengths and load, such as `1024/8192 conc 64`."""
    model: str = ""
    """As the table names it; empty where it does not."""

    @property
    def error(self) -> float:
        """simulated / published - 1."""
        return self.simulated / self.published - 1

    def json(self) -> dict[str, Any]:
        """The names of INTERFACES. A table sets no band."""
        return {
            "id": self.id,
            "metric": self.metric,
            "published": self.published,
            "simulated": self.simulated,
            "error": self.error,
            "band": None,
            "split": self.split,
            "layout": self.layout,
            "point": self.point,
            "model": self.model,
        }


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of some cases."""

    cases: int
    median: float
    """Of the absolute errors."""
    p90: float
    """Of the absolute errors."""
    bias: float
    """Median of the signed errors."""

    def json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"cases": self.cases, "median_abs": self.median, "p90_abs": self.p90, "bias": self.bias}


def score(cases: Iterable[Case]) -> Score | None:
    """Every case counts once; None without cases."""
    errors = np.array([case.error for case in cases])
    if not len(errors):
        return None
    median, p90 = np.percentile(np.abs(errors), (50, 90)).tolist()
    return Score(len(errors), median, p90, float(np.median(errors)))


def score_by_layout(cases: Sequence[Case]) -> Score | None:
    """Every layout counts once, however many loads and days it was measured at: each case weighs 1 / cases of its
    layout. None without cases.
    """
    if not cases:
        return None
    sizes = {name: len(group) for name, group in grouped(cases, lambda c: c.layout).items()}
    errors = np.array([case.error for case in cases])
    weights = np.array([1 / sizes[case.layout] for case in cases])
    return Score(
        len(sizes),
        quantile(np.abs(errors), weights, 0.5),
        quantile(np.abs(errors), weights, 0.9),
        quantile(errors, weights, 0.5),
    )


def quantile(values: Any, weights: Any, share: float) -> float:
    """The value below which `share` of the weight lies, linear between the middles of neighbouring weights."""
    values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    middles = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(share * weights.sum(), middles, values[order]))


def grouped(cases: Iterable[Case], key: Callable[[Case], str]) -> dict[str, list[Case]]:
    """Cases by key, keys in order of first appearance."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups


def by_metric(cases: Sequence[Case], value: Callable[[Score], float]) -> Mapping[str, float | None]:
    """One number of the score, overall and per metric."""
    groups = {OVERALL: list(cases), **grouped(cases, lambda case: case.metric)}
    return {name: None if (found := score(group)) is None else value(found) for name, group in groups.items()}
