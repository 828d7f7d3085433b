"""The fitted form of an operation's time: a launch cost and a few rooflines, one per stage of the kernel.

    w = sum over stages of ((F / e_f)^p + (B / e_b)^p)^(1/p),    t = (c^q + w^q)^(1/q)

F FLOP and B bytes of the stage (counted by the kernel's family, `sim.kernels`), e_f and e_b the rates that the
measurements show, c the seconds that remain at no work, p how sharply the larger of the two hides the smaller. A core
kernel has one stage; an attention block has one for its projections, one for its core, and so on. q is 1 unless the
host launches the kernels of a block one by one while they run (`Family.launched`): then launches and work overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.kernels import FAMILIES
from sim.kernels.family import Stage


@dataclass(frozen=True, slots=True)
class Form:
    """The fitted parameters of one table."""

    launch_s: float
    """c: seconds at no work."""
    sharpness: float
    """p of the norm that joins compute and traffic; 1 adds them, large takes the longer."""
    flop_per_s: tuple[float, ...]
    """e_f of each stage; unused where the stage has no FLOP."""
    bytes_per_s: tuple[float, ...]
    """e_b of each stage; unused where the stage moves no bytes."""
    hiding: float = 1.0
    """q of the norm that joins launch cost and work; 1 adds them, large takes the longer."""

    def seconds(self, stages: Sequence[Stage]) -> float:
        """t of one shape, in seconds."""
        q, p = self.hiding, self.sharpness
        total = self.launch_s if q == 1 else 0.0
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = flop / e_f, traffic / e_b
            longer, shorter = (f, b) if f > b else (b, f)
            if longer > 0:
                total += longer * (1 + (shorter / longer) ** p) ** (1 / p)
        if q == 1:
            return total
        longer, shorter = max(total, self.launch_s), min(total, self.launch_s)
        return longer * (1 + (shorter / longer) ** q) ** (1 / q) if longer > 0 else 0.0

    def seconds_each(self, stages: Sequence[Stage], rows: int) -> NDArray[np.float64]:
        """t of many shapes at once; the stages hold arrays."""
        q, p = self.hiding, self.sharpness
        total = np.full(rows, self.launch_s if q == 1 else 0.0)
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = np.broadcast_to(flop / e_f, rows), np.broadcast_to(traffic / e_b, rows)
            longer = np.maximum(np.maximum(f, b), np.finfo(float).tiny)
            total = total + longer * ((f / longer) ** p + (b / longer) ** p) ** (1 / p)
        if q == 1:
            return total
        longer = np.maximum(np.maximum(total, self.launch_s), np.finfo(float).tiny)
        return np.asarray(longer * ((total / longer) ** q + (self.launch_s / longer) ** q) ** (1 / q))

    def terms(self, kernel: str, stages: Sequence[Stage]) -> dict[str, float]:
        """Seconds by what takes them (launch and each resource), before the norm joins them."""
        terms = {"launch": self.launch_s}
        carriers = FAMILIES[kernel].carried_by(len(stages))
        for (flop, traffic), e_f, e_b, carrier in zip(
            stages, self.flop_per_s, self.bytes_per_s, carriers, strict=True
        ):
            terms["compute"] = terms.get("compute", 0.0) + flop / e_f
            terms[carrier] = terms.get(carrier, 0.0) + traffic / e_b
        return terms

    def slower(self, factor: float) -> "Form":
        """The form of a kernel that takes `factor` times as long at every shape."""
        return replace(
            self,
            launch_s=self.launch_s * factor,
            flop_per_s=tuple(e / factor for e in self.flop_per_s),
            bytes_per_s=tuple(e / factor for e in self.bytes_per_s),
        )

    def scaled(self, kernel: str, speed: Mapping[str, float]) -> "Form":
        """The form on another GPU whose resources are `speed` times as fast; the launch cost stays."""
        carriers = FAMILIES[kernel].carried_by(len(self.flop_per_s))
        return replace(
            self,
            flop_per_s=tuple(e * speed["compute"] for e in self.flop_per_s),
            bytes_per_s=tuple(e * speed[c] for e, c in zip(self.bytes_per_s, carriers, strict=True)),
        )
