"""What the errors of cases come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.validation.case import Case

OVERALL = "overall"


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


def grouped(cases: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Cases by key, keys in order of first appearance."""
    groups: dict[Any, list[Any]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups


def by_metric(cases: Sequence[Case], value: Callable[[Score], float]) -> Mapping[str, float | None]:
    """One number of the score, overall and per metric."""
    groups = {OVERALL: list(cases), **grouped(cases, lambda case: case.metric)}
    return {name: None if (found := score(group)) is None else value(found) for name, group in groups.items()}
