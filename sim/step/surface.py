"""Step costs on a grid, built once per pool: the simulation looks a step up in microseconds.

Attention is a table over (tokens or sequences on the rank, mean context), everything else curves over tokens per
rank. Between grid points all is linear.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import fields
from functools import cache
from math import inf
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY, CostModel, price_all
from sim.model.operations import Operation
from sim.step.overlap import STAGES, Line, Stage, StepOverlap, Timeline, projections, timeline

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SOURCES: Final = len(PRICED_BY)


def grid(low: float, high: float, per_octave: int, extra: Sequence[float] = ()) -> Floats:
    """Increasing points from `low` to `high`, whole and geometric with `per_octave` points per doubling, with `extra`
    as they are among them."""
    octaves = max(1, int(np.ceil(np.log2(max(high / low, 2.0)) * per_octave)))
    points = np.round(np.geomspace(low, high, octaves + 1))
    return np.unique([*points, *(float(x) for x in extra if low < x < high)])


def seconds_by_source(operations: list[Operation], cost: CostModel) -> Floats:
    """Seconds of one step's operations by the source that priced them; shape (len(PRICED_BY),)."""
    seconds = np.zeros(SOURCES)
    for priced in price_all(operations, cost):
        for source, of_layer in priced.latency.by_source():
            seconds[PRICED_BY.index(source)] += of_layer * priced.operation.layers
    return seconds


Whole = tuple[dict[Stage, Floats], float, float]


class Prices:
    """Steps of one phase, each priced once: surfaces over other contexts, or of other sizes, share most of them.

    `attention(x, context)` and `rest(x)` give the operations. With `overlap.two_batch` both halves are priced at x / 2
    from x = 2 on.
    """

    def __init__(
        self,
        attention: Callable[[float, float], list[Operation]],
        rest: Callable[[float], list[Operation]],
        cost: CostModel,
        overlap: StepOverlap,
        ranks: int = 1,
    ) -> None:
        """`ranks`: attention-DP ranks that share the routed experts."""
        self.overlap, self.ranks = overlap, ranks
        self._attention, self._rest, self._cost = attention, rest, cost
        self.core, self.whole, self.experts = cache(self._core), cache(self._whole), cache(self._experts)

    def _core(self, x: float, context: float) -> Floats:
        """Seconds of a step's attention by source."""
        halves = self.overlap.parts(x)
        times = halves * self.overlap.stretch("layers", halves)
        return times * seconds_by_source(self._attention(x / halves, context), self._cost)

    def _whole(self, x: float, context: float) -> Whole:
        """Seconds of each stage by source, what is sent, and what is launched, of a step with the first context."""
        overlap, halves = self.overlap, self.overlap.parts(x)
        stages: dict[Stage, Floats] = {name: np.zeros(SOURCES) for name in STAGES}
        others = self._rest(x / halves)
        for operation in others:
            times = overlap.times(operation, halves)
            stages[overlap.stage(operation)] += times * seconds_by_source([operation], self._cost)
        first = self._attention(x / halves, context)
        times = halves * overlap.stretch("layers", halves)
        before = [part for block in first for part in projections(block)]
        stages["projections"] = times * seconds_by_source(before, self._cost)
        return stages, overlap.sends_s(others, halves), overlap.launched((*first, *others), halves, x)

    def _experts(self, x: float) -> Floats:
        """Seconds of the routed experts by source."""
        experts = [operation for operation in self._rest(x) if self.overlap.stage(operation) == "experts"]
        return seconds_by_source(experts, self._cost)


class Surface:
    """Seconds of one phase on a grid of x (tokens or sequences per rank) and context.

    A step's seconds are those of a `Timeline`: the slowest rank's attention `core`, the routed experts, and what
    depends on x alone. With fewer tokens than ranks the experts' load falls below one token per rank, down to a single
    token for all of them.
    """

    __slots__ = (
        "_above", "_core", "_knots", "_last", "_lines", "_listed", "_rows", "_sources", "_spelled", "_visits",
        "context", "x",
    )  # fmt: skip

    def __init__(self, x: Floats, context: Floats, prices: Prices) -> None:
        self.context, overlap = context, prices.overlap
        # Point 0 is a rank without tokens: no attention, but the other ranks' tokens keep it in step.
        self.x = np.concatenate(([0.0], x))
        self._core = np.zeros((len(self.x), len(context), SOURCES))
        stages: dict[Stage, Floats] = {name: np.zeros((len(self.x), SOURCES)) for name in STAGES}
        sends, launched = np.zeros(len(self.x)), np.zeros(len(self.x))
        for i, whole in enumerate(x, start=1):
            found, sends[i], launched[i] = prices.whole(whole, context[0])
            for name, seconds in found.items():
                stages[name][i] = seconds
            for j, length in enumerate(context):
                self._core[i, j] = prices.core(whole, length)
        for curve in (*stages.values(), sends, launched):
            curve[0] = curve[1]
        if prices.ranks > 1:  # the line through one token for all and x[0] for each rank, where it meets none
            least, experts = 1 / prices.ranks, stages["experts"]
            slope = (experts[1] - prices.experts(least)) / (x[0] - least)
            experts[0] -= slope * x[0]
        parts = [curve for name, curve in stages.items() if name != "projections"]  # those are attention's
        self._sources = sum(parts, np.zeros_like(stages["once"]))
        by_stage = {name: curve.sum(axis=1) for name, curve in stages.items()}
        split = np.array([overlap.parts(whole) > 1 for whole in (x[0], *x)])
        one, two = (timeline(by_stage, overlap, halves, sends, launched) for halves in (False, True))
        chosen = {
            f.name: np.where(split, getattr(two, f.name), getattr(one, f.name)) for f in fields(Timeline)
        }
        below, u = locate(self.x, np.arange(self.x[-1] + 1))
        core = self._core.sum(axis=2)
        self._rows = core[below] + (core[below + 1] - core[below]) * u[:, None]
        curves = np.array([by_stage["experts"], *chosen.values()]).T
        self._spelled = _Spelled(curves[below] + (curves[below + 1] - curves[below]) * u[:, None])
        self._lines: dict[tuple[int, float], Line] = {}
        self._listed: dict[int, tuple[list[float], list[float], list[float]]] = {}
        self._knots: list[float] = context.tolist()
        self._last = len(self._knots) - 2
        self._above: list[int] = self.x.searchsorted(np.arange(self.x[-1] + 1)).tolist()
        self._visits: list[list[float]] = self.unused()._visits
        """Seconds booked, by grid point."""

    def rows(self, x: Floats) -> Floats:
        """Attention seconds over all contexts for each rank's x (whole numbers on the grid); shape (ranks, contexts).

        Raises IndexError beyond the largest x that the surface was built for.
        """
        return np.asarray(self._rows[x.astype(np.intp)])

    def core_s(self, x: Floats, context: Floats) -> Floats:
        """Attention seconds of each rank; shape (ranks,)."""
        return interpolate(self.context, self.rows(x), context[:, None])[:, 0]

    def unused(self) -> Self:
        """The same prices with nothing booked yet."""
        fresh = copy(self)
        fresh._visits = [[0.0] * (len(self._knots) + 1) for _ in self.x]
        return fresh

    def attention(self, x: int, context: float) -> tuple[float, float, float, float]:
        """See `DecodeTable.attention`.

        Raises IndexError beyond the largest x that the surface was built for.
        """
        row, slopes, steepest = self._listed.get(x) or self._list(x)
        knots = self._knots
        j = bisect_right(knots, context) - 1
        if j < 0:
            return row[0], 0.0, knots[0], steepest[0]
        if j >= self._last:
            j = self._last
            return row[j] + (context - knots[j]) * slopes[j], slopes[j], inf, steepest[j]
        return row[j] + (context - knots[j]) * slopes[j], slopes[j], knots[j + 1], steepest[j]

    def _list(self, x: int) -> tuple[list[float], list[float], list[float]]:
        """Attention seconds at each context, what a token adds up to the next one, and the most from there on."""
        slopes = np.diff(self._rows[x]) / np.diff(self.context)
        steepest = np.maximum.accumulate(slopes[::-1])[::-1]
        self._listed[x] = found = (self._rows[x].tolist(), slopes.tolist(), steepest.tolist())
        return found

    def at(self, x: int, context: float) -> float:
        """`attention` alone, for what hardly comes twice: prompts."""
        knots, seconds = self._knots, self._rows.item
        j = bisect_right(knots, context) - 1
        if j < 0:
            return float(seconds(x, 0))
        j = min(j, self._last)
        low, start = seconds(x, j), knots[j]
        return float(low + (seconds(x, j + 1) - low) * (context - start) / (knots[j + 1] - start))

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
        return self._spelled[fullest][1].line(self._experts_s(mean))

    def seconds(self, fullest: int, mean: float, attention_s: float) -> float:
        """Seconds of a step: `line_at` at once."""
        return self._spelled[fullest][1].seconds(self._experts_s(mean), attention_s)

    def _experts_s(self, mean: float) -> float:
        low = int(mean)
        experts_s = self._spelled[low][0]
        if mean > low:
            experts_s += (self._spelled[low + 1][0] - experts_s) * (mean - low)
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
        sources = self._core[i, min(j, self._last + 1)] + self._sources[i]
        return np.asarray(sources / sources.sum())

    def provenance_s(self) -> Floats:
        """Counted seconds by the source that priced the step's operations; shape (len(PRICED_BY),)."""
        visits = ((i, j, s) for i, row in enumerate(self._visits) for j, s in enumerate(row) if s)
        return sum((s * self._shares(i, j) for i, j, s in visits), np.zeros(SOURCES))


class _Spelled(dict[int, tuple[float, Timeline]]):
    """Seconds of the experts, and everything but attention, for a whole number of tokens or sequences per rank.

    Looked up many times per simulated request: spelled out once for each number that occurs.
    """

    def __init__(self, curves: Floats) -> None:
        """`curves`: shape (numbers, 1 + the timeline's fields)."""
        super().__init__()
        self._curves = curves

    def __missing__(self, whole: int) -> tuple[float, Timeline]:
        last = len(self._curves) - 1
        curves = self._curves[min(whole, last)]
        if whole > last:  # the last segment goes on
            curves = curves + (curves - self._curves[last - 1]) * (whole - last)
        experts, *rest = curves.tolist()
        self[whole] = found = (experts, Timeline(*rest))
        return found


def locate(knots: Floats, at: Floats) -> tuple[Ints, Floats]:
    """Segment of `knots` that holds each value, and the position inside it; the last segment goes on for ever."""
    i = np.minimum(np.maximum(knots.searchsorted(at, side="right") - 1, 0), len(knots) - 2)
    low = knots.take(i)
    return i, np.maximum((at - low) / (knots.take(i + 1) - low), 0.0)


def interpolate(knots: Floats, rows: Floats, at: Floats) -> Floats:
    """Row r of `rows` (ranks, knots) at the positions of row r of `at` (ranks, points)."""
    i, u = locate(knots, at)
    i += _starts(*rows.shape)
    low, high = rows.take(i), rows.take(i + 1)
    return np.asarray(low + (high - low) * u)


@cache
def _starts(rows: int, knots: int) -> Ints:
    """Where each row of a table begins, counted along the whole table; shape (rows, 1)."""
    return np.arange(0, rows * knots, knots)[:, None]
