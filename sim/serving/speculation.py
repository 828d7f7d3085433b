"""How many decode steps a sequence needs."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Speculation(Protocol):
    """Draws the steps of a sequence once, when it is admitted to decode."""

    def steps(self, request: int, tokens: int) -> int:
        """Steps in which `request` generates `tokens` tokens, between 1 and `tokens`.

        A pure function of the run's seed and its arguments, whatever else happens in the run.
        """
        ...


class OneTokenPerStep:
    """No speculation."""

    def steps(self, request: int, tokens: int) -> int:
        """See `Speculation.steps`."""
        return tokens


class DraftAcceptance:
    """Drafts verified in every step: a step yields 1 token and each draft that is accepted with all before it.

    `acceptance[i]`: chance that draft i is accepted given that all before it were (per position, because later
    drafts are guessed from guesses). Mean tokens per step, the accept length: 1 + sum_i prod_{j <= i} acceptance[j].
    """

    def __init__(self, acceptance: Sequence[float], seed: int) -> None:
        self._reach = np.cumprod(acceptance)
        """Chance that a step accepts at least 1, 2, ... drafts."""
        self._seed = seed

    @property
    def accept_length(self) -> float:
        """Mean tokens per step, the one that is always right included."""
        return 1.0 + float(self._reach.sum())

    def steps(self, request: int, tokens: int) -> int:
        """See `Speculation.steps`. The draws belong to (seed, request), whatever else happens in the run."""
        random = np.random.Generator(np.random.Philox(key=(self._seed, request)))
        taken = done = 0
        while done < tokens:
            # A step that accepts i drafts is one whose draw falls below the chance of the first i, not of i + 1.
            draws = random.random(int((tokens - done) / self.accept_length) + 8)
            ends = done + np.cumsum(1 + (draws[:, None] < self._reach).sum(axis=1))
            inside = int(np.searchsorted(ends, tokens))
            if inside < len(ends):
                return taken + inside + 1
            taken, done = taken + len(ends), int(ends[-1])
        return taken
