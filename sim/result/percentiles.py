"""Mean and percentiles of a latency, and how well a run knows them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIGURES: Final = ("mean", "p50", "p90", "p99")
BATCHES: Final = 10
BATCH_VALUES: Final = (100, 100, 100, 1000)
"""Values that a batch needs for each figure: 10 beyond a percentile, 100 at least."""
T_975: Final = 2.262
"""The 97.5% point of Student's t with 9 degrees of freedom."""


def percentiles(values: Floats, known: bool = True) -> dict[str, float | None]:
    """Mean, p50, p90 and p99 (linear between order statistics); all None without values, or where not `known`."""
    values = values[~np.isnan(values)]
    if not known or not len(values):
        return dict.fromkeys(FIGURES)
    return dict(zip(FIGURES, _figures(values).tolist(), strict=True))


def intervals(values: Floats) -> dict[str, list[float] | None] | None:
    """95% confidence intervals [low, high] of what `percentiles` says of a service that goes on; None if too few.

    Batch means (Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3): the values, in order of arrival, in 10
    equal batches; figure +- t sd / sqrt(10), with the figure of all values and the standard deviation of those of the
    batches.
    """
    values = values[~np.isnan(values)]
    size = len(values) // BATCHES
    if size < min(BATCH_VALUES):
        return None
    figures = _figures(values)
    each = np.array([_figures(batch) for batch in values[-size * BATCHES :].reshape(BATCHES, size)])
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


def _figures(values: Floats) -> Floats:
    return np.array([values.mean(), *np.percentile(values, (50, 90, 99))])
