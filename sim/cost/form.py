"""The fitted form of an operation's time: a launch cost and a few rooflines, one per stage of the kernel.

    t = c + sum over stages of ((F / e_f)^p + (B / e_b)^p)^(1/p)

F FLOP and B bytes of the stage (counted by the kernel's family, `sim.kernels`), e_f and e_b the rates that the
measurements show, c the seconds that remain at no work, p how sharply the larger of the two hides the smaller. A core
kernel has one stage; an attention block has one for its projections, one for its core, and so on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    def seconds(self, stages: Sequence[Stage]) -> float:
        """t of one shape, in seconds."""
        p, total = self.sharpness, self.launch_s
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = flop / e_f, traffic / e_b
            longer, shorter = (f, b) if f > b else (b, f)
            if longer > 0:
                total += longer * (1 + (shorter / longer) ** p) ** (1 / p)
        return total

    def seconds_each(self, stages: Sequence[Stage], rows: int) -> NDArray[np.float64]:
        """t of many shapes at once; the stages hold arrays."""
        p, total = self.sharpness, np.full(rows, self.launch_s)
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = np.broadcast_to(flop / e_f, rows), np.broadcast_to(traffic / e_b, rows)
            longer = np.maximum(np.maximum(f, b), np.finfo(float).tiny)
            total = total + longer * ((f / longer) ** p + (b / longer) ** p) ** (1 / p)
        return total

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
        return Form(
            self.launch_s * factor,
            self.sharpness,
            tuple(e / factor for e in self.flop_per_s),
            tuple(e / factor for e in self.bytes_per_s),
        )

    def scaled(self, kernel: str, speed: Mapping[str, float]) -> "Form":
        """The form on another GPU whose resources are `speed` times as fast; the launch cost stays."""
        carriers = FAMILIES[kernel].carried_by(len(self.flop_per_s))
        return Form(
            self.launch_s,
            self.sharpness,
            tuple(e * speed["compute"] for e in self.flop_per_s),
            tuple(e * speed[c] for e, c in zip(self.bytes_per_s, carriers, strict=True)),
        )
