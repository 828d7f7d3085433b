"""Low-latency exchange among more GPUs than a profile measured: it grows as DeepEP's own table says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sim.catalog import LowLatencyAllToAll
from sim.cost.latency import CostModel, Latency
from sim.model.operations import Operation

CARRIED: Final = ("measured", "fitted", "scaled", "extrapolated")
"""Prices that stand on measurements, which alone are carried on."""


@dataclass(frozen=True)
class WideExchange:
    """Prices of a profile, with low-latency dispatch and combine carried beyond the EP sizes that it measured:

        t(ep) = t(widest measured) x T(ep) / T(widest measured)

    T: DeepEP's published times by EP size, linear in log ep, constant beyond the last (README of deepseek-ai/DeepEP).
    An exchange inside one scale-up domain is left alone.
    """

    cost: CostModel
    table: LowLatencyAllToAll

    def knows(self, operation: Operation) -> bool:
        """As the model behind it."""
        return self.cost.knows(operation)

    def price(self, operation: Operation) -> Latency:
        """Seconds of one layer; `extrapolated` where they are carried on."""
        shape, widest = operation.shape, self.table.measured_to
        mode = operation.options.get("mode")
        if mode != "low_latency" or shape.get("nodes", 1.0) == 1 or shape.get("ep", 0.0) <= widest:
            return self.cost.price(operation)
        nodes = shape["nodes"] * widest / shape["ep"]
        within = replace(operation, shape={**shape, "ep": widest, "nodes": nodes})
        latency = self.cost.price(within)
        if latency.priced_by not in CARRIED:
            return self.cost.price(operation)
        times = self.table.dispatch_s if operation.kernel == "dispatch" else self.table.combine_s
        growth = _at(times, shape["ep"]) / _at(times, widest)
        source = f"{latency.source}; beyond EP{widest} as DeepEP's table grows"
        return replace(
            latency, seconds=latency.seconds * growth, priced_by="extrapolated", source=source, shares=()
        )


def _at(times: Mapping[int, float], ep: float) -> float:
    sizes = sorted(times)
    return float(np.interp(np.log2(ep), np.log2(sizes), [times[size] for size in sizes]))
