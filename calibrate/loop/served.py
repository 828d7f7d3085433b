"""What became of the requests of a service, simulated or real, and its figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRICS = {"throughput": "output tokens/s", "ttft": "median TTFT, s", "tpot": "median TPOT, s"}
"""Name of each figure -> what it is."""


@dataclass(frozen=True)
class Served:
    """Columns over requests, in order of arrival; seconds since the beginning."""

    arrival_s: Floats
    first_s: Floats
    """First token."""
    finish_s: Floats
    output_tokens: NDArray[np.int64]

    def figures(self) -> dict[str, float]:
        """By the names of `METRICS`: output tokens from the first arrival to the last token over that time; the medians
        of TTFT and of TPOT = (last token - first) / (tokens - 1)."""
        duration_s = self.finish_s.max() - self.arrival_s.min()
        return {
            "throughput": float(self.output_tokens.sum() / duration_s),
            "ttft": float(np.median(self.first_s - self.arrival_s)),
            "tpot": float(np.median((self.finish_s - self.first_s) / (self.output_tokens - 1))),
        }
