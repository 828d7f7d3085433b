"""What a step takes beside its slowest rank's attention, by tokens or sequences per rank alone."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.step.overlap import Stage, Timeline, timeline
from sim.step.prices import SOURCES, Prices

Floats = NDArray[np.float64]
PARTS: Final = [field.name for field in fields(Timeline)]


class Curves(dict[int, tuple[float, Timeline]]):
    """Seconds of the experts, and everything but attention, for a whole number of tokens or sequences per rank.

    Looked up many times per simulated request: spelled out once for each number that occurs. The grid points beside a
    number are priced when it is first asked for.
    """

    def __init__(
        self, x: Sequence[float], first_context: float, prices: Prices, below: list[int], share: list[float]
    ) -> None:
        """`x`: grid points, from 0 on. `below`, `share`: by whole number, the grid point below it and how far it is on
        the way to the next."""
        super().__init__()
        self._x, self._first_context, self._prices = x, first_context, prices
        self._below, self._share = below, share
        self._points: dict[int, list[float]] = {}

    def __missing__(self, whole: int) -> tuple[float, Timeline]:
        last = len(self._below) - 1
        curves = self._at(min(whole, last))
        if whole > last:  # the last segment goes on
            before = self._at(last - 1)
            curves = [at + (at - b) * (whole - last) for at, b in zip(curves, before, strict=True)]
        experts, *rest = curves
        self[whole] = found = (experts, Timeline(*rest))
        return found

    def by_source(self, point: int) -> Floats:
        """Seconds at a grid point by the source that priced them; projections are attention's."""
        stages, _, _ = self._stages(point)
        return sum((seconds for name, seconds in stages.items() if name != "projections"), np.zeros(SOURCES))

    def _at(self, whole: int) -> list[float]:
        """Seconds of the experts, and the timeline's fields."""
        point, share = self._below[whole], self._share[whole]
        ends = zip(self._point(point), self._point(point + 1), strict=True)
        return [low + (high - low) * share for low, high in ends]

    def _point(self, point: int) -> list[float]:
        """The same at a grid point."""
        found = self._points.get(point)
        if found is None:
            stages, sends_s, launched = self._stages(point)
            by_stage = {name: seconds.sum() for name, seconds in stages.items()}
            overlap = self._prices.overlap
            halves = overlap.parts(self._x[point or 1]) > 1
            line = timeline(by_stage, overlap, halves, sends_s, launched)
            found = [by_stage["experts"], *(getattr(line, name) for name in PARTS)]
            self._points[point] = found = [*map(float, found)]
        return found

    def _stages(self, point: int) -> tuple[dict[Stage, Floats], float, float]:
        """As `Prices.whole`, also at point 0: a rank without tokens, which the other ranks' tokens keep in step.

        With fewer tokens than ranks the experts' load falls below one token per rank, down to a single token for all of
        them: point 0 is where the line through that and the first point meets none.
        """
        prices, first = self._prices, self._x[1]
        if point:
            return prices.whole(self._x[point], self._first_context)
        stages, sends_s, launched = prices.whole(first, self._first_context)
        if prices.ranks > 1:
            least, experts = 1 / prices.ranks, stages["experts"]
            slope = (experts - prices.experts(least)) / (first - least)
            stages = {**stages, "experts": experts - slope * first}
        return stages, sends_s, launched
