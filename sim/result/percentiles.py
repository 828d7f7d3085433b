"""Mean and percentiles of a latency, and how well a run knows them."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.result.histogram import Histogram

Floats = NDArray[np.float64]
Values = Floats | Histogram
"""Seconds, one by one or counted."""
Intervals = dict[str, list[float] | None] | None
"""[low, high] by figure."""

PERCENTILES: Final = (50, 90, 99)
FIGURES: Final = ("mean", "p50", "p90", "p99")
BATCHES: Final = 10
BATCH_VALUES: Final = (100, 100, 100, 1000)
"""Values that a batch needs for each figure: 10 beyond a percentile, 100 at least."""
T_975: Final = 2.262
"""The 97.5% point of Student's t with 9 degrees of freedom."""


def percentiles(values: Values, known: bool = True) -> dict[str, float | None]:
    """Mean, p50, p90 and p99 (linear between order statistics); all None without values, or where not `known`."""
    values = values if isinstance(values, Histogram) else _there(values)
    if not known or not len(values):
        return dict.fromkeys(FIGURES)
    return dict(zip(FIGURES, _figures(values).tolist(), strict=True))


def intervals(values: Floats) -> Intervals:
    """95% confidence intervals [low, high] of what `percentiles` says of a service that goes on; None if too few.

    Batch means (Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3): the values, in order of arrival, in 10
    equal batches; see `batch_means`.
    """
    values = _there(values)
    size = len(values) // BATCHES
    if size < min(BATCH_VALUES):
        return None
    return batch_means(values, values[-size * BATCHES :].reshape(BATCHES, size))


def batch_means(values: Values, batches: Iterable[Values]) -> Intervals:
    """Figure +- t sd / sqrt(10), with the figure of all values and the standard deviation of those of the batches."""
    size = len(values) // BATCHES
    if size < min(BATCH_VALUES):
        return None
    figures, each = _figures(values), np.array([_figures(batch) for batch in batches])
    half = T_975 * each.std(axis=0, ddof=1) / np.sqrt(BATCHES)
    ends = np.column_stack((np.maximum(0.0, figures - half), figures + half)).tolist()
    return {
        name: end if size >= needed else None
        for name, end, needed in zip(FIGURES, ends, BATCH_VALUES, strict=True)
    }


def interval(parts: Floats) -> list[float]:
    """The same of a mean over `BATCHES` equal parts of the time, from its value in each."""
    half = T_975 * parts.std(ddof=1) / np.sqrt(len(parts))
    return [float(max(0.0, parts.mean() - half)), float(parts.mean() + half)]


def _there(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _figures(values: Values) -> Floats:
    if isinstance(values, Histogram):
        return np.array([values.mean_s, *values.percentiles(PERCENTILES)])
    return np.array([values.mean(), *np.percentile(values, PERCENTILES)])
