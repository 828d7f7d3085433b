"""Steps of one phase, priced operation by operation, each once."""

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY, CostModel, price_all
from sim.model.operations import Operation
from sim.step.overlap import STAGES, Stage, StepOverlap, projections

Floats = NDArray[np.float64]
SOURCES: Final = len(PRICED_BY)


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
