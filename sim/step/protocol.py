"""A batch -> one step's seconds.

The cluster asks only through `StepCost`; `sim.step.surface` builds the real one from operations and prices.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.step.load import PromptLoad

Floats = NDArray[np.float64]


class DecodeRun(Protocol):
    """Decode steps in a row with the same sequences, whose contexts grow evenly from step to step."""

    def total_s(self, steps: int) -> float:
        """Seconds of the first `steps` steps, within 0.01% of their sum one by one."""
        ...

    def within(self, steps: int, elapsed_s: float) -> tuple[int, float]:
        """Smallest j <= steps whose `total_s` reaches `elapsed_s` (at least 1), and those seconds."""
        ...

    def book(self, seconds: float) -> None:
        """Steps that lasted `seconds` have been run: count them in `StepCost.provenance_s`."""
        ...


class StepCost(Protocol):
    """Seconds of the steps of one worker. Arrays have one entry per attention-DP rank of the worker.

    The ranks run in lock-step: a step lasts as long as its slowest rank. `context` is the mean number of KV
    tokens that a rank's tokens attend to (0 where the rank has none).
    """

    def decode_s(self, sequences: Floats, context: Floats) -> float:
        """One decode step of `sequences` per rank whose mean KV length is `context`. Books nothing."""
        ...

    def decode_run(self, sequences: Floats, context: Floats, growth: Floats) -> DecodeRun:
        """Decode steps of which number i, from 0, is `decode_s(sequences, context + i * growth)`."""
        ...

    def prefill_s(self, load: PromptLoad) -> float:
        """One prefill step. Books nothing."""
        ...

    def mixed_s(self, sequences: Floats, context: Floats, load: PromptLoad) -> float:
        """One step that decodes as `decode_s` does and computes prompt tokens as well (aggregated serving). Books
        nothing."""
        ...

    def book_prefill(self, load: PromptLoad, seconds: float) -> None:
        """A step, or the part of a mixed one, that computed these prompt tokens for `seconds` has been run: count it
        in `provenance_s`."""
        ...

    def provenance_s(self) -> dict[str, float]:
        """Booked seconds so far, by the source that priced them."""
        ...
