"""How many workers an autoscaler wants: as many as bring the signal to its target, and not fewer at once.

    wanted = ceil(workers x signal / target), within bounds; as many as there are where the signal is nearly on target

the rule of Kubernetes' horizontal pod autoscaler, which AIBrix and llm-d use. Fewer workers are wanted only when they
would have sufficed for a while: the highest number of that while counts.
"""

import math
from collections import deque

from sim.cluster.life_setup import Bounds, Scaling

ROUNDING = 1e-9
"""Workers; what a product of floating-point numbers may be above a whole one."""


class Scaler:
    """Of one pool."""

    def __init__(self, scaling: Scaling, bounds: Bounds) -> None:
        self._scaling, self._bounds = scaling, bounds
        self._recent: deque[tuple[float, int]] = deque()
        """(time, workers wanted by the signal alone)."""

    def wanted(self, signal: float, workers: int, now: float) -> int:
        """Workers wanted, of which `workers` serve now and show `signal` on average."""
        scaling, bounds, recent = self._scaling, self._bounds, self._recent
        ratio = signal / bounds.target
        count = workers
        if abs(ratio - 1) > scaling.tolerance:
            count = math.ceil(workers * ratio - ROUNDING)
        recent.append((now, min(bounds.most, max(bounds.least, count))))
        while recent[0][0] < now - scaling.scale_down_after_s:
            recent.popleft()
        return max(count for _, count in recent)
