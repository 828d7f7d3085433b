"""How many decode steps a sequence needs."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sim.serving.decode_batch import DecodeBatch
from sim.serving.served_request import ServedRequest


class Drafting(Protocol):
    """Draws the steps of a sequence once, when it is admitted to decode."""

    @property
    def accept_length(self) -> float:
        """Mean tokens per step."""
        ...

    @property
    def overshoot(self) -> float:
        """Mean tokens that the last step of an answer generates beyond its end."""
        ...

    def steps(self, request: int, tokens: int) -> int:
        """Steps in which `request` generates `tokens` tokens, between 1 and `tokens`.

        A pure function of the run's seed and its arguments, whatever else happens in the run.
        """
        ...

    def at(self, batch: int) -> "Drafting":
        """What applies while the fullest rank of a worker decodes `batch` sequences; the same object until it
        changes."""
        ...


class OneTokenPerStep:
    """No speculation."""

    @property
    def accept_length(self) -> float:
        """One."""
        return 1.0

    @property
    def overshoot(self) -> float:
        """None."""
        return 0.0

    def steps(self, request: int, tokens: int) -> int:
        """See `Drafting.steps`."""
        return tokens

    def at(self, batch: int) -> "OneTokenPerStep":
        """See `Drafting.at`."""
        return self


class DraftAcceptance:
    """Drafts verified in every step: a step yields 1 token and each draft that is accepted with all before it.

    `acceptance[i]`: chance that draft i is accepted given that all before it were (per position, because later
    drafts are guessed from guesses). Mean tokens per step, the accept length: 1 + sum_i prod_{j <= i} acceptance[j].
    """

    def __init__(self, acceptance: Sequence[float], seed: int) -> None:
        self._reach = np.cumprod(acceptance)
        """Chance that a step accepts at least 1, 2, ... drafts."""
        self._accept_length = 1.0 + float(self._reach.sum())
        self._misses, self._tokens = self._reach[::-1].copy(), np.arange(1 + len(self._reach), 0, -1)
        """Of a step: the chances of its drafts, rising, and the tokens that it yields where its draw lies above so many
        of them."""
        self._bits = np.random.Philox(key=(seed, 0))
        self._random = np.random.Generator(self._bits)
        self._fresh: Any = self._bits.state

    @property
    def accept_length(self) -> float:
        """Mean tokens per step, the one that is always right included."""
        return self._accept_length

    @property
    def overshoot(self) -> float:
        """See `Drafting.overshoot`; of a renewal process with X tokens per step, E[X (X - 1)] / (2 E[X])."""
        return float(np.arange(1, len(self._reach) + 1) @ self._reach) / self.accept_length

    def at(self, batch: int) -> "DraftAcceptance":
        """See `Drafting.at`."""
        return self

    def steps(self, request: int, tokens: int) -> int:
        """See `Drafting.steps`. The draws belong to (seed, request), whatever else happens in the run."""
        self._fresh["state"]["key"][1] = request  # a new generator would take four times as long
        self._bits.state = self._fresh
        taken = 0
        while tokens > 0:
            # A step that accepts i drafts is one whose draw falls below the chance of the first i, not of i + 1.
            draws = self._random.random(int(tokens / self._accept_length) + 8)
            ends = np.add.accumulate(self._tokens[self._misses.searchsorted(draws, "right")])
            inside = int(ends.searchsorted(tokens))
            if inside < len(ends):
                return taken + inside + 1
            taken, tokens = taken + len(ends), tokens - int(ends[-1])
        return taken


class AdaptiveDrafts:
    """Fewer drafts, or none, as the batch grows: verifying them is nearly free only while a step waits for memory.

    `levels`: (largest batch, what applies up to there), rising; beyond the last one there are no drafts.
    """

    def __init__(self, levels: Sequence[tuple[int, Drafting]]) -> None:
        self._levels = levels
        self._beyond = OneTokenPerStep()

    @property
    def accept_length(self) -> float:
        """Mean tokens per step of a sequence that is alone on its rank."""
        return self.at(1).accept_length

    @property
    def overshoot(self) -> float:
        """The same of what is generated beyond the end."""
        return self.at(1).overshoot

    def at(self, batch: int) -> Drafting:
        """See `Drafting.at`."""
        return next((speculation for up_to, speculation in self._levels if batch <= up_to), self._beyond)

    def steps(self, request: int, tokens: int) -> int:
        """See `Drafting.steps`: alone on its rank for good."""
        return self.at(1).steps(request, tokens)


class Pace:
    """The drafts that a worker's batch runs with, and so for how many steps each of its sequences stays.

    A sequence's steps are drawn when it joins. Where the batch's growth or shrinking changes the drafts, they are
    drawn anew for the tokens that each sequence still needs.
    """

    __slots__ = (
        "_batch", "_now", "_speculation", "fixed",
    )  # fmt: skip

    def __init__(self, speculation: Drafting, batch: DecodeBatch) -> None:
        self._speculation, self._batch = speculation, batch
        self._now = speculation.at(1)
        self.fixed = self._now is speculation
        """Whether the drafts do not depend on the batch."""

    def join(self, sequence: ServedRequest, rank: int) -> None:
        """Let a sequence decode from the next step on."""
        tokens = sequence.output_tokens - sequence.generated_tokens
        self._batch.join(sequence, rank, self._now.steps(sequence.request, tokens))

    def adapt(self) -> None:
        """Change the drafts if the batch asks for it. At a step boundary, when all have joined and left."""
        now = self._speculation.at(self._batch.fullest)
        if now is not self._now:
            self._now = now
            self._batch.redraw(self._steps)

    def _steps(self, sequence: ServedRequest) -> int:
        return self._now.steps(sequence.request, sequence.remaining_tokens)
