"""Counts of seconds in bins that every histogram shares, so that several add up to what one would have counted.

Bins are even on a logarithmic scale, as in HdrHistogram and DDSketch (Masson et al., PVLDB 12, 2019): a bin is as wide
as `WIDTH` of what lies in it, wherever it is, and that is what a percentile may be wrong by.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from sim.units import NANOSECOND_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PER_DOUBLING: Final = 256
WIDTH: Final = 2 ** (1 / PER_DOUBLING) - 1
"""Of a bin, as a share of its lower edge: 0.27%."""
LEAST_S: Final = NANOSECOND_S
"""What is shorter than the bin of this is no time at all, and has a bin of its own."""


class Histogram:
    """Seconds, counted. Counts and sums are whole numbers: merging is exact in whatever order."""

    __slots__ = ("_counts", "_first", "_sum_ns", "count", "highest_s", "lowest_s")

    def __init__(self, values: Floats | Sequence[float] = ()) -> None:
        """`values` without NaN."""
        self.count = 0
        self.lowest_s, self.highest_s = np.inf, -np.inf
        self._sum_ns = 0
        self._first = 0
        """Number of the first bin of `_counts`: bin k begins at 2 ** (k / PER_DOUBLING) seconds."""
        self._counts: Ints = np.zeros(0, dtype=np.int64)
        if len(values):
            self._count(np.asarray(values, dtype=np.float64))

    def _count(self, values: Floats) -> None:
        self.count = len(values)
        self.lowest_s, self.highest_s = float(values.min()), float(values.max())
        self._sum_ns = sum(np.rint(values / NANOSECOND_S).astype(np.int64).tolist())
        bins = np.maximum(bin_of(np.maximum(values, LEAST_S / 2)), NO_TIME)
        self._first = int(bins.min())
        self._counts = np.bincount(bins - self._first).astype(np.int64)

    def __iadd__(self, other: "Histogram") -> Self:
        """Count what `other` has counted as well."""
        if not other.count:
            return self
        if not self.count:
            first, size = other._first, len(other._counts)
        else:
            first = min(self._first, other._first)
            size = max(self._first + len(self._counts), other._first + len(other._counts)) - first
        counts = np.zeros(size, dtype=np.int64)
        for one in (self, other):
            start = one._first - first if one.count else 0
            counts[start : start + len(one._counts)] += one._counts
        self._first, self._counts = first, counts
        self.count += other.count
        self._sum_ns += other._sum_ns
        self.lowest_s = min(self.lowest_s, other.lowest_s)
        self.highest_s = max(self.highest_s, other.highest_s)
        return self

    def __len__(self) -> int:
        return self.count

    @property
    def mean_s(self) -> float:
        """To the nanosecond."""
        return self._sum_ns * NANOSECOND_S / self.count

    def percentiles(self, shares: Sequence[float]) -> Floats:
        """Linear between order statistics, as numpy's; each within `WIDTH` of the true one, or `LEAST_S`.

        The values of a bin are taken to lie evenly in it, none outside the lowest and the highest of all.
        """
        ranks = np.asarray(shares) / 100 * (self.count - 1)
        low = np.floor(ranks)
        return self._ordered(low) * (1 - ranks + low) + self._ordered(np.ceil(ranks)) * (ranks - low)

    def _ordered(self, ranks: Floats) -> Floats:
        """The values at these places of the sorted ones, counted from 0."""
        until = np.cumsum(self._counts)
        at = until.searchsorted(ranks, side="right")
        inside = (ranks - until[at] + self._counts[at] + 0.5) / self._counts[at]
        values = _seconds(self._first + at + inside)
        return np.clip(values, self.lowest_s, self.highest_s)

    def share_up_to(self, seconds: float) -> float:
        """Share of the values that are no longer than this; those of a bin are taken to lie evenly in it."""
        place = np.log2(seconds) * PER_DOUBLING if seconds >= LEAST_S else float(NO_TIME + 1)
        place = min(max(place - self._first, 0.0), float(len(self._counts)))
        whole = int(place)
        inside = self._counts[whole] * (place - whole) if place > whole else 0.0
        return float(self._counts[:whole].sum() + inside) / self.count

    def bins(self) -> Iterator[tuple[float, float, int]]:
        """(from, to, count) in seconds, of the bins that hold any."""
        filled = np.flatnonzero(self._counts)
        edges = _seconds(self._first + np.array([filled, filled + 1]))
        return zip(*edges.tolist(), self._counts[filled].tolist(), strict=True)


def bin_of(values: Floats) -> Ints:
    """Numbers of the bins that these (above 0) fall in."""
    bins: Ints = np.floor(np.log2(values) * PER_DOUBLING).astype(np.int64)
    return bins


NO_TIME: Final = int(bin_of(np.array(LEAST_S))) - 1
"""Number of the bin from 0 to that of `LEAST_S`."""


def _seconds(places: Floats | Ints) -> Floats:
    """At these places on the scale: k is where bin k begins, k + 1/2 its middle. No time at all is 0 in all its bin."""
    return np.where(places >= NO_TIME + 1, np.exp2(places / PER_DOUBLING), 0.0)


def merged(parts: Iterable[Histogram]) -> Histogram:
    """Everything that these have counted."""
    whole = Histogram()
    for part in parts:
        whole += part
    return whole


class Batches:
    """Values in the order in which they came, as histograms of as many values each: what batch means need.

    The size of a batch doubles where there would be more than `MOST`, so that memory stays the same.
    """

    MOST: Final = 320
    FIRST: Final = 8
    """Values of a batch at first."""

    def __init__(self) -> None:
        self._size = self.FIRST
        self._full: list[Histogram] = []
        self._last = Histogram()

    def add(self, values: Floats) -> None:
        """The next values, without NaN."""
        while len(values):
            room = self._size - self._last.count
            self._last += Histogram(values[:room])
            values = values[room:]
            if self._last.count == self._size:
                self._full.append(self._last)
                self._last = Histogram()
            if len(self._full) == self.MOST:
                self._full = [merged(pair) for pair in zip(self._full[::2], self._full[1::2], strict=True)]
                self._size *= 2

    def whole(self) -> Histogram:
        """All of them."""
        return merged((*self._full, self._last))

    def parts(self, count: int) -> list[Histogram]:
        """`count` parts of about as many values, of those that fill batches; empty ones where there are too few."""
        edges = [len(self._full) * part // count for part in range(count + 1)]
        return [merged(self._full[low:high]) for low, high in pairwise(edges)]
