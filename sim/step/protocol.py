"""A batch -> one step's seconds.

The cluster asks only through `StepCost`; `sim.step.surface` builds the real one from operations and prices.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class StepCost(Protocol):
    """Seconds of the steps of one worker. Arrays have one entry per attention-DP rank of the worker.

    The ranks run in lock-step: a step lasts as long as its slowest rank. `context` is the mean number of KV
    tokens that a rank's tokens attend to (0 where the rank has none).
    """

    def decode_s(self, sequences: Floats, context: Floats) -> float:
        """One decode step of `sequences` per rank whose mean KV length is `context`."""
        ...

    def decode_steps_s(self, sequences: Floats, context: Floats, growth: Floats, steps: int) -> float:
        """`steps` decode steps in a row; each step lengthens a rank's mean context by `growth` tokens.

        Equals the sum of `decode_s(sequences, context + i * growth)` for i < steps within 0.01%.
        """
        ...

    def decode_steps_within(
        self, sequences: Floats, context: Floats, growth: Floats, steps: int, elapsed_s: float
    ) -> tuple[int, float]:
        """Smallest j <= steps whose `decode_steps_s` reaches `elapsed_s` (at least 1), and those seconds."""
        ...

    def prefill_s(self, tokens: Floats, context: Floats) -> float:
        """One prefill step of `tokens` new prompt tokens per rank; `context` as above, cached prefix included."""
        ...

    def mixed_s(self, sequences: Floats, context: Floats, tokens: Floats, token_context: Floats) -> float:
        """One step that decodes and computes prompt tokens together (aggregated serving)."""
        ...

    def provenance_s(self) -> dict[str, float]:
        """Seconds handed out so far by this object, by the source that priced them."""
        ...
