"""Mean and percentiles of a latency, and how well a run knows them."""

from collections.abc import Sequence
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
UNSEEN: Final = 3.0
"""Rule of three: what happens to fewer than 3 of n requests is in none of n with a chance of 5% (Hanley and
Lippman-Hand, JAMA 249 (13), 1983)."""

Batch = tuple[Values, Sequence[Values]]
"""All values, and as many of them as fill batches, in these."""


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
    return batch_means(*in_batches(values))


def in_batches(values: Floats) -> Batch:
    """The values that are there, and the last of them in `BATCHES` of one size."""
    values = _there(values)
    size = len(values) // BATCHES
    return values, [*values[len(values) - size * BATCHES :].reshape(BATCHES, size)]


def batch_means(values: Values, batches: Sequence[Values]) -> Intervals:
    """Figure +- t sd / sqrt(10), with the figure of all values and the standard deviation of those of the batches.

    The mean +- 3 / n of itself more: so much a kind of request that none of the n was may take from it, and as much is
    allowed to add. Where a few in a thousand are far from all others, batches without any of them know nothing of it.
    """
    size = len(values) // BATCHES
    if size < min(BATCH_VALUES):
        return None
    figures, each = _figures(values), np.array([_figures(batch) for batch in batches])
    half = half_width(each)
    half[FIGURES.index("mean")] += UNSEEN / len(values) * figures[FIGURES.index("mean")]
    ends = np.column_stack((np.maximum(0.0, figures - half), figures + half)).tolist()
    return {
        name: end if size >= needed else None
        for name, end, needed in zip(FIGURES, ends, BATCH_VALUES, strict=True)
    }


def half_width(each: Floats) -> Floats:
    """t sd / sqrt(10) of figures (columns, if several) by batch."""
    width: Floats = T_975 * each.std(axis=0, ddof=1) / np.sqrt(BATCHES)
    return width


def interval(parts: Floats) -> list[float]:
    """Likewise of a mean over `BATCHES` equal parts of the time, from its value in each."""
    half = float(half_width(parts))
    return [max(0.0, float(parts.mean()) - half), float(parts.mean()) + half]


def shares_at(values: Values, seconds: float) -> Floats:
    """Shares of the values that are shorter than this, and no longer: apart where several are just as long."""
    if isinstance(values, Histogram):
        return np.full(2, values.share_up_to(seconds))
    return np.array([(values < seconds).mean(), (values <= seconds).mean()])


def at_share(values: Values, share: float) -> float:
    """Seconds up to which a share of the values lies; the shortest or the longest where it is beyond 0 or 1."""
    percent = 100 * min(1.0, max(0.0, share))
    if isinstance(values, Histogram):
        return float(values.percentiles([percent])[0])
    return float(np.percentile(values, percent))


def _there(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _figures(values: Values) -> Floats:
    if isinstance(values, Histogram):
        return np.array([values.mean_s, *values.percentiles(PERCENTILES)])
    return np.array([values.mean(), *np.percentile(values, PERCENTILES)])
