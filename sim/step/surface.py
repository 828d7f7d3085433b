"""Step costs on a grid, priced as they are asked for: the simulation looks a step up in microseconds.

Attention is a table over (tokens or sequences on the rank, mean context), everything else curves over tokens per
rank. Between grid points all is linear.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from copy import copy
from math import inf, isnan
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sim.step.curves import Curves
from sim.step.overlap import Line
from sim.step.prices import SOURCES, Prices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Listed = tuple[int, list[float], list[float], list[float]]
"""(place among the contexts from which it is known, attention seconds at each context, what a token adds up to the next
one, the most that a token adds from there on)"""


def grid(low: float, high: float, per_octave: int, extra: Sequence[float] = ()) -> Floats:
    """Increasing points from `low` to `high`, whole and geometric with `per_octave` points per doubling, with `extra`
    as they are among them."""
    octaves = max(1, int(np.ceil(np.log2(max(high / low, 2.0)) * per_octave)))
    points = np.round(np.geomspace(low, high, octaves + 1))
    return np.unique([*points, *(float(x) for x in extra if low < x < high)])


class Surface:
    """Seconds of one phase on a grid of x (tokens or sequences per rank) and context.

    A step's seconds are those of a `Timeline`: the slowest rank's attention `core`, the routed experts, and what
    depends on x alone. A point of the grid is priced when something beside it is first asked for: most never are.
    """

    __slots__ = (
        "_above", "_below", "_core", "_curves", "_knots", "_last", "_lines", "_listed", "_points", "_prices",
        "_segments", "_share", "_visits", "context", "x",
    )  # fmt: skip

    def __init__(self, x: Floats, context: Floats, prices: Prices) -> None:
        self.context, self._prices = context, prices
        # Point 0 is a rank without tokens: no attention, but the other ranks' tokens keep it in step.
        self.x = np.concatenate(([0.0], x))
        self._points: list[float] = self.x.tolist()
        self._knots: list[float] = context.tolist()
        self._last = len(self._knots) - 2
        whole = np.arange(self.x[-1] + 1)
        below, self._share = locate(self.x, whole)
        self._below: list[int] = below.tolist()
        self._above: list[int] = self.x.searchsorted(whole).tolist()
        self._segments: list[int] = below.searchsorted(np.arange(len(self.x))).tolist()
        """The first whole number in each segment of x."""
        self._core = np.full((len(whole), len(context)), np.nan)
        """Attention seconds by whole number and context; NaN: not priced yet."""
        self._curves = Curves(self._points, self._knots[0], prices, self._below, self._share.tolist())
        self._lines: dict[tuple[int, float], Line] = {}
        self._listed: dict[int, Listed] = {}
        self._visits: list[list[float]] = self.unused()._visits
        """Seconds booked, by grid point."""

    def core_s(self, x: Floats, context: Floats) -> Floats:
        """Attention seconds of each rank with `x` tokens or sequences (whole numbers); shape (ranks,).

        Raises IndexError beyond the largest x that the surface was built for.
        """
        rows, (i, u) = x.astype(np.intp), locate(self.context, context)
        unpriced = np.isnan(self._core[rows, i] + self._core[rows, i + 1])
        for row, column in zip(rows[unpriced].tolist(), i[unpriced].tolist(), strict=True):
            self._price(row, column)
            self._price(row, column + 1)
        low, high = self._core[rows, i], self._core[rows, i + 1]
        return np.asarray(low + (high - low) * u)

    def unused(self) -> Self:
        """The same prices with nothing booked yet."""
        fresh = copy(self)
        fresh._visits = [[0.0] * (len(self._knots) + 1) for _ in self.x]
        return fresh

    def _price(self, x: int, j: int) -> float:
        """Attention seconds of a whole number at a context of the grid: priced, with all numbers of its segment, if
        they have not been."""
        seconds = float(self._core[x, j])
        if not isnan(seconds):
            return seconds
        point = self._below[x]
        whole = slice(self._segments[point], self._segments[point + 1])
        low, high = (float(self._by_source(i, j).sum()) for i in (point, point + 1))
        self._core[whole, j] = low + (high - low) * self._share[whole]
        return float(self._core[x, j])

    def _by_source(self, point: int, j: int) -> Floats:
        """Attention seconds at a point of the grid by the source that priced them."""
        return self._prices.core(self._points[point], self._knots[j]) if point else np.zeros(SOURCES)

    def attention(self, x: int, context: float) -> tuple[float, float, float, float]:
        """See `DecodeTable.attention`.

        Raises IndexError beyond the largest x that the surface was built for.
        """
        knots = self._knots
        j = bisect_right(knots, context) - 1
        first, row, slopes, steepest = self._listed.get(x) or self._list(x, j)
        if j < first:
            first, row, slopes, steepest = self._list(x, j)
        if j < 0:
            return row[0], 0.0, knots[0], steepest[0]
        if j >= self._last:
            j = self._last
            return row[j] + (context - knots[j]) * slopes[j], slopes[j], inf, steepest[j]
        return row[j] + (context - knots[j]) * slopes[j], slopes[j], knots[j + 1], steepest[j]

    def _list(self, x: int, first: int) -> Listed:
        """Of a whole number, from a place among the contexts on; nothing before it is priced."""
        for j in range(max(0, min(first, self._last)), len(self._knots)):
            self._price(x, j)
        slopes = np.diff(self._core[x]) / np.diff(self.context)
        steepest = np.maximum.accumulate(slopes[::-1])[::-1]
        self._listed[x] = found = (first, self._core[x].tolist(), slopes.tolist(), steepest.tolist())
        return found

    def at(self, x: int, context: float) -> float:
        """`attention` alone, for what hardly comes twice: prompts."""
        knots, seconds = self._knots, self._core.item
        j = bisect_right(knots, context) - 1
        if j < 0:
            return self._price(x, 0)
        j = j if j < self._last else self._last
        low: float = seconds(x, j)
        high: float = seconds(x, j + 1)
        if isnan(low + high):
            low, high = self._price(x, j), self._price(x, j + 1)
        start = knots[j]
        return low + (high - low) * (context - start) / (knots[j + 1] - start)

    def line(self, fullest: int, mean: float) -> Line:
        """`line_at`, kept: for loads that come again and again."""
        found = self._lines.get((fullest, mean))
        if found is None:
            self._lines[fullest, mean] = found = self.line_at(fullest, mean)
        return found

    def line_at(self, fullest: int, mean: float) -> Line:
        """Seconds of a step by those of its attention; by the tokens of the fullest rank and their mean over the ranks.

        The routed experts see every rank's tokens, hence the mean, and so does in prefill what else runs on gathered
        tokens (see `StepOverlap.stage`); all else waits for the fullest rank.
        """
        return self._curves[fullest][1].line(self._experts_s(mean))

    def seconds(self, fullest: int, mean: float, attention_s: float) -> float:
        """Seconds of a step: `line_at` at once."""
        return self._curves[fullest][1].seconds(self._experts_s(mean), attention_s)

    def _experts_s(self, mean: float) -> float:
        low = int(mean)
        experts_s = self._curves[low][0]
        if mean > low:
            experts_s += (self._curves[low + 1][0] - experts_s) * (mean - low)
        return experts_s

    def step_s(self, core: Floats, x: Floats) -> float:
        """Seconds of a step of `x` tokens per rank whose ranks spend `core` on attention."""
        return self.seconds(int(x.max()), float(x.sum()) / len(x), float(core.max()))

    def book(self, x: int, context: float, seconds: float) -> None:
        """Count `seconds` of simulated time, for the provenance of the run: at the nearest grid point above."""
        self._visits[self._above[x]][bisect_left(self._knots, context)] += seconds

    def shares(self, x: float, context: float) -> Floats:
        """Shares of a step's seconds by the source that priced them, at the nearest grid point above."""
        i = min(int(self.x.searchsorted(x)), len(self.x) - 1)
        return self._shares(i, bisect_left(self._knots, context))

    def _shares(self, i: int, j: int) -> Floats:
        sources = self._by_source(i, min(j, self._last + 1)) + self._curves.by_source(i)
        return np.asarray(sources / sources.sum())

    def provenance_s(self) -> Floats:
        """Counted seconds by the source that priced the step's operations; shape (len(PRICED_BY),)."""
        visits = ((i, j, s) for i, row in enumerate(self._visits) for j, s in enumerate(row) if s)
        return sum((s * self._shares(i, j) for i, j, s in visits), np.zeros(SOURCES))


def locate(knots: Floats, at: Floats) -> tuple[Ints, Floats]:
    """Segment of `knots` that holds each value, and the position inside it; the last segment goes on for ever."""
    i = np.minimum(np.maximum(knots.searchsorted(at, side="right") - 1, 0), len(knots) - 2)
    low = knots.take(i)
    return i, np.maximum((at - low) / (knots.take(i + 1) - low), 0.0)
